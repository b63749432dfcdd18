"""A second call is made if the first is slow to begin, so that the slowest answers are not that slow.

Usage: python examples/hedged.py     uses the embedded provider
"""

import penstock

MODELS = {1: "fault-no-start", 2: "echo"}  # the first attempt would never begin


def main() -> None:
    with penstock.System() as system:

        def ask(attempt: int) -> penstock.Stream:
            return system.chat(MODELS[attempt], "Water runs downhill.", provider="loopback")

        hedge = system.hedge(ask, after=0.2)  # the default: 95 of 100 answers have begun by then
        print(hedge.result(30).text)
        print(f"{hedge.statistics().attempts} attempts")

        quick = system.hedge(lambda: system.chat("echo", "Gates decide.", provider="loopback"))
        print(quick.result(30).text)
        print(f"{quick.statistics().attempts} attempt, {quick.statistics().hedges_refused} refused by the budget")


if __name__ == "__main__":
    main()
