"""Template of a combinator: a stream that is made of another one.

A new combinator is a module in ``penstock/toolbox``. Copy this file, and replace `_Relay.on_receive`. If you transform
tokens only, ``penstock.chain`` does it already.
"""

from __future__ import annotations

from collections.abc import Callable

import penstock
from penstock import otp
from penstock.actors.runtime.process import SystemMessage
from penstock.events import TokenKind
from penstock.ports import Sink

__all__ = ["without_reasoning"]


def without_reasoning(system: penstock.System, stream: penstock.Stream) -> penstock.Stream:
    """Open a stream with the events of another one, but without its reasoning.

    While the new stream is full, the old one waits. It ends as the old one does. If it ends first, it stops reading the
    old one.
    """
    target = system.open_stream(metadata=stream.metadata, on_orphan="cancel")
    relay = system.start_child(
        otp.ChildSpec(
            id=f"without_reasoning/{target.stream_id}",
            cls=_Relay,
            args=(target.stream_id, target.sink()),
            restart="temporary",
        )
    )
    assert relay is not None
    stream.subscribe(relay, slow="block", window=1)
    return target


class _Relay(otp.Process):
    """Passes the events on. It never blocks: while it waits, it is suspended.

    While it is suspended it does not acknowledge its last event, so the old stream waits too.
    """

    def __init__(self, stream_id: str, sink: Sink) -> None:
        super().__init__()
        self._stream_id = stream_id
        self._sink = sink
        self._tokens: list[tuple[str, TokenKind]] = []  # those that wait for room

    def on_receive(self, event: object) -> None:
        if self._sink.is_over:
            self.exit()  # a subscriber that has ended is unsubscribed
        match event:
            case penstock.TokenEvent(kind=kind, tokens=tokens):
                if kind != "reasoning":
                    self._tokens = [(token, kind) for token in tokens]
                    self.push()
            case penstock.StreamReset(reason=reason):
                self.reset(reason)
            case penstock.StreamCompleted():
                self._sink.end(like=event)
            case penstock.StreamFailed(error=error):
                self._sink.end(self._crashed(error), like=event)
            case penstock.StreamCancelled(reason=reason):
                self._sink.cancel(reason)
            case penstock.ToolCallStarted() | penstock.ToolCallDelta() | penstock.ToolCallCompleted():
                self._sink.push_event(event)

    def push(self) -> None:
        """Push the tokens that there is room for, and wait with the others."""
        tell = self.ref.tell
        try:
            del self._tokens[: self._sink.push_now(self._tokens, lambda: tell(_Continue(_Relay.push)))]
        except penstock.StreamClosed:
            self.exit()
        if self._tokens:
            self.suspend()
        else:
            self.resume()

    def reset(self, reason: str) -> None:
        """Reset the new stream, and wait until that is done."""
        tell = self.ref.tell
        self.suspend()
        self._sink.reset(reason, lambda is_done: tell(_Continue(lambda relay: relay.reset_done(reason, is_done))))

    def reset_done(self, reason: str, is_done: bool) -> None:
        """Continue after the reset, or ask for it again if the new stream's actor crashed meanwhile."""
        if is_done:
            self.resume()
        else:
            self.reset(reason)

    def _crashed(self, cause: object) -> penstock.StreamCrashed:
        failure = penstock.StreamCrashed(self._stream_id, ("without_reasoning", cause))
        failure.__cause__ = cause if isinstance(cause, BaseException) else None
        return failure

    def dispose(self, reason: object) -> None:
        """End the new stream even if this process was killed. Any thread."""
        super().dispose(reason)
        if not otp.is_clean(reason):
            self._sink.end(self._crashed(reason))


class _Continue(SystemMessage):
    """Calls a method of the relay. A suspended process still handles system messages."""

    __slots__ = ("_method",)

    def __init__(self, method: Callable[[_Relay], None]) -> None:
        self._method = method

    def apply(self, process: otp.Process) -> None:
        assert isinstance(process, _Relay)
        self._method(process)
