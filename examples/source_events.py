"""The events of another event system as a stream: its callback is the source.

Usage: python examples/source_events.py
"""

from typing import Any

import penstock


def find(event: dict[str, Any], context: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    return [event["text"]], {"custom": context}


def main() -> None:
    with penstock.System() as system:
        handle = penstock.sources.from_events(find)
        stream = system.stream_from(handle)
        for text in ("Hello, ", "world!"):  # this is what the other event system does
            handle({"text": text}, {"user": 7})
        handle.end()
        end = stream.result(10)
        print(end.text, end.metadata["custom"])


if __name__ == "__main__":
    main()
