"""Streams from what can be iterated: a list, a generator that blocks, bytes, an async generator.

Usage: python examples/source_iterables.py
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import penstock


def slowly() -> Iterator[str]:
    for word in ("one ", "two ", "three"):
        time.sleep(0.01)  # it runs on a thread of the system's bounded pool
        yield word


def failing() -> Iterator[str]:
    yield "half of "
    raise OSError("the source is gone")


async def later() -> AsyncIterator[str]:
    for word in ("four ", "five"):
        await asyncio.sleep(0.01)
        yield word


def main() -> None:
    with penstock.System() as system:
        print("list:", system.stream_from(["a", "b"]).result(10).text)
        print("generator:", system.stream_from(slowly).result(10).text)
        print("bytes:", system.stream_from([b"caf\xc3", b"\xa9"]).result(10).text)
        print("async:", system.stream_from(later).result(10).text)
        words = system.stream_from(["pass", "word: se", "cret"], by="word")
        tokens = [token for event in words if isinstance(event, penstock.TokenEvent) for token in event.tokens]
        print("words:", tokens)
        try:
            system.stream_from(failing).result(10)
        except penstock.SourceError as error:
            print(f"failed: {type(error.__cause__).__name__} after {error.partial!r}")


if __name__ == "__main__":
    main()
