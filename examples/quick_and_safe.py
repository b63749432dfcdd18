"""The presets QUICK and SAFE: no bound for an experiment, and a producer that waits for its reader.

Usage: python examples/quick_and_safe.py
"""

import penstock


def main() -> None:
    with penstock.System() as system:
        quick = system.open_stream("quick", penstock.QUICK)
        quick.pause()  # nothing is read, and nothing waits
        quick.process_tokens(["token "] * 5000)
        print(f"QUICK holds {quick.statistics().buffer_size} tokens")
        quick.cancel()

        safe = system.open_stream("safe", penstock.SAFE.replace(push_timeout=0.1))
        safe.pause()
        try:
            safe.process_tokens(["token "] * 5000)
        except penstock.BufferFull as error:
            print(f"SAFE took {error.accepted} tokens, then the producer had to wait")
        safe.cancel()


if __name__ == "__main__":
    main()
