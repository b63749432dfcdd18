"""An answer that another process has begun, whatever request fails and whatever process is killed meanwhile."""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

import penstock
from penstock.actors.call.overlap import Overlap
from penstock.actors.call.record import CallRecord
from penstock.actors.stream.heads import PastLog, StreamHead
from penstock.actors.stream.keeping import revive
from penstock.actors.stream.record import StreamRecord
from penstock.errors import ApiError, ConnectError, IncompleteStream
from penstock.events import StreamCompleted, StreamReset, TokenEvent
from penstock.ports import ChatCall, MetadataDelta, ProviderRequest, TextDelta
from penstock.stream import Stream
from penstock.testing import HANG, Collector, ResumableProvider, ScriptedAttempt, SimulatedSystem, kill
from tests.conformance.common import FAST, assert_all_is_well

pytestmark = [pytest.mark.seeds(60), pytest.mark.sample(6)]

WORDS = [f"{number} " for number in range(20)]
TEXT = "".join(WORDS)
OTHER = "Something else. "
ABOUT = MetadataDelta({"name": "a"})


class KeepingProvider(ResumableProvider):
    """Sends the kept answer again, with faults; gives a new request another answer."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(["unused"])
        self.chance = chance
        self.call: CallRecord | None = None
        self.gone = chance.random() < 0.2
        self.new_answers = 0

    def kept_as(self, metadata: Mapping[str, Any]) -> str | None:
        return metadata.get("name")

    def replay(self, name: str) -> ProviderRequest:
        assert name == "a"
        return ProviderRequest(url="scripted:kept", body=b"", method="GET")

    def next_attempt(self) -> ScriptedAttempt:
        super().next_attempt()
        call, chance = self.call, self.chance
        assert call is not None
        if call.overlap is None and call.resumption is None:
            self.new_answers += 1
            return ScriptedAttempt((OTHER,))
        if self.gone:
            return ScriptedAttempt((ApiError(404, "gone"),))
        size = chance.randint(1, 4)
        reads = [[TextDelta(word) for word in WORDS[at : at + size]] for at in range(0, len(WORDS), size)]
        steps: list[Any] = [[ABOUT], *(step for read in reads for step in (read, chance.choice((0.0, 0.02))))]
        if chance.random() < 0.5:
            steps = [*steps[: chance.randrange(len(steps))], chance.choice((IncompleteStream("cut"), HANG))]
        elif chance.random() < 0.2:
            steps = [ConnectError("host", "refused")]
        return ScriptedAttempt(tuple(steps))


def take_up(system: SimulatedSystem, provider: KeepingProvider, stored: list[str]) -> Stream:
    """What `penstock.recovery` does, of a log with these tokens."""
    services = system._services
    options = penstock.RequestOptions(
        on_interrupt="resume", max_retries=8, retry_base_delay=0.05, first_token_timeout=1, idle_timeout=1
    )
    events = [TokenEvent("s", seq, (text,), text, "text", 1.0, {}) for seq, text in enumerate(stored, 1)]
    past = PastLog(StreamHead(sse_epoch="0" * 8, created_at=1.0, redo={"any": 1}), events)
    feed = services.call(services.catalogue.find(provider, "m"), ChatCall(model="m", input="Hello"), options)
    overlap = Overlap.of(events)
    assert overlap is not None
    assert feed.take_up(feed.asked, "a", overlap)
    provider.call = feed

    def make() -> StreamRecord:
        record = StreamRecord(
            services.runtime,
            "s",
            FAST,
            metadata={},
            on_orphan="continue",
            restart="temporary",
            feed=feed,
            loop_thread=services.loop_thread,
            home=services,
        )
        stored: Any = SimpleNamespace(note=lambda **facts: None, is_fenced=False)
        record.stored = stored
        revive(record, past)
        return record

    services.opener.open(make, 5, services.check_running)
    return system.stream("s")


@pytest.mark.parametrize("kills", [0, 3])
def test_between_two_resets_there_is_one_answer_and_the_end_is_whole(seed: int, kills: int) -> None:
    chance = random.Random(seed)
    provider = KeepingProvider(chance)
    stored = WORDS[: chance.randrange(len(WORDS) + 1)]
    if stored and chance.random() < 0.5:
        stored[-1] = stored[-1][:1]
    with SimulatedSystem(seed) as system:
        stream = take_up(system, provider, stored)
        collector = Collector(stream)
        for _ in range(kills):
            system.advance(chance.random() * 0.4)
            kill(system, "source/s")
        collector.wait_for_terminal(timeout=120)
        pieces = [""]
        for event in stream._record.log:
            if isinstance(event, StreamReset):
                pieces.append("")
            elif isinstance(event, TokenEvent):
                pieces[-1] += event.text
        end = stream._record.log.terminal
        assert TEXT.startswith(pieces[0])
        assert pieces[0].startswith("".join(stored))
        assert all(OTHER.startswith(piece) for piece in pieces[1:])
        if isinstance(end, StreamCompleted):
            assert pieces[-1] == end.text == (TEXT if len(pieces) == 1 and (stored or not provider.gone) else OTHER)
        assert (provider.new_answers == 0) or len(pieces) > 1 or not stored
        assert_all_is_well(system, [stream], [collector])
