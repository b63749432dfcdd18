"""The provider of the soak, in a process of its own: ``python -m tests.integration.soak_provider``.

Its answers are whole, reset, cut off, silent at the beginning, in the middle or for a while, or an error, by the model.
It prints its base URL, and exits when its standard input is closed.
"""

from __future__ import annotations

import sys
from typing import Final

from penstock.adapters.loopback.faults import DelayFirstByte, HangUp, ResetAfter, StallAfter, Status, TruncateAfter
from penstock.adapters.loopback.script import Answer, Replies, Script
from penstock.adapters.loopback.server import LoopbackProvider

__all__ = ["TEXT", "WORDS", "main"]

WORDS: Final = tuple(f"{number} " for number in range(20))
TEXT: Final = "".join(WORDS)
_WHOLE: Final = Answer(tokens=WORDS, pace=0.01)
_MODELS: Final[dict[str, Replies]] = {
    "whole": _WHOLE,
    "reset": _WHOLE.replace(faults=(ResetAfter(7),)),
    "cut": _WHOLE.replace(faults=(TruncateAfter(7),)),
    "slow": _WHOLE.replace(faults=(StallAfter(7, 0.2),)),
    "stalled": _WHOLE.replace(faults=(StallAfter(7),)),
    "silent": _WHOLE.replace(faults=(DelayFirstByte(None),)),
    "gone": HangUp(reset=True),
    "refused": Status(503),
}


def main(answers: str = "{}") -> None:
    """Serve until standard input is closed. It takes no answers, unlike `benchmarks.provider`."""
    del answers
    with LoopbackProvider(Script(models=_MODELS), max_connections=10_000) as provider:
        print(provider.base_url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
