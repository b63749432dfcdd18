"""A stream that is made anew when it fails, and several stages in a row.

Usage: python examples/retried.py     uses the embedded provider
"""

import penstock


def main() -> None:
    with penstock.System() as system:

        def loud(stream: penstock.Stream) -> penstock.Stream:
            return penstock.chain(stream, lambda event: [event.text.upper()])

        def ask(attempt: int) -> penstock.Stream:
            model = "fault-cut" if attempt == 1 else "echo"  # the first answer breaks off
            return penstock.pipe(system.chat(model, "Water runs downhill.", provider="loopback"), loud)

        stream = system.with_retry(ask, retries=3, base_delay=0.1)
        for event in stream:
            match event:
                case penstock.TokenEvent(text=text):
                    print(text, end="", flush=True)
                case penstock.StreamReset(reason=reason):
                    print(f" … void: {reason}")
        print(f"\n{stream.statistics().attempts} attempts")

        kept = system.with_retry(lambda: ask(1), restart="never")
        try:
            kept.result(30)
        except penstock.IncompleteStream as error:
            print(f"kept: {len(error.partial)} characters")


if __name__ == "__main__":
    main()
