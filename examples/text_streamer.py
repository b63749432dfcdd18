"""A text streamed word by word, paused in the middle, resumed, and its progress.

Usage: python examples/text_streamer.py
"""

import penstock

TEXT = "A penstock is the gated pipe that carries a stream under control to where it does work. " * 20


def main() -> None:
    with penstock.System() as system:
        stream = system.stream_from(penstock.sources.text(TEXT, by="word", delay=0.002), stream_id="words")
        pieces = 0
        for event in stream:
            match event:
                case penstock.TokenEvent(tokens=tokens):
                    pieces += len(tokens)
                    if pieces >= 40 and not event.metadata.get("paused"):
                        stream.update_metadata({"paused": True})
                        stream.pause()
                        share = stream.statistics().progress or 0.0
                        print(f"paused, state {stream.state!r}, at least 40 words, less than all: {share < 1}")
                        stream.resume()
                case penstock.StreamCompleted(text=text):
                    print(f"complete: {text == TEXT}; {stream.statistics().progress:.0%} of the text")


if __name__ == "__main__":
    main()
