"""A text as a stream, cut into words and paced, with its progress; paused and resumed on the way.

Usage: python examples/source_text.py
"""

import penstock

TEXT = "The gate opens. Water finds its way, and the turbine turns."


def main() -> None:
    with penstock.System() as system:
        stream = system.stream_from(penstock.sources.text(TEXT, by="word", delay=0.01))
        stream.pause()
        print(f"paused after {stream.statistics().position} of {len(TEXT)} characters")
        stream.resume()
        for text in stream.texts():
            print(text, end="", flush=True)
        print(f"\n{stream.statistics().progress:.0%}")


if __name__ == "__main__":
    main()
