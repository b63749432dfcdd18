"""One stream, three readers at once: a plain Pykka actor, a function, and an iterator that joins late.

Usage: python examples/actor_subscriber.py
"""

import threading
from typing import Any

import pykka

import penstock


class Transcript(pykka.ThreadingActor):
    """An ordinary Pykka actor; all it uses of Penstock are the events it receives."""

    def __init__(self, finished: threading.Event) -> None:
        super().__init__()
        self.finished = finished
        self.parts: list[str] = []

    def on_receive(self, message: Any) -> Any:
        match message:
            case penstock.TokenEvent(text=text):
                self.parts.append(text)
            case penstock.StreamCompleted():
                self.finished.set()
            case "text":
                return "".join(self.parts)
        return None


def main() -> None:
    finished = threading.Event()
    counted: list[int] = []
    transcript = Transcript.start(finished)
    try:
        with penstock.System() as system:
            stream = system.open_stream("reading", penstock.StreamOptions(rate_limit=None, batch_size=3))
            stream.subscribe(transcript)
            stream.subscribe(lambda event: counted.append(event.seq))
            stream.process_tokens(["To ", "be, ", "or ", "not ", "to ", "be"])
            stream.flush_buffer()
            late = stream.events(after=1)  # event 1 was read elsewhere; continue after it
            stream.process_token(".")
            stream.stop()
            print("late reader:", [event.seq for event in late])
            finished.wait(timeout=5)
            print("transcript: ", transcript.ask("text", timeout=5))
        print("the function saw events", counted)
    finally:
        transcript.stop()


if __name__ == "__main__":
    main()
