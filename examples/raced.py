"""Two models are asked at the same time; the first with content, or the first that completes, is shown.

Usage: python examples/raced.py     uses the embedded provider
"""

import penstock


def main() -> None:
    with penstock.System() as system:

        def ask(model: str) -> penstock.Stream:
            return system.chat(model, "Water runs downhill.", provider="loopback")

        race = system.race(lambda: ask("fault-no-start"), lambda: ask("echo"))
        print("by content:", race.result(30).text)
        print(f"  {race.statistics().attempts} were asked, and one was cancelled")

        # The first one begins at once and then stalls: only the other one completes.
        race = system.race(lambda: ask("fault-stall"), lambda: ask("echo"), by="completion")
        print("by completion:", race.result(30).text)

        try:
            system.race(lambda: ask("fault-401"), lambda: ask("fault-404")).result(30)
        except penstock.RaceError as error:
            print("all failed:", [type(one).__name__ for one in error.errors])


if __name__ == "__main__":
    main()
