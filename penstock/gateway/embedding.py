"""What the responses for other frameworks share: one stream, one protocol, one reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from penstock.actors.stream.record import StreamRecord
from penstock.config.checks import check_choice, check_on_orphan
from penstock.config.gateway import GatewayOptions
from penstock.config.options import OnOrphan
from penstock.errors import OptionError
from penstock.gateway.channels import abandon_unread, epoch_of
from penstock.gateway.problems import RequestRefused
from penstock.gateway.projections.frames import Opening, Projection
from penstock.gateway.projector import Projector
from penstock.gateway.protocols import PROTOCOLS, STREAM_HEADERS, Protocol
from penstock.gateway.resume import Beginning, ResumePoint, gone, start_of
from penstock.gateway.ticker import Ticker
from penstock.stream import Stream

__all__ = ["Embedded", "OnDisconnect"]

OnDisconnect: TypeAlias = OnOrphan | Callable[[], object] | None
"""What happens when the client leaves: the stream's ``on_orphan`` (None), another one, or a call of a function."""

_SERVED: Final = tuple(name for name in PROTOCOLS if name != "socket")


class Embedded:
    """A stream that a route of the host serves.

    Args:
        stream: the stream.
        protocol: a name of `PROTOCOLS`.
        after: goes on after this event; None: as the request says (``Last-Event-ID``, ``?after=``).
        on_disconnect: see `OnDisconnect`.
        options: None takes the defaults.
        variant: what the protocol lets a reader choose.

    Raises:
        OptionError: an argument is not allowed.
    """

    def __init__(
        self,
        stream: Stream,
        protocol: str,
        after: int | str | None,
        on_disconnect: OnDisconnect,
        options: GatewayOptions | None,
        variant: Mapping[str, str],
    ) -> None:
        if not isinstance(stream, Stream):
            raise OptionError("stream", type(stream).__name__, "a Stream")
        check_choice("protocol", protocol, _SERVED)
        if on_disconnect is not None and not callable(on_disconnect):
            try:
                check_on_orphan(on_disconnect)
            except OptionError as error:
                raise OptionError("on_disconnect", on_disconnect, f"{error.allowed} | a function | None") from None
            stream._record.set_orphan_policy(on_disconnect)
        self.protocol: Protocol = PROTOCOLS[protocol]
        self.options = options if options is not None else GatewayOptions()
        self.record: StreamRecord = stream._record
        self.after = after
        self._variant = dict(variant)
        self._on_disconnect = on_disconnect if callable(on_disconnect) else None

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers of the response."""
        own = ("x-penstock-stream-id", self.record.stream_id)
        return [*STREAM_HEADERS, *self.protocol.headers, own]

    @property
    def epoch(self) -> str:
        """The epoch of the stream's log."""
        return epoch_of(self.record)

    def new_projection(self) -> Projection:
        """A projection that has been fed nothing."""
        opening = Opening(
            stream_id=self.record.stream_id,
            epoch=self.epoch,
            created=int(self.record.created_at),
            model=str(self.record.metadata.get("model", "")),
            variant=self._variant,
            is_turn=self.record.is_turn,
        )
        return self.protocol.projection(opening)

    def projector(self, ticker: Ticker) -> Projector:
        """A projector of its own: the host's routes share none."""
        return Projector(self.record, self.new_projection(), ticker, self.options.retain_bytes)

    def start(self, projector: Projector, headers: Mapping[str, str], query: Mapping[str, str]) -> Beginning:
        """Where the reader begins, by ``after`` or else by the request; see `start_of`. The projector has caught up.

        Raises:
            RequestRefused: the request's cursor is none (400), or it is strict and there is a gap (410).
        """
        point = self.point(headers, query)
        start = start_of(point, projector, self.epoch)
        if start.is_gap and point.is_strict:
            raise RequestRefused(gone(self.record.log.first_seq))
        return start

    def is_gap(self, point: ResumePoint) -> bool:
        """Whether a reader does not go on exactly after its cursor; known before anything of the stream is read.

        Raises:
            RequestRefused: so it is, and the cursor is strict (410). The stream gets no reader.
        """
        first = self.record.log.first_seq
        is_gap = point.epoch not in ("", self.epoch) or (point.seq is not None and 0 < point.seq < first - 1)
        if is_gap and point.is_strict:
            abandon_unread(self.record)
            raise RequestRefused(gone(first))
        return is_gap

    def is_at_end(self, point: ResumePoint) -> bool:
        """Whether a cursor is the end of the ended stream, so that there is nothing to read, and never will be."""
        end = self.record.log.terminal
        is_own = point.epoch in ("", self.epoch)
        return is_own and end is not None and (point.seq is None or point.seq >= end.seq)

    def point(self, headers: Mapping[str, str], query: Mapping[str, str]) -> ResumePoint:
        """The cursor. After one that is none, the stream gets no reader, and its ``on_orphan`` applies.

        Raises:
            RequestRefused: the request's cursor is none.
        """
        given = {} if self.after is None else {"after": str(self.after)}
        try:
            return ResumePoint.of({}, given) if given else ResumePoint.of(headers, query)
        except RequestRefused:
            abandon_unread(self.record)
            raise

    def client_left(self) -> None:
        """Call the function for that, if there is one."""
        if self._on_disconnect is not None:
            self._on_disconnect()
