"""The smallest consumer: a callback that collects the text, and a summary at the end.

Usage: python examples/basic_collector.py ["a message"]     without OPENAI_API_KEY it uses the embedded provider
"""

import os
import sys
import threading

import penstock


class Collector:
    """Collects the text of one stream. It is called in a process of its own, with one event at a time."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.tokens = 0
        self.end: penstock.TerminalEvent | None = None
        self.done = threading.Event()

    def __call__(self, event: penstock.Event) -> None:
        match event:
            case penstock.StreamReset():
                self.pieces.clear()
            case penstock.TokenEvent(kind="text"):
                self.pieces.append(event.text)
                self.tokens += len(event.tokens)
            case penstock.StreamCompleted() | penstock.StreamFailed() | penstock.StreamCancelled():
                self.end = event
                self.done.set()


def main() -> None:
    message = sys.argv[1] if len(sys.argv) > 1 else "Say something about water."
    model, provider = ("gpt-4.1-mini", "openai") if os.environ.get("OPENAI_API_KEY") else ("loopback", "loopback")
    collector = Collector()
    with penstock.System() as system:
        stream = system.chat(model, [{"role": "user", "content": message}], provider=provider)
        stream.subscribe(collector)
        if not collector.done.wait(timeout=60):
            stream.cancel("a minute is enough")
    print("".join(collector.pieces))
    print(f"{collector.tokens} tokens, ended as {type(collector.end).__name__}")


if __name__ == "__main__":
    main()
