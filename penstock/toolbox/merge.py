"""Several streams in one: `merge`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from penstock.actors.stream.outcome import add_costs, add_usages
from penstock.config.checks import check_choice, check_number
from penstock.config.options import OnOrphan, StreamOptions
from penstock.errors import MergeError, OptionError, PenstockError, StreamCancelledError
from penstock.events import (
    Cost,
    FrozenDict,
    OriginEnded,
    SideEvent,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    TerminalEvent,
    TokenEvent,
)
from penstock.stream import Stream
from penstock.system import System
from penstock.toolbox.pump import derive
from penstock.toolbox.stage import Stage, Steps, completed, failed

__all__ = ["OnError", "merge"]

OnError: TypeAlias = Literal["collect", "fail"]


def merge(
    *streams: Stream | Mapping[str, Stream],
    on_error: OnError = "collect",
    window: int = 4,
    system: System | None = None,
    stream_id: str | None = None,
    options: StreamOptions | None = None,
    metadata: Mapping[str, Any] | None = None,
    on_orphan: OnOrphan = "cancel",
) -> Stream:
    """Open a stream of the events of several streams, as they come; each has its ``origin``.

    The order within an origin is kept. Inputs that have events take turns, one event each, so that a fast one does not
    keep a slow one waiting. When an input ends, `OriginEnded` tells how. After the last one the stream completes if all
    of them have, with ``texts`` and ``costs`` by origin and the sums of usage and cost (None if one is not known).

    In an input that is merged itself, an origin ``b`` of the input ``a`` becomes ``a/b``.

    Args:
        *streams: the inputs, whose ids are the origins; or one mapping of origins to inputs.
        on_error: when an input has failed or was cancelled. ``"collect"``: the others go on, and the stream ends in
            `MergeError` with the ``errors`` and ``results`` by origin. ``"fail"``: the others are let go of, and the
            stream fails at once with that error; its terminal event has the ``origin``.
        window: how many events of each input may wait before the input does, 1 … 1,000,000.
        system: None is that of the first input.
        stream_id: as for `System.open_stream`; so for the next three.
        options: None lets at most 100 tokens wait, and no token waits for a batch.
        metadata: None takes that of the first input, if it is known at the start.
        on_orphan: by default the stream is cancelled when its last subscriber leaves.

    Raises:
        OptionError: an argument is not allowed; a stream is given twice; there is neither an input nor a system.
        StreamExists, SystemStopped: as for `System.open_stream`.
    """
    inputs = _named(streams)
    check_choice("on_error", on_error, ("collect", "fail"))
    check_number("window", window, 1, 1_000_000, whole=True)
    return derive(
        Merge(tuple(inputs), on_error),
        list(inputs.values()),
        system=system,
        stream_id=stream_id,
        options=options,
        metadata=metadata,
        on_orphan=on_orphan,
        window=window,
    )


def _named(streams: Sequence[Stream | Mapping[str, Stream]]) -> dict[str, Stream]:
    """The inputs by origin."""
    if len(streams) == 1 and isinstance(streams[0], Mapping):
        named = dict(streams[0])
        for name, stream in named.items():
            if not isinstance(name, str) or not name:
                raise OptionError("streams", name, "names of the origins, as keys")
            _check_stream(stream)
        return named
    found: dict[str, Stream] = {}
    for one in streams:
        checked = _check_stream(one)
        if checked.stream_id in found:
            raise OptionError("streams", checked.stream_id, "each stream once, or a mapping that names them")
        found[checked.stream_id] = checked
    return found


def _check_stream(stream: object) -> Stream:
    if not isinstance(stream, Stream):
        raise OptionError("streams", type(stream), "streams, or one mapping of origins to streams")
    return stream


class Merge(Stage):
    """See `merge`. The place of an input is that of its origin in ``origins``."""

    kind = "merge"

    def __init__(self, origins: Sequence[str], on_error: OnError = "collect") -> None:
        self._origins = tuple(origins)
        self._fails = on_error == "fail"
        self._within: list[dict[str, None]] = [{} for _ in origins]  # the origins of an input that is merged itself
        self._results: dict[str, TerminalEvent] = {}
        self._errors: dict[str, PenstockError] = {}

    def begin(self) -> Steps:
        """See `Stage.begin`."""
        return () if self._origins else (completed(),)

    def feed(self, event: TokenEvent | SideEvent, place: int = 0) -> Steps:
        """See `Stage.feed`."""
        origin = self._origins[place]
        if event.origin is not None:
            self._within[place][event.origin] = None
            origin = f"{origin}/{event.origin}"
        return (msgspec.structs.replace(event, origin=origin),)

    def reset(self, reset: StreamReset, place: int = 0) -> Steps:
        """See `Stage.reset`: only what came of this input is void."""
        origin, within = self._origins[place], self._within[place]
        if reset.origin is not None:
            return (msgspec.structs.replace(reset, origin=f"{origin}/{reset.origin}"),)
        names = [origin, *(f"{origin}/{name}" for name in within)] if within else [origin]
        within.clear()
        return [msgspec.structs.replace(reset, origin=name) for name in names]

    def end(self, terminal: TerminalEvent, place: int = 0) -> Steps:
        """See `Stage.end`."""
        origin = self._origins[place]
        self._results[origin] = terminal
        error = _error_of(terminal)
        if error is not None:
            self._errors[origin] = error
        steps: list[Any] = [OriginEnded(origin=origin, outcome=terminal)]
        if error is not None and self._fails:
            steps.append(failed(error, like=msgspec.structs.replace(self._total(), origin=origin)))
        elif len(self._results) == len(self._origins):
            total = self._total()
            if self._errors:
                in_order = {name: self._errors[name] for name in self._origins if name in self._errors}
                results = {name: self._results[name] for name in self._origins}
                steps.append(failed(MergeError(self.stream_id, in_order, results), like=total))
            else:
                steps.append(total)
        return steps

    def _total(self) -> StreamCompleted:
        """The end of a merge that completes, with the sums over the inputs that have ended."""
        ends = {name: self._results[name] for name in self._origins if name in self._results}
        reasons = {end.finish_reason for end in ends.values() if isinstance(end, StreamCompleted)}
        costs = {name: end.cost for name, end in ends.items()}
        facts: dict[str, Any] = {}
        if len(self._origins) == 1 and ends:  # as it is
            (one,) = ends.values()
            names = ("reasoning_blocks", "choices", "provider_blocks", "provider_metadata")
            facts = {name: getattr(one, name) for name in names}
            facts["raw_finish_reason"] = getattr(one, "raw_finish_reason", None)
        return completed(
            reasons.pop() if len(reasons) == 1 else "stop",
            usage=add_usages([end.usage for end in ends.values()], none_is_unknown=True),
            cost=_sum_of(list(costs.values())) if len(ends) == len(self._origins) else None,
            costs=FrozenDict(costs),
            model=_common(end.model for end in ends.values()),
            provider=_common(end.provider for end in ends.values()),
            tool_calls=tuple(call for end in ends.values() for call in end.tool_calls),
            **facts,
        )


def _error_of(terminal: TerminalEvent) -> PenstockError | None:
    """Why an input has not completed."""
    match terminal:
        case StreamCompleted():
            return None
        case StreamFailed(error=error):
            return error
        case _:
            return StreamCancelledError(terminal.stream_id, terminal.reason, terminal.partial)


def _sum_of(costs: Sequence[Cost | None]) -> Cost | None:
    """The sum of the costs; None if one is not known, or the currencies differ."""
    return None if None in costs else add_costs(costs)


def _common(names: Any) -> str | None:
    """The one name of all, if they have the same."""
    found = set(names)
    return found.pop() if len(found) == 1 else None
