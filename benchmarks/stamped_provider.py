"""The loopback provider, with the time of sending in the text of each token: ``python -m benchmarks.stamped_provider``.

The time goes through whatever is between the provider and the client, as any text does. See `benchmarks.provider`.
"""

from __future__ import annotations

import sys
import time
from typing import Final

from benchmarks import provider
from benchmarks.load_client import stamped
from penstock.adapters.loopback.chat_encoder import ChatEncoder

__all__ = ["UNSTAMPED"]

UNSTAMPED: Final = stamped(10**9)
"""A token in which the time of sending is put, if its answer has ``timestamps``."""


def _stamp(_encoder: ChatEncoder, event: bytes) -> bytes:
    return event.replace(UNSTAMPED.encode(), stamped(time.time()).encode())


if __name__ == "__main__":
    setattr(ChatEncoder, "stamped", _stamp)  # noqa: B010
    provider.main(*sys.argv[1:])
