"""Several combinators in a row, as one function that is tested and used like any other.

Usage: python examples/pipeline.py
"""

import penstock


def preview(stream: penstock.Stream) -> penstock.Stream:
    return stream.take(tokens=4)


def shout(stream: penstock.Stream) -> penstock.Stream:
    return stream.map(str.upper)


def main() -> None:
    with penstock.System() as system:
        answer = system.chat("echo", "whisper this to all the others", provider="loopback")
        short = penstock.pipe(answer, preview, shout, lambda stream: stream.tee(print))
        print(repr(short.result(timeout=10).text))


if __name__ == "__main__":
    main()
