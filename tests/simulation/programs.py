"""Random programs: actions of users on a system whose processes are killed at random steps."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

import penstock
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.stream.hub import Subscription
from penstock.actors.stream.subscribers.pull import Events
from penstock.config.options import OnOrphan, Restart, Slow
from penstock.events import Event
from penstock.ports import Delta, TextDelta
from penstock.testing import (
    HANG,
    Collector,
    ScriptedAttempt,
    ScriptedProvider,
    SimulatedSystem,
    check_log,
)
from tests.conformance.common import Sink, assert_nothing_is_left, text_of

TEXT: Final = [f"{number} " for number in range(30)]
ROOT_IS_SPARED: Final = 0.9
"""How often the root is not killed: after its death nothing more can happen."""
POLICIES: Final[tuple[Slow, ...]] = ("block", "coalesce", "drop", "disconnect")
COMPLETE: Final[tuple[Slow, ...]] = ("block", "coalesce")
EXPECTED: Final = (penstock.StreamClosed, penstock.BufferFull)
"""What a user's call may raise here. `CallTimeout`, a caller without an answer, is not allowed."""


class PushSubscriber:
    """A push subscriber and the events it has received."""

    def __init__(self, events: list[Event], subscription: Subscription, ref: ProcessRef) -> None:
        self.events = events
        self.subscription = subscription
        self.ref = ref


class UsedStream:
    """A stream, the tokens pushed into it, and its readers."""

    def __init__(self, stream: penstock.Stream, *, pushed: bool) -> None:
        self.stream = stream
        self.pushed = pushed
        self.accepted: list[str] = []
        self.uncertain = False  # a push ended in an error, so it is unknown how many of its tokens were accepted
        self.told: list[PushSubscriber] = []
        self.collectors: list[Collector] = []
        self.iterators: list[tuple[Events, list[Event]]] = []


class Program:
    """One random program on one system."""

    def __init__(self, system: SimulatedSystem, seed: int, *, kill_chance: float) -> None:
        self.system = system
        self.chance = random.Random(f"program {seed}")
        self.kill_random = random.Random(f"kills {seed}")
        self.kill_chance = kill_chance
        self.used: list[UsedStream] = []
        self.killed: set[ProcessRef] = set()
        self.kills = 0
        self.sinks: list[ProcessRef] = []
        self.trace: list[str] = []
        system.simulation.dispatcher.before_step = self.maybe_kill

    # --- kills ---------------------------------------------------------------------------------------------------

    def maybe_kill(self) -> None:
        """Kill a random process between two steps, with the chance of this program."""
        if self.kill_random.random() < self.kill_chance:
            self.kill(self.kill_random)

    def kill(self, chance: random.Random) -> None:
        """Kill a process that a user could kill: one that the tree shows, or a subscriber."""
        runtime = self.system.simulation.runtime
        victims = [ref for ref in runtime.processes() if may_die(runtime._alive.get(ref))]
        if victims:
            victim = chance.choice(victims)
            if victim.label == "system" and chance.random() < ROOT_IS_SPARED:
                return
            self.killed.add(victim)
            self.kills += 1
            self.trace.append(f"kill {type(runtime._alive[victim]).__name__}")
            runtime.exit(victim, "kill")

    # --- what users do -------------------------------------------------------------------------------------------

    def run(self, actions: int) -> None:
        """Do ``actions`` random actions; the crashes end with them."""
        choices: list[Callable[[], None]] = [
            self.open, self.chat, self.push, self.push, self.subscribe, self.subscribe, self.iterate, self.read,
            self.pause, self.resume, self.set_options, self.flush, self.stop, self.cancel, self.leave, self.wait,
            self.wait, self.wait, lambda: self.kill(self.chance),
        ]  # fmt: skip
        try:
            for action in (self.open, self.chat, *self.chance.choices(choices, k=actions)):
                self.trace.append(getattr(action, "__name__", "kill"))
                self.act(action)
        except penstock.SystemStopped:  # the root was killed, or restarted too often
            self.trace.append("stopped")
        finally:
            self.system.simulation.dispatcher.before_step = None

    def act(self, action: Callable[[], None]) -> None:
        if not self.used and action not in (self.open, self.chat, self.wait):
            return
        try:
            action()
        except EXPECTED:
            return

    def open(self) -> None:
        chance = self.chance
        stream = self.system.open_stream(
            f"pushed-{len(self.used)}",
            penstock.StreamOptions(
                batch_size=chance.randint(1, 4),
                max_buffer_size=chance.choice((8, 1000)),
                rate_limit=chance.choice((None, None, 200.0)),
                strategy=chance.choice(("hybrid", "time")),
                flush_interval=0.05,
                push_timeout=0.5,
            ),
            restart=self.restart(),
            on_orphan=chance.choice(("continue", "continue", "cancel", 0.1)),
        )
        self.used.append(UsedStream(stream, pushed=True))

    def chat(self) -> None:
        chance = self.chance
        whole: list[Any] = [step for read in self.reads() for step in (read, chance.choice((0.0, 0.01)))]
        cut = whole[: chance.randrange(len(whole))]
        attempts = {
            "whole": ScriptedAttempt(tuple(whole)),
            "busy": ScriptedAttempt((penstock.ApiError(503, "busy"),)),
            "broken": ScriptedAttempt((*cut, penstock.ProviderError("broken"))),
            "truncated": ScriptedAttempt(tuple(cut), finish=None),
            "hanging": ScriptedAttempt((*cut, HANG)),
            "slow": ScriptedAttempt(tuple(whole), connect=0.2, headers=0.3),
        }
        script = [attempts[name] for name in chance.choices(sorted(attempts), k=3)]
        orphan: OnOrphan = chance.choice(("cancel", "continue", 0.1))
        stream = self.system.chat(
            "m",
            "Hello",
            provider=ScriptedProvider(*script, attempts["whole"]),
            options=penstock.StreamOptions(
                batch_size=chance.randint(1, 4),
                max_buffer_size=chance.choice((4, 1000)),
                flush_interval=0.05,
                rate_limit=chance.choice((None, None, 200.0)),
            ),
            request_options=penstock.RequestOptions(
                on_interrupt=chance.choice(("fail", "restart")), retry_base_delay=0.01
            ),
            stream_id=f"chat-{len(self.used)}",
            on_orphan=orphan,
            restart=self.restart(),
        )
        self.used.append(UsedStream(stream, pushed=False))

    def reads(self) -> list[list[Delta]]:
        """The provider's text, in reads of several words."""
        reads: list[list[Delta]] = []
        words = [TextDelta(word) for word in TEXT]
        while words:
            count = self.chance.randint(1, 6)
            reads.append([*words[:count]])
            del words[:count]
        return reads

    def restart(self) -> Restart:
        return self.chance.choice(("temporary", "transient"))

    def any(self) -> UsedStream:
        return self.chance.choice(self.used)

    def push(self) -> None:
        used = self.any()
        if not used.pushed:
            return
        count = self.chance.randrange(1, 12)
        first = len(used.accepted)
        tokens = [f"{number} " for number in range(first, first + count)]
        try:
            used.stream.process_tokens(tokens)
        except penstock.BufferFull as error:
            used.accepted += tokens[: error.accepted]
            raise
        except penstock.StreamClosed:
            used.uncertain = True
            raise
        used.accepted += tokens

    def subscribe(self) -> None:
        used = self.any()
        slow: Slow = self.chance.choice(POLICIES)
        kind = self.chance.randrange(4)
        if kind == 0:
            used.collectors.append(Collector(used.stream, slow=slow, window=self.chance.randint(1, 64)))
        elif kind == 1:
            used.stream.subscribe(lambda event: 1 / 0)
        else:
            crash_at = self.chance.choice((None, None, 3))
            events: list[Event] = []
            ref = self.system.runtime.spawn(Sink, events, crash_at)
            self.sinks.append(ref)
            try:
                subscription = used.stream.subscribe(ref, slow, window=self.chance.randint(1, 64))
            except penstock.ProcessDead:  # it was killed in the meantime
                return
            used.told.append(PushSubscriber(events, subscription, ref))

    def iterate(self) -> None:
        used = self.any()
        slow: Slow = self.chance.choice(COMPLETE)
        used.iterators.append((used.stream.events(slow=slow, window=self.chance.randint(1, 16)), []))

    def read(self) -> None:
        used = self.any()
        for events, got in used.iterators:
            for _ in range(self.chance.randrange(4)):
                if not _read_one(events, got, timeout=0.01):
                    break

    def leave(self) -> None:
        used = self.any()
        if used.iterators:
            used.iterators.pop(self.chance.randrange(len(used.iterators)))[0].close()

    def pause(self) -> None:
        self.any().stream.pause()

    def resume(self) -> None:
        self.any().stream.resume()

    def set_options(self) -> None:
        self.any().stream.set_options(
            batch_size=self.chance.randint(1, 4), rate_limit=self.chance.choice((None, 200.0))
        )

    def flush(self) -> None:
        self.any().stream.flush_buffer()

    def stop(self) -> None:
        self.any().stream.stop()

    def cancel(self) -> None:
        self.any().stream.cancel("enough")

    def wait(self) -> None:
        self.system.advance(self.chance.choice((0, 0.001, 0.02, 0.1, 0.3)))
        for _ in range(self.chance.randrange(20)):
            self.system.simulation.dispatcher.step()

    # --- what must hold ------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Let every stream end, and check the result."""
        for used in self.used:
            if not used.stream.is_over:
                try:
                    used.stream.resume()
                except penstock.StreamClosed:
                    continue
        self.system.advance(2)
        for used in self.used:
            while any(_read_one(events, got, timeout=0) for events, got in used.iterators):
                pass
            used.stream.stop()
            used.stream.stop()  # a second stop is harmless
        self.system.settle()
        for used in self.used:
            self.check(used)
        for ref in self.sinks:
            self.system.runtime.exit(ref, "kill")
        assert_nothing_is_left(self.system)

    def check(self, used: UsedStream) -> None:
        """Check for one terminal event, nothing lost or doubled, and complete delivery to live subscribers."""
        stream = used.stream
        assert stream.is_over, stream
        check_log(stream)
        terminal = stream._record.log.terminal
        assert terminal is not None
        text = stream.text
        if used.pushed:
            pushed = "".join(used.accepted)
            assert used.uncertain or pushed.startswith(text), (text, pushed)
            if isinstance(terminal, penstock.StreamCompleted):
                assert text == pushed
        else:
            assert "".join(TEXT).startswith(text)
        for collector in used.collectors:
            self.check_told(stream, collector.subscription, collector.events)
        for told in used.told:
            self.check_told(stream, told.subscription, told.events)
        for events, got in used.iterators:
            while _read_one(events, got, timeout=0):
                pass
            assert got[-1] is terminal or got[-1] == terminal
            assert [event.seq for event in got] == sorted({event.seq for event in got})

    def check_told(self, stream: penstock.Stream, subscription: Subscription, events: list[Event]) -> None:
        numbers = [event.seq for event in events if not isinstance(event, penstock.Disconnected)]
        assert numbers == sorted(set(numbers)), numbers
        ref = getattr(subscription, "ref", None)
        died = ref in self.killed or (ref is not None and not ref.is_alive())
        if died and not (events and events[-1] is stream._record.log.terminal):
            return
        assert events, "a living subscriber got nothing"
        if isinstance(events[-1], penstock.Disconnected):
            assert subscription.slow == "disconnect"
            return
        assert events[-1] == stream._record.log.terminal
        resets = any(isinstance(event, penstock.StreamReset) for event in events)
        if subscription.slow in COMPLETE and not resets:
            assert text_of(events) == stream.text


def may_die(process: Process | None) -> bool:
    """Return whether a user could reach the process: not a request of the reader, nor a helper for one call."""
    return process is not None and type(process).__name__ not in ("_OfferingRequest", "Sentinel")


def _read_one(events: Events, got: list[Event], timeout: float) -> bool:
    try:
        got.append(events.next(timeout=timeout))
    except (penstock.CallTimeout, StopIteration):
        return False
    return True


__all__ = ["Program"]
