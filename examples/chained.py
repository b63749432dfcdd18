"""Two streams in a row: the second changes the tokens of the first, with backpressure through both.

Usage: python examples/chained.py
"""

import penstock


def main() -> None:
    with penstock.System() as system:
        raw = system.chat("echo", [{"role": "user", "content": "whisper this, please"}], provider="loopback")
        loud = penstock.chain(raw, lambda event: [token.upper() for token in event.tokens])
        print(loud.result(timeout=10).text)


if __name__ == "__main__":
    main()
