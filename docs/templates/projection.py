"""Template of a projection: what a client of some protocol receives for each event of a stream.

A new projection is a module in ``penstock/gateway/projections`` with one class. Copy this file, and replace what `feed`
returns. A projection is pure: no I/O, no clock, no random ids, so that a client that reconnects to another node gets
the same bytes again.
"""

from __future__ import annotations

import json

import penstock

__all__ = ["JsonLines"]


class JsonLines:
    r"""Project a stream onto JSON lines. One instance projects one stream for one client.

    >>> event = penstock.TokenEvent("s", 1, ("Hi",), "Hi", "text", 0.0, {})
    >>> JsonLines().feed(event)
    [b'{"text": "Hi", "seq": 1}\n']
    """

    def feed(self, event: penstock.Event) -> list[bytes]:
        """Return the frames of one event, in order; ``[]`` if the protocol has nothing for it.

        Events come in the order of their ``seq``, each once. The last one is a terminal event.
        """
        match event:
            case penstock.StreamSnapshot(text=text):
                return [self._line({"replace": text}, event)]
            case penstock.TokenEvent(kind="text", text=text):
                return [self._line({"text": text}, event)]
            case penstock.StreamReset():
                return [self._line({"replace": ""}, event)]
            case penstock.StreamCompleted(finish_reason=reason):
                return [self._line({"end": "completed", "finish_reason": reason}, event)]
            case penstock.StreamFailed(error=error):
                return [self._line({"end": "failed", "error": type(error).__name__}, event)]
            case penstock.StreamCancelled():
                return [self._line({"end": "cancelled"}, event)]
        return []

    def _line(self, content: dict[str, object], event: penstock.Event) -> bytes:
        return json.dumps(content | {"seq": event.seq}, ensure_ascii=False).encode() + b"\n"
