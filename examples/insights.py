"""Watch an answer: counts, rates, and an answer that repeats itself without end, which is ended.

Usage: python examples/insights.py
"""

import penstock


def runaway() -> list[str]:
    return ["The gate is open.\n", *["The turbine turns and "] * 500]


def main() -> None:
    with penstock.System() as system:
        answer = system.chat("loopback", "Tell me about penstocks.", provider="loopback")
        with answer.insights() as insights:
            answer.result(timeout=10)
            report = insights.report()
        print(f"{report.words} words in {report.sentences} sentence(s), {report.loops} loop(s)")

        answer = system.stream_from(runaway)
        insights = answer.insights(on_loop="cancel")
        for event in answer:
            if isinstance(event, penstock.LoopDetected):
                print(f"from character {event.start} on, {event.period} characters are repeated")
            elif isinstance(event, penstock.StreamFailed):
                print(f"{type(event.error).__name__}: {event.partial!r}")
        print("ended early:", insights.report().characters < 11_000)


if __name__ == "__main__":
    main()
