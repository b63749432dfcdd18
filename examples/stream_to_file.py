"""Write an answer to a file while it is read. The file gets its name when the answer is complete.

Usage: python examples/stream_to_file.py     writes answer.txt, events.jsonl and broken.txt.partial
"""

import pathlib

import penstock


def main() -> None:
    with penstock.System() as system:
        answer = system.chat("loopback", "Tell me about penstocks.", provider="loopback")
        kept = answer.tee("answer.txt").tee("events.jsonl", mode="jsonl")
        for text in kept.texts():
            print(text, end="", flush=True)
        lines = pathlib.Path("events.jsonl").read_text("utf-8").count("\n")
        print(f"\nanswer.txt: {pathlib.Path('answer.txt').stat().st_size} bytes; events.jsonl: {lines} events")

        broken = system.chat("fault-truncate", "Tell me about penstocks.", provider="loopback").tee("broken.txt")
        try:
            broken.result(timeout=10)
        except penstock.ProviderError as error:
            (left,) = pathlib.Path().glob("broken.txt*")
            print(f"{type(error).__name__}: {left.name} has {len(left.read_text('utf-8'))} characters")


if __name__ == "__main__":
    main()
