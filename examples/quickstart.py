"""One supervised stream, read to its end.

Usage: python examples/quickstart.py [PROMPT]

It uses the embedded provider, so it needs no key. For a real one, set OPENAI_API_KEY and change the two constants.
"""

import sys

import penstock

PROVIDER, MODEL = "loopback", "echo"


def main() -> None:
    prompt = " ".join(sys.argv[1:]) or "Water finds its way, token by token."
    with penstock.System() as system:
        stream = system.chat(MODEL, [{"role": "user", "content": prompt}], provider=PROVIDER)
        for event in stream:
            match event:
                case penstock.TokenEvent(text=text):
                    print(text, end="", flush=True)
                case penstock.StreamCompleted(usage=usage):
                    print("\n", usage)
                case penstock.StreamFailed(error=error):
                    raise error
        statistics = stream.statistics()
        print(f"{statistics.tokens_delivered} tokens in {statistics.batches_flushed} events")


if __name__ == "__main__":
    main()
