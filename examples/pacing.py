"""Adaptive pacing: a provider that sends bursts is shown as an even text.

Usage: python examples/pacing.py
"""

import time

import penstock

BURST = "Water falls, the gate decides how much, and the turbine turns. "


def show(system: penstock.System, pacing: str) -> None:
    stream = system.open_stream(options=penstock.SAFE.replace(pacing=pacing, max_lag=1.0))
    pieces: list[int] = []
    stream.subscribe(lambda event: pieces.append(len(event.text)) if isinstance(event, penstock.TokenEvent) else None)
    for _ in range(4):
        stream.process_token(BURST * 2)  # 126 characters, three times a second
        time.sleep(0.33)
    horizon = stream.statistics().pacing_horizon_s
    stream.stop()
    spread = "" if horizon is None else f", each burst spread over {horizon:.2f} s"
    print(f"{pacing}: {len(pieces)} pieces, the longest of {max(pieces[1:])} characters{spread}")


def main() -> None:
    with penstock.System() as system:
        show(system, "fixed")
        show(system, "adaptive")


if __name__ == "__main__":
    main()
