"""Changes that no test can notice, as they change nothing that can be observed: they are not drawn.

Each is named by its function, the first line of the changed code, and the change. The reason says why it has no effect.
Where the code can be made simpler so that the change is not possible, that is better than an entry here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.mutation.changes import Change

__all__ = ["EQUIVALENTS", "Equivalent", "are_known", "start_of"]


class Equivalent(NamedTuple):
    """A change without an effect."""

    function: str
    line: str
    """The start of the first line of the changed code, without indentation."""
    old: str
    new: str


def are_known(module: str, source: str, found: list[Change]) -> Iterator[tuple[Change, bool]]:
    """Yield each of a module's changes, and whether it is known to have no effect."""
    known = {change for changes in EQUIVALENTS.get(module, {}).values() for change in changes}
    lines = source.splitlines()
    for change in found:
        line = start_of(lines, change)
        yield change, Equivalent(change.function, line, change.old, change.new) in known


def start_of(lines: list[str], change: Change) -> str:
    """The start of the line of a change."""
    return lines[change.line - 1].strip()[:60]


EQUIVALENTS: Final[dict[str, dict[str, list[Equivalent]]]] = {
    "actors/call/attempt.py": {
        "it is set before it is read": [
            Equivalent("Attempt.__init__", "self._pushing_since = 0.0", "self._pushing_since = 0.0", "pass"),
            Equivalent("Attempt.__init__", "self._pushing_since = 0.0", "0.0", "1.0"),
            Equivalent(
                "Attempt.__init__",
                "self._held_at = _NOT_HELD  # how many items of this read tha",
                "self._held_at = _NOT_HELD",
                "pass",
            ),
            Equivalent(
                "Attempt.__init__",
                "self._seen = 0  # how many items of this read `_look_at` has",
                "self._seen = 0",
                "pass",
            ),
            Equivalent("Attempt.__init__", "self._seen = 0  # how many items of this read `_look_at` has", "0", "1"),
            Equivalent(
                "Attempt.__init__", "self._written = 0  # characters of text among them", "self._written = 0", "pass"
            ),
            Equivalent("Attempt.__init__", "self._written = 0  # characters of text among them", "0", "1"),
            Equivalent(
                "Attempt.__init__",
                "self._reasoned = 0  # the number of items of this read up to",
                "self._reasoned = 0",
                "pass",
            ),
            Equivalent("Attempt.__init__", "self._reasoned = 0  # the number of items of this read up to", "0", "1"),
        ],
        "a mark, which is only compared with numbers of items": [
            Equivalent("<module>", "_NOT_HELD: Final = -1", "1", "2"),
        ],
        "how much is handled at once changes only the time that it takes": [
            Equivalent("<module>", "_AT_ONCE: Final = 256", "256", "257"),
            Equivalent("Attempt._push_rest", "if done * 2 >= len(rest):", "done * 2 >= len(rest)", "True"),
            Equivalent(
                "Attempt._push_rest", "if done * 2 >= len(rest):", "done * 2 >= len(rest)", "done * 2 > len(rest)"
            ),
            Equivalent("Attempt._push_rest", "if done * 2 >= len(rest):", "2", "3"),
        ],
        "the general way has the same result, and takes longer": [
            Equivalent("Attempt.offer", "if self._rest:", "self._rest", "True"),
            Equivalent("Attempt.offer", "elif tokenizer is not None:", "tokenizer is not None", "True"),
            Equivalent(
                "Attempt.offer",
                "return self._send_finish() if self._pending_finish is not No",
                "self._pending_finish is not None",
                "True",
            ),
            Equivalent(
                "Attempt._read_text",
                "if not self.has_progressed or self.is_reasoning or self.has_",
                "not self.has_progressed or self.is_reasoning or self.has_held_finish or (self._overlap is not None)",
                "True",
            ),
            Equivalent(
                "Attempt._read_text", "if delta.__class__ is not TextDelta:", "delta.__class__ is not TextDelta", "True"
            ),
            Equivalent("Attempt._read_text", 'items.append((text, "text"))', "items.append((text, 'text'))", "pass"),
            Equivalent(
                "Attempt._read_text",
                "if not items or builder.size + size + builder.tally.total > ",
                "not items or builder.size + size + builder.tally.total > self._call.options.max_answer_bytes",
                "True",
            ),
            Equivalent(
                "Attempt._read_text",
                "if not items or builder.size + size + builder.tally.total > ",
                "builder.size + size + builder.tally.total > self._call.options.max_answer_bytes",
                "builder.size + size + builder.tally.total >= self._call.options.max_answer_bytes",
            ),
            Equivalent(
                "Attempt._read",
                "if (plain := self._read_text(deltas)) is not None:",
                "(plain := self._read_text(deltas)) is not None",
                "False",
            ),
            Equivalent("Attempt._read", "if self._has_events:", "self._has_events", "True"),
            Equivalent("Attempt._push", "if self._is_in_order:", "self._is_in_order", "True"),
            Equivalent(
                "Attempt._push_rest",
                "self._is_in_order = self.keeps_text",
                "self._is_in_order = self.keeps_text",
                "pass",
            ),
        ],
        "only the places of citations and blocks are looked at": [
            Equivalent(
                "Attempt._note_about",
                "written = self._look_at(items) if delta.__class__ in _PLACED",
                "delta.__class__ in _PLACED",
                "True",
            ),
            Equivalent("Attempt._note_about", "written = self._look_at(items) if delta.__class__ in _PLACED", "0", "1"),
        ],
        "an item of the answer is progress in any case": [
            Equivalent("Attempt._note", "return True", "return True", "return None"),
            Equivalent("Attempt._note", "return True", "True", "False"),
        ],
        "a private function, of which only the truth is looked at": [
            Equivalent("Attempt._note", "return False", "return False", "return None"),
            Equivalent("Attempt._note_about", "return False", "return False", "return None"),
            Equivalent("Attempt._push_in_order", "return False", "return False", "return None"),
        ],
    },
    "actors/call/breaker.py": {
        "the first failure sets it before it is read": [
            Equivalent(
                "Breaker.__init__",
                "self._first_failure = 0.0  # of the consecutive ones",
                "self._first_failure = 0.0",
                "pass",
            ),
            Equivalent("Breaker.__init__", "self._first_failure = 0.0  # of the consecutive ones", "0.0", "1.0"),
        ],
        "epochs are only compared with one another": [
            Equivalent("Breaker.__init__", "self.epoch = 0", "0", "1"),
            Equivalent("Breaker.let_in", "self.epoch += 1", "1", "2"),
            Equivalent("Breaker.succeeded", "self.epoch += 1", "1", "2"),
            Equivalent("Breaker.failed", "self.epoch += 1", "1", "2"),
        ],
    },
    "actors/call/gate.py": {
        "the gate sets it before it reads it": [
            Equivalent(
                "Ticket.__init__", "self.asked_at = 0.0  # time of the last `enter`", "self.asked_at = 0.0", "pass"
            ),
            Equivalent("Ticket.__init__", "self.asked_at = 0.0  # time of the last `enter`", "0.0", "1.0"),
            Equivalent("Ticket.__init__", "self.epoch = 0", "self.epoch = 0", "pass"),
            Equivalent("Ticket.__init__", "self.epoch = 0", "0", "1"),
        ],
    },
    "actors/call/integration.py": {
        "the answer is there, so nothing is waited for": [
            Equivalent("Integration._reset_answered", "reply.get(timeout=0)", "0", "1"),
        ],
        "the bound itself is not met: it only makes up for rounding": [
            Equivalent("Integration.waiting", "if left > 1e-6:", "left > 1e-06", "left >= 1e-06"),
            Equivalent(
                "Integration.streaming",
                "if left > 1e-6:  # at most `idle_timeout`: there is no messa",
                "left > 1e-06",
                "left >= 1e-06",
            ),
            Equivalent(
                "Integration._in_any_state",
                "if left > 1e-6 and attempt.error is None:",
                "left > 1e-06",
                "left >= 1e-06",
            ),
        ],
        "it is set before it is read": [
            Equivalent("Integration.init", "self._waiting_since = 0.0", "self._waiting_since = 0.0", "pass"),
            Equivalent("Integration.init", "self._waiting_since = 0.0", "0.0", "1.0"),
        ],
    },
    "actors/call/record.py": {
        "to count again gives the same": [
            Equivalent(
                "CallRecord._count_input",
                "if self._counted is None or self._counted[0] is not call:",
                "0",
                "1",
            ),
            Equivalent(
                "CallRecord._count_input",
                "if self._counted is None or self._counted[0] is not call:",
                "self._counted is None or self._counted[0] is not call",
                "True",
            ),
        ],
    },
    "actors/call/toolcalls.py": {
        "whether brackets are balanced does not depend on their sign": [
            Equivalent(
                "_Call.is_closed",
                'self._depth += 1 if sign in "{[" else -1',
                "sign in '{['",
                "sign not in '{['",
            ),
            Equivalent(
                "_Call.is_closed",
                'self._depth += 1 if sign in "{[" else -1',
                "self._depth += 1 if sign in '{[' else -1",
                "self._depth -= 1 if sign in '{[' else -1",
            ),
        ],
        "in no text there is nothing to skip": [
            Equivalent(
                "_Call.is_closed",
                "start = int(self._escaped and bool(text))",
                "self._escaped and bool(text)",
                "self._escaped or bool(text)",
            ),
            Equivalent(
                "_Call.is_closed",
                "start = int(self._escaped and bool(text))",
                "self._escaped and bool(text)",
                "self._escaped",
            ),
        ],
        "an index that is None is not looked up": [
            Equivalent("ToolCallAccumulator.feed", "if delta.index is not None:", "delta.index is not None", "True"),
        ],
        "a shortcut for when nothing is to be reported": [
            Equivalent(
                "ToolCallAccumulator.feed",
                "return self._report(call, is_new=is_new) if self._unreported",
                "self._unreported",
                "True",
            ),
            Equivalent("ToolCallAccumulator._report", "if events:", "events", "True"),
        ],
        "a private function, of which only the truth is looked at": [
            Equivalent("_continues", "return False", "return False", "return None"),
            Equivalent("_is_another", "return False", "return False", "return None"),
        ],
        "what does not end with a bracket is no object, which is found out later": [
            Equivalent(
                "_is_another",
                'if not delta.arguments.lstrip().startswith("{") or not "".jo',
                "not delta.arguments.lstrip().startswith('{') or not ''.join(call.parts[-1:]).rstrip().endswith('}')",
                "not delta.arguments.lstrip().startswith('{')",
            ),
        ],
        "arguments that are not closed are no JSON, which is found out later": [
            Equivalent(
                "_is_another",
                "if call.is_no_object or not call.is_closed():",
                "call.is_no_object or not call.is_closed()",
                "call.is_no_object and (not call.is_closed())",
            ),
        ],
        "the last two pieces end as the last one does": [
            Equivalent("_is_another", 'if not delta.arguments.lstrip().startswith("{") or not "".jo', "1", "2"),
        ],
    },
    "actors/runtime/dispatcher.py": {
        "outside of Windows it is True; on Windows the module could not be imported": [
            Equivalent("<module>", 'if hasattr(os, "register_at_fork"):', "hasattr(os, 'register_at_fork')", "True"),
        ],
        "every worker that was added has a thread": [
            Equivalent(
                "ThreadedDispatcher.close",
                "if thread is not None and thread is not threading.current_th",
                "thread is not None and thread is not threading.current_thread()",
                "thread is not threading.current_thread()",
            ),
        ],
        "a look at the number of threads that changes nothing if there are not too many": [
            Equivalent(
                "ThreadedDispatcher._take_turns",
                "if (worker.lent or self._running > self._target) and not sel",
                "(worker.lent or self._running > self._target) and (not self._stay(worker))",
                "not self._stay(worker)",
            ),
            Equivalent(
                "ThreadedDispatcher._take_turns",
                "if (worker.lent or self._running > self._target) and not sel",
                "self._running > self._target",
                "self._running >= self._target",
            ),
        ],
        "a private method, of which only the truth is looked at": [
            Equivalent("ThreadedDispatcher._add_thread", "return False", "return False", "return None"),
        ],
        "a wake that nothing waits for is cleared before the monitor sleeps": [
            Equivalent("ThreadedDispatcher.__init__", "self._monitor_sleeps = False", "False", "True"),
        ],
        "it is set before it is read": [
            Equivalent("ThreadedDispatcher.__init__", "self._leaked = 0", "self._leaked = 0", "pass"),
            Equivalent("ThreadedDispatcher.__init__", "self._leaked = 0", "0", "1"),
        ],
        "the numbers of turns are only compared with one another": [
            Equivalent("_Worker.__init__", "self.slices = 0", "0", "1"),
            Equivalent("_Worker.__init__", "self.warned_at = -1  # slice for which the hold warning was ", "1", "2"),
        ],
        "a protocol's defaults are never used": [
            Equivalent("Latch.acquire", "def acquire(self, blocking: bool = True, timeout: float = -1", "1", "2"),
            Equivalent(
                "Latch.acquire", "def acquire(self, blocking: bool = True, timeout: float = -1", "True", "False"
            ),
        ],
        "how soon the monitor sleeps is a matter of cost, and it looks again before": [
            Equivalent("ThreadedDispatcher._watch", "quiet = 0.0", "0.0", "1.0"),
            Equivalent(
                "ThreadedDispatcher._watch", "quiet = quiet + tick if is_calm and not busy else 0.0", "0.0", "1.0"
            ),
            Equivalent(
                "ThreadedDispatcher._watch",
                "quiet = quiet + tick if is_calm and not busy else 0.0",
                "is_calm and (not busy)",
                "not busy",
            ),
            Equivalent(
                "ThreadedDispatcher._watch",
                "quiet = quiet + tick if is_calm and not busy else 0.0",
                "is_calm and (not busy)",
                "is_calm or not busy",
            ),
            Equivalent("ThreadedDispatcher._watch", "if quiet > _QUIET:", "quiet > _QUIET", "True"),
        ],
        "no slice has a negative number": [
            Equivalent("ThreadedDispatcher._watch", "slices, since = seen.get(worker, (-1, now))", "1", "2"),
        ],
        "two times are never exactly that far apart": [
            Equivalent(
                "ThreadedDispatcher._watch",
                "if now - since > self._hold_warning and worker.warned_at != ",
                "now - since > self._hold_warning",
                "now - since >= self._hold_warning",
            ),
        ],
        "how long a spare stays is a matter of cost": [
            Equivalent("<module>", "_PARKED_FOR: Final = 5.0  # seconds after which a spare thre", "5.0", "6.0"),
        ],
        "a worker that runs has its thread": [
            Equivalent(
                "_name_of",
                "return worker.thread.name if worker.thread is not None else ",
                "worker.thread is not None",
                "True",
            ),
        ],
    },
    "actors/runtime/process.py": {
        "outside of Windows it is True; on Windows the module could not be imported": [
            Equivalent("<module>", 'if hasattr(os, "register_at_fork"):', "hasattr(os, 'register_at_fork')", "True"),
        ],
        "the flag is a shortcut for what is looked at next": [
            Equivalent("Process.run_step", "if self._attention:", "self._attention", "True"),
        ],
        "a shortcut: a process that is dead has it set": [
            Equivalent(
                "Process._answer",
                "if self._attention and not self.is_alive:",
                "self._attention and (not self.is_alive)",
                "not self.is_alive",
            ),
        ],
        "only for the type checker": [
            Equivalent(
                "Process._answer_pending_calls",
                "if call is not None and call.reply_to is not None:",
                "call is not None and call.reply_to is not None",
                "call is not None",
            ),
            Equivalent(
                "Process._answer_pending_calls",
                "while backlog and dead_owner is not None:",
                "backlog and dead_owner is not None",
                "backlog",
            ),
        ],
        "to unregister what is not registered has no effect": [
            Equivalent("Process.dispose", "if self.in_pykka_registry:", "self.in_pykka_registry", "True"),
        ],
        "whether it is an exception is looked at again": [
            Equivalent(
                "Process._end", "if isinstance(reason, BaseException):", "isinstance(reason, BaseException)", "True"
            ),
        ],
        "the next turn marks it dead, for the same reason": [
            Equivalent(
                "Process._end",
                "self.runtime.mark_dead(self._actor_ref, self._signals[0].rea",
                "self.runtime.mark_dead(self._actor_ref, self._signals[0].reason)",
                "pass",
            ),
        ],
        "it is the last statement": [
            Equivalent("Process._handle", "return", "return", "pass"),
        ],
        "a turn in which there is nothing to do": [
            Equivalent(
                "Process._look_back",
                "elif self._backlog and not self._suspended:",
                "self._backlog and (not self._suspended)",
                "not self._suspended",
            ),
        ],
        "a private method, of which only the truth is looked at": [
            Equivalent("Process._attend", "return False", "return False", "return None"),
        ],
        "a look for what is unusual, which finds nothing": [
            Equivalent("Process", "_attention: bool = False  # something unusual: the process i", "False", "True"),
            Equivalent("Process.run", "if self._attention:", "self._attention", "True"),
        ],
    },
    "actors/stream/bucket.py": {
        "no level is exactly a grain from a whole number": [
            Equivalent("TokenBucket.delay", "if missing <= _GRAIN:", "missing <= _GRAIN", "missing < _GRAIN"),
        ],
        "at the same time nothing comes back": [
            Equivalent("TokenBucket._refill", "if now > self._updated:", "now > self._updated", "now >= self._updated"),
        ],
    },
    "actors/stream/buffer.py": {
        "the first item is discarded, which is quicker than to delete it": [
            Equivalent("TokenBuffer._drop_oldest", "if place == head:", "place == head", "False"),
        ],
        "read only where the first item is an event": [
            Equivalent(
                "TokenBuffer._discard", "self._events_until = max(0, self._events_until - self._head)", "0", "1"
            ),
            Equivalent(
                "TokenBuffer.__init__", "self._events_until = 0  # there are no tokens among the item", "0", "1"
            ),
        ],
        "set when a batch is taken, and read only then": [
            Equivalent("TokenBuffer.__init__", "self._taken_size = 0", "self._taken_size = 0", "pass"),
            Equivalent(
                "TokenBuffer.__init__",
                "self._taken_dropped = 0  # the dropped tokens that this even",
                "self._taken_dropped = 0",
                "pass",
            ),
            Equivalent("TokenBuffer.__init__", "self._taken_size = 0", "0", "1"),
            Equivalent(
                "TokenBuffer.__init__", "self._taken_dropped = 0  # the dropped tokens that this even", "0", "1"
            ),
        ],
        "without a taken batch there is nothing to commit or to restore": [
            Equivalent(
                "TokenBuffer.__init__", "self._taken_for = 0  # the number of the event that the take", "0", "1"
            ),
        ],
        "that there are only bare tokens is a shortcut for what is also found one by one": [
            Equivalent(
                "TokenBuffer._drop_oldest",
                "self._other_kinds -= item.__class__ is not str",
                "self._other_kinds -= item.__class__ is not str",
                "self._other_kinds += item.__class__ is not str",
            ),
            Equivalent(
                "TokenBuffer._drop_oldest",
                "self._other_kinds -= item.__class__ is not str",
                "self._other_kinds -= item.__class__ is not str",
                "pass",
            ),
            Equivalent(
                "TokenBuffer.__init__", "self._other_kinds = 0  # how many of the items are not text ", "0", "1"
            ),
            Equivalent("TokenBuffer.offer_kind", 'if kind != "text":', "kind != 'text'", "True"),
            Equivalent("TokenBuffer.offer_kind", "self._other_kinds += 1", "1", "2"),
            Equivalent("TokenBuffer.start_part", "self._other_kinds += 1", "1", "2"),
            Equivalent("TokenBuffer.put_event", "self._other_kinds += 1", "1", "2"),
            Equivalent("TokenBuffer.restore", "self._other_kinds += sum(1 for item in back if item.__class_", "1", "2"),
            Equivalent(
                "TokenBuffer.restore",
                "self._other_kinds += sum(1 for item in back if item.__class_",
                "item.__class__ is not str",
                "True",
            ),
            Equivalent("TokenBuffer.before_border", "if not self._other_kinds:", "not self._other_kinds", "False"),
            Equivalent(
                "TokenBuffer.discard_origin",
                "self._other_kinds = sum(1 for item in kept if item.__class__",
                "self._other_kinds = sum((1 for item in kept if item.__class__ is not str))",
                "pass",
            ),
            Equivalent(
                "TokenBuffer.discard_origin", "self._other_kinds = sum(1 for item in kept if item.__class__", "1", "2"
            ),
            Equivalent(
                "TokenBuffer.discard_origin",
                "self._other_kinds = sum(1 for item in kept if item.__class__",
                "item.__class__ is not str",
                "True",
            ),
            Equivalent("TokenBuffer.take", "if self._other_kinds:", "self._other_kinds", "True"),
            Equivalent(
                "TokenBuffer.take",
                "if self.events and _is_event(items[head]):",
                "self.events and _is_event(items[head])",
                "_is_event(items[head])",
            ),
            Equivalent("TokenBuffer.take", "if not self._other_kinds:", "not self._other_kinds", "False"),
            Equivalent("TokenBuffer._discard", "if self._other_kinds:", "self._other_kinds", "True"),
            Equivalent("TokenBuffer._discard", "if self._other_kinds:", "self._other_kinds", "False"),
            Equivalent(
                "TokenBuffer._discard",
                "self._other_kinds -= sum(1 for item in gone if item.__class_",
                "self._other_kinds -= sum((1 for item in gone if item.__class__ is not str))",
                "pass",
            ),
            Equivalent(
                "TokenBuffer._discard",
                "self._other_kinds -= sum(1 for item in gone if item.__class_",
                "self._other_kinds -= sum((1 for item in gone if item.__class__ is not str))",
                "self._other_kinds += sum((1 for item in gone if item.__class__ is not str))",
            ),
            Equivalent(
                "TokenBuffer._discard",
                "self._other_kinds -= sum(1 for item in gone if item.__class_",
                "item.__class__ is not str",
                "False",
            ),
        ],
        "the mark is set to what it is": [
            Equivalent(
                "TokenBuffer.pass_by",
                "if count > self.high_water_mark:",
                "count > self.high_water_mark",
                "count >= self.high_water_mark",
            ),
            Equivalent(
                "TokenBuffer.offer",
                "if size > self.high_water_mark:",
                "size > self.high_water_mark",
                "size >= self.high_water_mark",
            ),
            Equivalent(
                "TokenBuffer.put_event",
                "if size > self.high_water_mark:",
                "size > self.high_water_mark",
                "size >= self.high_water_mark",
            ),
        ],
        "a private method, of which only the truth is looked at": [
            Equivalent("TokenBuffer._join", "return False", "return False", "return None"),
            Equivalent("TokenBuffer._drop_oldest", "return False", "return False", "return None"),
        ],
        "there is a token, and so a kind": [
            Equivalent(
                "TokenBuffer._take_kind",
                'return Batch(kind or "text", tuple(tokens), *self._present)',
                "kind or 'text'",
                "kind and 'text'",
            ),
            Equivalent(
                "TokenBuffer._take_kind",
                'return Batch(kind or "text", tuple(tokens), *self._present)',
                "kind or 'text'",
                "kind",
            ),
        ],
        "when the items that are gone are dropped is a matter of memory": [
            Equivalent(
                "TokenBuffer._discard",
                "elif self._head >= _COMPACT_AT and self._head * 2 >= len(sel",
                "self._head * 2",
                "self._head // 2",
            ),
            Equivalent(
                "TokenBuffer._discard", "if self._head == len(self._items):", "self._head == len(self._items)", "False"
            ),
            Equivalent(
                "TokenBuffer._discard",
                "elif self._head >= _COMPACT_AT and self._head * 2 >= len(sel",
                "self._head >= _COMPACT_AT and self._head * 2 >= len(self._items)",
                "True",
            ),
            Equivalent(
                "TokenBuffer._discard",
                "elif self._head >= _COMPACT_AT and self._head * 2 >= len(sel",
                "self._head >= _COMPACT_AT and self._head * 2 >= len(self._items)",
                "self._head >= _COMPACT_AT or self._head * 2 >= len(self._items)",
            ),
            Equivalent(
                "TokenBuffer._discard",
                "elif self._head >= _COMPACT_AT and self._head * 2 >= len(sel",
                "self._head >= _COMPACT_AT and self._head * 2 >= len(self._items)",
                "self._head * 2 >= len(self._items)",
            ),
            Equivalent(
                "TokenBuffer._discard",
                "elif self._head >= _COMPACT_AT and self._head * 2 >= len(sel",
                "self._head >= _COMPACT_AT and self._head * 2 >= len(self._items)",
                "self._head >= _COMPACT_AT",
            ),
            Equivalent(
                "TokenBuffer._discard",
                "elif self._head >= _COMPACT_AT and self._head * 2 >= len(sel",
                "self._head >= _COMPACT_AT",
                "self._head > _COMPACT_AT",
            ),
            Equivalent(
                "TokenBuffer._discard",
                "elif self._head >= _COMPACT_AT and self._head * 2 >= len(sel",
                "self._head * 2 >= len(self._items)",
                "self._head * 2 > len(self._items)",
            ),
            Equivalent(
                "TokenBuffer._discard", "elif self._head >= _COMPACT_AT and self._head * 2 >= len(sel", "2", "3"
            ),
            Equivalent("<module>", "_COMPACT_AT: Final = 512", "512", "513"),
        ],
    },
    "actors/stream/delivery.py": {
        "set at the beginning of a turn, before it is read": [
            Equivalent(
                "Delivery.__init__", "self._has_called = False  # in such a turn, the actor has be", "False", "True"
            ),
            Equivalent(
                "Delivery.__init__",
                "self._has_called = False  # in such a turn, the actor has be",
                "self._has_called = False",
                "pass",
            ),
        ],
        "the record appends without a journal too": [
            Equivalent("Delivery.emit", "if record.journal is None:", "record.journal is None", "False"),
        ],
        "ASCII has one byte for each character": [
            Equivalent(
                "Delivery.emit",
                "size = len(text) if text.isascii() else len(text.encode(erro",
                "text.isascii()",
                "False",
            ),
        ],
    },
    "actors/stream/folded.py": {
        "what is behind the end is cut off again": [
            Equivalent(
                "TextPile.read", "last = len(self._ends) if end is None else bisect_left(self.", "end is None", "True"
            ),
            Equivalent("TextPile.read", "last = len(self._ends) if end is None else bisect_left(self.", "1", "2"),
        ],
        "when parts are joined is a matter of memory": [
            Equivalent(
                "TextPile.add",
                "if len(self._parts) >= _JOIN_AT and len(self._parts[-_JOIN_A",
                "len(self._parts) >= _JOIN_AT",
                "len(self._parts) > _JOIN_AT",
            ),
            Equivalent("TextPile.add", "if len(self._parts) >= _JOIN_AT and len(self._parts[-_JOIN_A", "4096", "4097"),
            Equivalent(
                "TextPile.add",
                "if len(self._parts) >= _JOIN_AT and len(self._parts[-_JOIN_A",
                "len(self._parts[-_JOIN_AT]) < 4096",
                "len(self._parts[-_JOIN_AT]) <= 4096",
            ),
            Equivalent("<module>", "_JOIN_AT: Final = 256  # number of parts that are joined int", "256", "257"),
        ],
        "the first folded event sets it before it is read": [
            Equivalent("Window.__init__", "self.timestamp = 0.0", "0.0", "1.0"),
        ],
        "a terminal event is never folded": [
            Equivalent(
                "Window._put_away",
                "elif isinstance(event, SideEvent) and not is_passing(event):",
                "isinstance(event, SideEvent) and (not is_passing(event))",
                "not is_passing(event)",
            ),
        ],
    },
    "actors/stream/subscribers/pull.py": {
        "a shortcut: nothing is removed from an empty list": [
            Equivalent("PullSubscription.wait_async", "if waiting:", "waiting", "True"),
        ],
        "a hub that nothing holds is not changed": [
            Equivalent(
                "PullSubscription.take",
                "elif self._hub.held:  # also without an event: it may have s",
                "self._hub.held",
                "True",
            ),
        ],
    },
    "adapters/http/answer.py": {
        "its callers look at whether there is a host": [
            Equivalent("host_of", 'return ""', "return ''", "return None"),
        ],
        "a whole secret has been replaced before": [
            Equivalent(
                "Redactor._redact_message",
                "for length in range(len(secret) - 1, _SHORTEST_PREFIX - 1, -",
                "len(secret) - 1",
                "len(secret) + 1",
            ),
        ],
    },
    "adapters/http/exchange.py": {
        "one byte more in a read is a matter of cost": [
            Equivalent("<module>", "_READ_BYTES = 65_536", "65536", "65537"),
        ],
        "a cancelled request ends as one, whatever it raises": [
            Equivalent("RequestExchange._ask", "raise", "raise", "pass"),
        ],
        "to read 0 bytes gives none": [
            Equivalent(
                "_read_error_body",
                "while len(body) < ERROR_BODY_BYTES:",
                "len(body) < ERROR_BODY_BYTES",
                "len(body) <= ERROR_BODY_BYTES",
            ),
        ],
        "without a socket the time-out raises, which is let go": [
            Equivalent(
                "_await_last_chunk",
                "if sock is None or raw.closed:  # the connection is not kept",
                "sock is None or raw.closed",
                "raw.closed",
            ),
        ],
    },
    "supervisors/dynamic.py": {
        "before the first restart there are no failures to forget": [
            Equivalent(
                "DynamicSupervisor.start_here",
                "child.started_at = self.runtime.clock.monotonic()",
                "child.started_at = self.runtime.clock.monotonic()",
                "pass",
            ),
        ],
        "only for the type checker: no child is known by None": [
            Equivalent(
                "DynamicSupervisor.on_receive",
                "child = self._by_ref.get(sender) if sender is not None else ",
                "sender is not None",
                "True",
            ),
        ],
        "no process has no name": [
            Equivalent(
                "DynamicSupervisor._kill_interrupted",
                "ref = child.ref or (None if child.name is None else self.run",
                "child.name is None",
                "False",
            ),
            Equivalent(
                "DynamicSupervisor._tell_observer",
                "observer = self.runtime.whereis(self._observer) if self._obs",
                "self._observer",
                "True",
            ),
        ],
    },
    "supervisors/system/watching.py": {
        "when ended subscriptions are removed is a matter of cost": [
            Equivalent(
                "Watching.watch",
                "if len(others) >= 16 and len(others) & (len(others) - 1) == ",
                "len(others) >= 16",
                "len(others) > 16",
            ),
            Equivalent(
                "Watching.watch",
                "if len(others) >= 16 and len(others) & (len(others) - 1) == ",
                "len(others) >= 16 and len(others) & len(others) - 1 == 0",
                "True",
            ),
            Equivalent(
                "Watching.watch",
                "if len(others) >= 16 and len(others) & (len(others) - 1) == ",
                "len(others) & len(others) - 1 == 0",
                "len(others) & len(others) - 1 != 0",
            ),
            Equivalent(
                "Watching.watch",
                "if len(others) >= 16 and len(others) & (len(others) - 1) == ",
                "len(others) >= 16 and len(others) & len(others) - 1 == 0",
                "len(others) >= 16",
            ),
            Equivalent("Watching.watch", "if len(others) >= 16 and len(others) & (len(others) - 1) == ", "1", "2"),
            Equivalent(
                "Watching.watch",
                "if len(others) >= 16 and len(others) & (len(others) - 1) == ",
                "len(others) >= 16 and len(others) & len(others) - 1 == 0",
                "len(others) & len(others) - 1 == 0",
            ),
            Equivalent("Watching.watch", "if len(others) >= 16 and len(others) & (len(others) - 1) == ", "16", "17"),
            Equivalent(
                "Watching.watch",
                "if len(others) >= 16 and len(others) & (len(others) - 1) == ",
                "len(others) >= 16 and len(others) & len(others) - 1 == 0",
                "len(others) >= 16 or len(others) & len(others) - 1 == 0",
            ),
            Equivalent(
                "Watching.watch",
                "if len(others) >= 16 and len(others) & (len(others) - 1) == ",
                "len(others) - 1",
                "len(others) + 1",
            ),
        ],
        "when stale times are removed is a matter of cost": [
            Equivalent(
                "Watching.orphaned",
                "if len(self._linger_ends) > 2 * len(self._lingering) + 64:  ",
                "2 * len(self._lingering)",
                "2 // len(self._lingering)",
            ),
            Equivalent(
                "Watching.orphaned",
                "if len(self._linger_ends) > 2 * len(self._lingering) + 64:  ",
                "2 * len(self._lingering) + 64",
                "2 * len(self._lingering) - 64",
            ),
            Equivalent(
                "Watching.orphaned",
                "if len(self._linger_ends) > 2 * len(self._lingering) + 64:  ",
                "len(self._linger_ends) > 2 * len(self._lingering) + 64",
                "True",
            ),
            Equivalent(
                "Watching.orphaned",
                "if len(self._linger_ends) > 2 * len(self._lingering) + 64:  ",
                "len(self._linger_ends) > 2 * len(self._lingering) + 64",
                "len(self._linger_ends) >= 2 * len(self._lingering) + 64",
            ),
        ],
        "the answer is there, so nothing is waited for": [
            Equivalent("Watching.successor_answered", "found = answered.reply.get(timeout=0)", "0", "1"),
        ],
        "without a record there is no time": [
            Equivalent(
                "Watching.lingered",
                "if record is not None and until == ended:",
                "record is not None and until == ended",
                "until == ended",
            ),
        ],
    },
    "actors/stream/cursor.py": {
        "an equal event": [
            Equivalent("Cursor._give_folded", "if self._unreported:", "self._unreported", "True"),
        ],
        "a slow cursor that blocks does nothing else": [
            Equivalent(
                "Cursor.take",
                'late = slow != "block" and self.is_slow',
                "slow != 'block' and self.is_slow",
                "self.is_slow",
            ),
        ],
    },
    "actors/stream/log.py": {
        "an equal mapping, of which each stream would have its own": [
            Equivalent("_by_origin", 'return FrozenDict({origin: "".join(texts) for origin, texts ', "pieces", "True"),
        ],
        "without a reset of one origin the whole text is found more quickly": [
            Equivalent(
                "StreamLog._text",
                "if any(event.__class__ is StreamReset and event.origin is no",
                "event.__class__ is StreamReset and event.origin is not None",
                "event.origin is not None",
            ),
            Equivalent(
                "StreamLog._text",
                "if any(event.__class__ is StreamReset and event.origin is no",
                "event.__class__ is StreamReset and event.origin is not None",
                "event.__class__ is StreamReset",
            ),
            Equivalent(
                "StreamLog._text",
                "if any(event.__class__ is StreamReset and event.origin is no",
                "any((event.__class__ is StreamReset and event.origin is not None for event in window.events))",
                "True",
            ),
            Equivalent(
                "StreamLog._text",
                "if any(event.__class__ is StreamReset and event.origin is no",
                "event.__class__ is StreamReset and event.origin is not None",
                "event.__class__ is StreamReset or event.origin is not None",
            ),
        ],
        "epochs are only compared with one another": [
            Equivalent("StreamLog.__init__", "self._epoch = 0", "0", "1"),
            Equivalent("StreamLog.new_epoch", "self._epoch += 1", "1", "2"),
            Equivalent("StreamLog.new_epoch", "self._epoch += 1", "self._epoch += 1", "self._epoch -= 1"),
        ],
        "one byte is less than the estimate of an event's size is off by": [
            Equivalent("<module>", "_UNREAD: Final = 16 * 1_048_576", "1048576", "1048577"),
        ],
        "how soon a fold that was stopped is tried again is a matter of cost": [
            Equivalent("StreamLog._fold", "self._fold_at = min(most, max(retain, self._bytes + max(reta", "4", "5"),
        ],
        "to fold nothing gives an equal window": [
            Equivalent("StreamLog._fold", "if count:", "count", "True"),
        ],
    },
    "actors/runtime/statem.py": {
        "when answered calls are removed is a matter of cost": [
            Equivalent("StateMachine", "_owed_bound: int = 16  # length of `_owed` at which answered", "16", "17"),
            Equivalent(
                "StateMachine._owe",
                "elif len(owed) >= self._owed_bound:  # drop the answered cal",
                "len(owed) >= self._owed_bound",
                "len(owed) > self._owed_bound",
            ),
            Equivalent(
                "StateMachine._owe",
                "elif len(owed) >= self._owed_bound:  # drop the answered cal",
                "len(owed) >= self._owed_bound",
                "True",
            ),
            Equivalent("StateMachine._owe", "self._owed_bound = max(16, 2 * len(owed))", "2", "3"),
            Equivalent("StateMachine._owe", "self._owed_bound = max(16, 2 * len(owed))", "16", "17"),
            Equivalent(
                "StateMachine._owe",
                "self._owed_bound = max(16, 2 * len(owed))",
                "self._owed_bound = max(16, 2 * len(owed))",
                "pass",
            ),
            Equivalent("StateMachine._owe", "if reply.is_done:", "reply.is_done", "False"),
            Equivalent("StateMachine._owe", "return", "return", "pass"),
        ],
        "a first transition without actions does nothing": [
            Equivalent("StateMachine._begin", "if actions or self.state_enter:", "actions or self.state_enter", "True"),
        ],
        "it is only called where it is overridden": [
            Equivalent("StateMachine.handle_event", "raise NotImplementedError", "raise NotImplementedError", "pass"),
        ],
        "there is nothing to drain": [
            Equivalent(
                "StateMachine._handle",
                "if self._inserted or (self._timeouts is not None and self._t",
                "self._inserted or (self._timeouts is not None and self._timeouts.zeros)",
                "True",
            ),
            Equivalent(
                "StateMachine._handle",
                "if self._inserted or (self._timeouts is not None and self._t",
                "self._timeouts is not None and self._timeouts.zeros",
                "self._timeouts is not None",
            ),
        ],
        "the flag is a shortcut for what is looked at next": [
            Equivalent(
                "StateMachine._dispatch",
                "if self._attention and not self._attend():",
                "self._attention and (not self._attend())",
                "not self._attend()",
            ),
            Equivalent(
                "StateMachine._dispatch",
                "if self._attention and not self.is_alive:  # killed meanwhil",
                "self._attention and (not self.is_alive)",
                "not self.is_alive",
            ),
            Equivalent(
                "StateMachine._call_enter",
                "if self._attention and not self.is_alive:",
                "self._attention and (not self.is_alive)",
                "not self.is_alive",
            ),
        ],
        "to insert nothing changes nothing": [
            Equivalent("StateMachine._apply", "if inserted:", "inserted", "True"),
        ],
        "a private method, of which only the truth is looked at": [
            Equivalent("StateMachine._act", "return False", "return False", "return None"),
        ],
        "to call no listener raises, and removes none": [
            Equivalent("StateMachine._record", "if self._tracer is not None:", "self._tracer is not None", "True"),
        ],
    },
    "adapters/providers/gemini/decoder.py": {
        "without details both make the same usage": [
            Equivalent("GeminiDecoder._deltas", "if self._has_details", "self._has_details", "True"),
            Equivalent(
                "GeminiDecoder.__init__",
                "self._has_details = False  # whether the usage has counts by",
                "False",
                "True",
            ),
        ],
        "counts with a total are not none": [
            Equivalent(
                "GeminiDecoder._deltas",
                "and (counts.total_token_count is not None or counts != NO_WI",
                "counts.total_token_count is not None or counts != NO_WIRE_COUNTS",
                "counts != NO_WIRE_COUNTS",
            ),
        ],
        "the lenient path reads an ordinary response alike": [
            Equivalent("GeminiDecoder._begin", 'count = len(events) if self._raw == "unknown" else 1', "1", "2"),
        ],
        "deltas without surrogates are joined to equal ones": [
            Equivalent("GeminiDecoder._deltas", "if self._has_surrogates:", "self._has_surrogates", "True"),
        ],
        "a private method, of which only the truth is looked at": [
            Equivalent("GeminiDecoder._read_candidate", "return False", "return False", "return None"),
        ],
    },
    "adapters/providers/openai/chat_decoder.py": {
        "the lenient path reads an ordinary chunk alike": [
            Equivalent("_WireChoice", "index: int = 0", "0", "1"),
            Equivalent(
                "ChatDecoder._read_event",
                "self._is_plain = (self._is_plain or bool(choices)) and not s",
                "self._is_plain or bool(choices)",
                "bool(choices)",
            ),
        ],
        "a loop over nothing": [
            Equivalent("ChatDecoder._tell_unknown", "if self._note:", "self._note", "True"),
        ],
        "deltas without surrogates are joined to equal ones": [
            Equivalent("ChatDecoder._deltas", "if self._has_surrogates:", "self._has_surrogates", "True"),
            Equivalent(
                "ChatDecoder._read_choice",
                "_append_choice(index, other.surrogates.join(deltas, is_end=F",
                "self._has_surrogates",
                "True",
            ),
        ],
    },
    "adapters/http/connection.py": {
        "one pool more is a matter of cost": [
            Equivalent("<module>", "_NUM_POOLS = 64", "64", "65"),
        ],
        "a read of no bytes has returned before": [
            Equivalent("EagerResponse.read1", "raw = self.fp.read1(n if n > 0 else _READ_BYTES)", "n > 0", "n >= 0"),
        ],
        "to detach again does nothing": [
            Equivalent("EagerResponse.close", "self._handle = None", "self._handle = None", "pass"),
        ],
        "without content there is nothing to preload": [
            Equivalent(
                "_CancellableConnection.getresponse",
                "return HTTPResponse(preload_content=False, status=http.HTTPS",
                "False",
                "True",
            ),
        ],
        "an audit hook of the interpreter": [
            Equivalent(
                "_CancellableConnection._new_conn",
                'sys.audit("http.client.connect", self, self.host, self.port)',
                "sys.audit('http.client.connect', self, self.host, self.port)",
                "pass",
            ),
        ],
        "there are as many numbers as addresses": [
            Equivalent("_connect", "for left, (family, kind, protocol, _name, address) in zip(ra", "True", "False"),
        ],
    },
    "supervisors/children.py": {
        "versions are only compared with one another": [
            Equivalent("Child.__init__", "self.version = 0  # counts changes of state", "0", "1"),
            Equivalent("Supervising._mark_stopped", "child.version += 1", "child.version += 1", "child.version -= 1"),
            Equivalent("Supervising._mark_stopped", "child.version += 1", "1", "2"),
        ],
        "only for the type checker: no child is known by None": [
            Equivalent("Supervising._mark_stopped", "if ref is not None:", "ref is not None", "True"),
        ],
        "to kill a dead process has no effect": [
            Equivalent("Supervising._end_process", "return", "return", "pass"),
        ],
        "set when the child has started, and read only then": [
            Equivalent("Child.__init__", "self.started_at = 0.0  # when it was started", "0.0", "1.0"),
            Equivalent(
                "Child.__init__", "self.started_at = 0.0  # when it was started", "self.started_at = 0.0", "pass"
            ),
        ],
    },
}
