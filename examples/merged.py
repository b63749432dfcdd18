"""Several answers in one stream, as they come, each event with its origin; what failed is reported at the end.

Usage: python examples/merged.py     uses the embedded provider
"""

import penstock

QUESTIONS = {"Q1": ("echo", "Water runs downhill."), "Q2": ("fault-truncate", "?"), "Q3": ("echo", "Gates decide.")}


def main() -> None:
    with penstock.System() as system:
        streams = {
            name: system.chat(model, question, provider="loopback") for name, (model, question) in QUESTIONS.items()
        }
        last = None
        for event in system.merge(streams):
            match event:
                case penstock.TokenEvent(origin=origin, text=text):
                    print(text if origin == last else f"\n[{origin}] {text}", end="", flush=True)
                    last = origin
                case penstock.OriginEnded(origin=origin, outcome=outcome):
                    print(f"\n[{origin}] {type(outcome).__name__}", end="")
                    last = None
                case penstock.StreamFailed(error=penstock.MergeError() as error, texts=texts):
                    print(f"\nfailed: {', '.join(error.errors)}; complete: {texts['Q1']!r}, {texts['Q3']!r}")


if __name__ == "__main__":
    main()
