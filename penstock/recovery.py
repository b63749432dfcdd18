"""Recovery: what becomes of the streams of a process that has ended, and how ended streams are read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.actors.agent.keeping import keep_interrupted
from penstock.actors.call.overlap import Overlap
from penstock.actors.call.record import CallRecord
from penstock.actors.stream.heads import PastLog, StreamHead, read_log
from penstock.actors.stream.keeping import revive
from penstock.actors.stream.log import StreamLog
from penstock.actors.stream.outcome import Outcome
from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.storing import StoreWriter
from penstock.config.logs import get_logger
from penstock.config.options import RequestOptions
from penstock.errors import (
    Fenced,
    PenstockError,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreUnavailable,
    StreamInterrupted,
    StreamPoisoned,
    SystemStopped,
    describe_reason,
)
from penstock.events import StreamReset, TokenEvent, ToolCall, ToolCallCompleted
from penstock.events.codec import CodecError, encode_events
from penstock.ports import Append, ChatCall, Claim, Entry, EntryId, LogFrame, OwnerMark, next_epoch
from penstock.services import Services

__all__ = ["Recovered", "load_stream", "opened_as", "recover", "stored_log", "stored_record"]

_ALL: Final = 1_000_000
_AT_ONCE: Final = 200  # ends in one transaction
_DELIVERIES: Final = 3  # after so many, a request is not begun again: it may be what ends the process


class Recovered(msgspec.Struct, frozen=True):
    """How many streams were found that had not ended: those that failed, those that go on, those that are damaged.

    ``unsettled``: those with which neither could be done now. They are tried again when the claim on them is over.
    """

    failed: int = 0
    restarted: int = 0
    damaged: int = 0
    unsettled: int = 0


def load_stream(services: Services, stream_id: str) -> StreamRecord | None:
    """The record of an ended stream, read from the store; None if the store has none.

    Raises:
        StoreError: the store cannot be read, or the log is damaged.
    """
    found = stored_log(services, stream_id)
    if found is None or not found[0].is_ended:
        return None
    return stored_record(services, stream_id, found[0])


def stored_log(services: Services, stream_id: str) -> tuple[PastLog, Sequence[Entry]] | None:
    """The log of a stream that is in the store, with its entries; None if the store has none.

    Raises:
        StoreError: the store cannot be read, or the log is damaged.
    """
    writer = services.writer
    if writer is None or services.is_stopped or not stream_id.isprintable():  # other logs have other names
        return None
    entries = writer.store.read(stream_id)
    if not entries:
        return None
    try:
        return read_log(stream_id, entries), entries
    except CodecError as error:
        raise StoreDamaged(writer.store.name, str(error)) from error


def stored_record(services: Services, stream_id: str, past: PastLog) -> StreamRecord:
    """The record of a stream that has ended."""
    record = _record(services, stream_id, past)
    revive(record, past)
    return record


def _record(services: Services, stream_id: str, past: PastLog, **how: Any) -> StreamRecord:
    return StreamRecord(services.runtime, stream_id, **opened_as(services, past.head), **how)


def opened_as(services: Services, head: StreamHead) -> dict[str, Any]:
    """The arguments of the `StreamRecord` of a stored stream, besides its runtime and its id."""
    return {
        "options": head.stream_options,
        "metadata": head.metadata_now,
        "on_orphan": head.on_orphan,
        "restart": head.restart,
        "loop_thread": services.loop_thread,
        "home": services,
    }


def recover(
    services: Services, *, limit: int = _ALL, max_deliveries: int = _DELIVERIES, given: Sequence[Claim] | None = None
) -> Recovered:
    """Find the streams that a former process has left, and end them or let them go on, by their ``on_interrupt``.

    On a store that other processes write, a stream is left alone as long as its owner renews the claim on it. A fault
    of one stream is logged with its id, and keeps no other one from being recovered.

    Args:
        services: of the system that takes the streams over.
        limit: the most streams to take over.
        max_deliveries: a request that was given to more nodes is not begun again.
        given: claims that the system has been given already; None claims what no node has.

    Raises:
        StoreError: the store cannot be read or written, whichever stream it is about.
        SystemStopped: the system has ended meanwhile.
    """
    writer = services.writer
    if writer is None or services.is_stopped or services.is_draining:
        return Recovered()
    failed: list[tuple[Claim, PastLog]] = []
    restarted = damaged = unsettled = 0
    leases = writer.leases
    if given is None:
        given = writer.store.claim(writer.node, limit, 0.0 if leases is None else leases.seconds)
    for claim in given:
        stream_id = claim.request.log
        if leases is not None and leases.has(claim.request.id):
            continue  # the store was away for so long that the own claim was due; it is renewed
        try:
            past = read_log(stream_id, writer.store.read(stream_id))
        except (CodecError, StoreDamaged) as error:
            damaged += 1
            get_logger(stream_id=stream_id).error("stored_log_damaged", error=str(error))
            writer.store.release(writer.node, claim.request.id)
            continue
        if past.is_ended:
            writer.store.release(writer.node, claim.request.id)
            continue
        try:
            is_begun = claim.deliveries <= max_deliveries and _begin_again(services, writer, claim, past)
        except (StoreUnavailable, StoreClosed, SystemStopped):
            raise
        except Exception as error:
            unsettled += _note_unsettled(stream_id, error)
            continue
        if is_begun:
            restarted += 1
        else:
            failed.append((claim, past))
    ended = 0
    for first in range(0, len(failed), _AT_ONCE):
        some, left = _end(services, writer, failed[first : first + _AT_ONCE], max_deliveries)
        ended += some
        unsettled += left
    found = Recovered(ended, restarted, damaged, unsettled)
    if found != Recovered():
        get_logger().warning("streams_recovered", **msgspec.structs.asdict(found))
    return found


# --- ending ----------------------------------------------------------------------------------------------------------


def _note_unsettled(stream_id: str, error: Exception) -> int:
    """Log that a stream could neither be ended nor begun again; returns 1."""
    is_ours = not isinstance(error, PenstockError)
    get_logger(stream_id=stream_id).error(
        "stream_not_recovered", reason=describe_reason(error), exc_info=error if is_ours else None
    )
    return 1


def _end(
    services: Services, writer: StoreWriter, left: Sequence[tuple[Claim, PastLog]], max_deliveries: int
) -> tuple[int, int]:
    """End streams by `StreamFailed`, in the store alone: nothing reads them yet.

    Returns how many were ended, and how many could not be.

    One that was cancelled while it had no owner ends in `StreamCancelled`.

    One whose owner has written meanwhile is left alone.
    """
    appends: list[Append] = []
    ending: list[PastLog] = []
    unsettled = 0
    for claim, past in left:
        try:
            appends += _end_of(services, writer, claim, past, max_deliveries)
        except Exception as error:  # what the log says cannot be ended
            unsettled += _note_unsettled(claim.request.log, error)
        else:
            ending.append(past)
    answers = writer.store.append_all(appends)
    ended = 0
    for number, past in enumerate(ending):
        append, found = appends[2 * number + 1], answers[2 * number : 2 * number + 2]
        problem = next((answer for answer in found if isinstance(answer, PenstockError)), None)
        if problem is not None:
            unsettled += _note_unsettled(append.log, problem)
        elif found[1] == append.entry.id:
            ended += 1
            facts = past.head.facts.get("agent")
            if isinstance(facts, Mapping):
                _keep_turn(services, writer, facts, past)
    return ended, unsettled


def _end_of(
    services: Services, writer: StoreWriter, claim: Claim, past: PastLog, max_deliveries: int
) -> tuple[Append, Append]:
    """The owner mark and the terminal event by which a stream ends."""
    clock, node, stream_id = services.runtime.clock, writer.node, claim.request.log
    log = StreamLog(stream_id, past.head.metadata_now, 1 << 40)
    log.replay(past.events)
    outcome = Outcome(tool_calls=_calls(past))
    if claim.is_cancelled:
        log.cancel("cancelled while no process ran it", outcome, 0, clock.time())
    elif past.head.redo is not None and claim.deliveries > max_deliveries:
        log.fail(StreamPoisoned(stream_id, claim.deliveries - 1), outcome, 0, clock.time())
    else:
        log.fail(StreamInterrupted(stream_id), outcome, 0, clock.time())
    terminal = log.terminal
    assert terminal is not None
    mark = OwnerMark(EntryId(next_epoch(past.tail, clock.time(), writer.number), 0), node, "takeover")
    data = encode_events([terminal], past.head.metadata)
    frame = LogFrame(EntryId(mark.id.epoch, terminal.seq), terminal.seq, data, True)
    return Append(stream_id, past.tail, mark), Append(stream_id, mark.id, frame, closes=claim.request.id)


def _keep_turn(services: Services, writer: StoreWriter, facts: Mapping[str, Any], past: PastLog) -> None:
    """Add the turn of an agent that the former process was answering to the agent's history."""
    text: list[str] = []
    for event in past.events:
        if isinstance(event, StreamReset):
            text.clear()
        elif isinstance(event, TokenEvent) and event.kind == "text":
            text.append(event.text)
    try:
        keep_interrupted(writer, facts, "".join(text), services.runtime.clock.time())
    except (StoreError, Fenced, LookupError, TypeError, ValueError) as error:
        get_logger(agent=str(facts.get("name"))).error("turn_not_stored", error=type(error).__name__)


def _calls(past: PastLog) -> tuple[ToolCall, ...]:
    """The calls that were complete."""
    calls: list[ToolCall] = []
    for event in past.events:
        if isinstance(event, StreamReset):
            calls.clear()
        elif isinstance(event, ToolCallCompleted):
            calls.append(event.call)
    return tuple(calls)


# --- going on --------------------------------------------------------------------------------------------------------


def _begin_again(services: Services, writer: StoreWriter, claim: Claim, past: PastLog) -> bool:
    """Go on with the answer, or ask for a new one after a `StreamReset`; returns False if neither can be done."""
    redo = past.head.redo
    if redo is None or claim.is_cancelled:
        return False
    stream_id = claim.request.log
    try:
        feed = _feed(services, redo)
        goes_on = _take_up(feed, past)
    except (
        PenstockError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:  # it is not what was written, or is not allowed
        get_logger(stream_id=stream_id).warning("stream_not_restarted", error=describe_reason(error))
        return False

    def make() -> StreamRecord:
        head = past.head.encode()  # for a store that comes back empty: this mark is the first one then
        stored = writer.open(
            stream_id, past.head.metadata, head, tail=past.tail, request=claim.request, reason="takeover"
        )
        record = _record(services, stream_id, past, journal=stored, feed=feed)
        revive(record, past)
        record.restart_in = "paused" if past.head.is_paused else "idle"
        if not goes_on:
            _reset(record, past)
        return record

    services.opener.open(make, services.call_timeout, services.check_running)
    return True


def _feed(services: Services, redo: Mapping[str, Any]) -> CallRecord:
    options = RequestOptions(**{**redo["options"], "fallback": tuple(redo["options"].get("fallback", ()))})
    responses = bool(redo["responses"])
    found = services.catalogue.find(redo["provider"], redo["model"], redo["base_url"], responses=responses)
    call = ChatCall(
        model=found.model,
        input=redo["input"],
        parameters=redo["parameters"],
        headers=redo["headers"],
        query=redo["query"],
    )
    return services.call(found, call, options, responses=responses)


def _take_up(feed: CallRecord, past: PastLog) -> bool:
    """Let a call go on with the answer that the former process has begun, if the provider keeps that."""
    kept = past.head.facts.get("answer")
    if feed.options.on_interrupt != "resume" or not isinstance(kept, Mapping):
        return False
    overlap = Overlap.of(past.events)
    return overlap is not None and feed.take_up((kept["provider"], kept["model"]), kept["name"], overlap)


def _reset(record: StreamRecord, past: PastLog) -> None:
    """Void what a reader may have had."""
    if not past.events:
        return
    log, stored = record.log, record.stored
    assert stored is not None
    text = sum(len(event.text) for event in past.events if isinstance(event, TokenEvent) and event.kind == "text")
    record.intake.void_text = text
    record.void_answer()
    now = record.runtime.clock.time()
    reset = StreamReset(record.stream_id, log.written + 1, "the process that ran the stream ended", now, log.metadata)
    stored.append(reset)
    log.append(log.new_epoch(), reset)
