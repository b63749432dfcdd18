"""`map`, `take` and `tee` in random rows, while their processes are killed between any two events.

Whatever is killed: every stream has one terminal event, no source stays open, nothing is lost or doubled, and a file is
complete or marked as partial.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final

import pytest

import penstock
from penstock.config.units import cut
from penstock.testing import HANG, Collector, ScriptedAttempt, ScriptedProvider, SimulatedSystem, check_log
from tests.conformance.common import assert_nothing_is_left

pytestmark = [pytest.mark.seeds(40), pytest.mark.sample(4)]

WORDS: Final = [f"w{number} " for number in range(40)]
TEXT: Final = "".join(WORDS)


class Row:
    """A chat, and a random row of combinators on it; the text that each must have if nothing goes wrong."""

    def __init__(self, system: SimulatedSystem, seed: int, folder: Path) -> None:
        self.system = system
        self.chance = random.Random(f"row {seed}")
        self.folder = folder
        self.streams: list[tuple[penstock.Stream, str]] = []
        self.files: list[tuple[Path, penstock.Stream, str]] = []
        self.collectors: list[Collector] = []

    def open(self) -> None:
        chance = self.chance
        steps: list[Any] = [step for word in WORDS for step in (word, chance.choice((0.0, 0.0, 0.01)))]
        cut = steps[: chance.randrange(len(steps))]
        broken = ScriptedAttempt((*cut, penstock.ProviderError("broken")))
        attempts = chance.choice(
            [[ScriptedAttempt(tuple(steps))], [broken, ScriptedAttempt(tuple(steps))], [ScriptedAttempt((*cut, HANG))]]
        )
        stream = self.system.chat(
            "m",
            "Hello",
            provider=ScriptedProvider(*attempts),
            options=penstock.SAFE.replace(batch_size=chance.randint(1, 5), max_buffer_size=chance.choice((5, 100))),
            request_options=penstock.RequestOptions(
                on_interrupt=chance.choice(("fail", "restart")), retry_base_delay=0.01
            ),
            stream_id="chat",
        )
        self.streams.append((stream, TEXT))
        text = TEXT
        for number in range(chance.randint(1, 4)):
            stream, text = self.add(stream, text, number)
            self.streams.append((stream, text))
            if chance.random() < 0.3:
                self.collectors.append(Collector(stream, window=chance.randint(1, 64)))
        self.collectors.append(Collector(stream, window=chance.randint(1, 64)))

    def add(self, stream: penstock.Stream, text: str, number: int) -> tuple[penstock.Stream, str]:
        """Add a combinator; returns the new stream and its whole text."""
        chance = self.chance
        match chance.choice(("map", "words", "take", "characters", "tee", "tee")):
            case "map":
                return stream.map(str.swapcase), text.swapcase()
            case "words":
                marked = "".join(f"<{word}" for word in cut(text, "word"))
                return stream.map(lambda word: f"<{word}", unit="word"), marked
            case "take":
                words = chance.randrange(60)
                return stream.take(seconds=words * 0.02), text
            case "characters":
                count = chance.randrange(len(text) + 10)
                return stream.take(characters=count), text[:count]
            case _:
                path = self.folder / f"{number}.txt"
                copied = stream.tee(path, flush_every=chance.choice((1, 1, 5)))
                self.files.append((path, copied, text))
                return copied, text

    def check(self) -> None:
        for stream, text in self.streams:
            assert stream.is_over, stream
            check_log(stream)
            assert text.startswith(stream.text), (stream, stream.text, text)
        for collector in self.collectors:
            if collector.subscription.is_active or collector.terminal is not None:
                collector.check()
        for path, stream, text in self.files:
            terminal = stream._record.log.terminal
            partial = path.with_name(path.name + ".partial")
            assert path.exists() != partial.exists()
            if isinstance(terminal, penstock.StreamCompleted):
                assert path.exists()
                assert path.read_text() == stream.text
            else:
                written = (path if path.exists() else partial).read_text()
                assert text.startswith(written)
                if path.exists():  # the stream was killed after the copy was complete
                    parent = self.streams[[one for one, _ in self.streams].index(stream) - 1][0]
                    assert isinstance(parent._record.log.terminal, penstock.StreamCompleted)
                    assert written == parent.text


def run(seed: int, folder: Path, kill_chance: float) -> tuple[Row, int]:
    folder.mkdir(exist_ok=True)
    kills = 0
    chance = random.Random(f"kills {seed}")
    with SimulatedSystem(seed) as system:
        row = Row(system, seed, folder)
        row.open()
        feed = row.streams[0][0]._record.feed
        assert feed is not None

        def maybe_kill() -> None:
            nonlocal kills
            if chance.random() >= kill_chance:
                return
            records = [stream._record for stream, _ in row.streams if not stream.is_over]
            refs = [feed.ref, *(ref for one in records for ref in (one.ref, one.feeder))]
            victims = [ref for ref in refs if ref is not None and system.runtime.is_alive(ref)]
            if victims:
                kills += 1
                system.runtime.exit(chance.choice(victims), "kill")

        system.simulation.dispatcher.before_step = maybe_kill if kill_chance else None
        for _ in range(chance.randint(5, 60)):
            system.advance(chance.choice((0.0, 0.005, 0.05)))
        system.simulation.dispatcher.before_step = None
        if not row.streams[0][0].is_over and chance.random() < 0.5:
            chance.choice(row.streams)[0].cancel("enough")
        system.advance(5)
        row.streams[0][0].cancel("it hangs")
        system.settle()
        row.check()
        assert system.scripted.open == 0
        assert_nothing_is_left(system)
    return row, kills


def test_without_kills_each_row_has_the_text_that_it_must_have(seed: int, tmp_path: Path) -> None:
    row, _ = run(seed, tmp_path, 0.0)
    for stream, text in row.streams:
        terminal = stream._record.log.terminal
        if isinstance(terminal, penstock.StreamCompleted) and terminal.finish_reason == "stop":
            assert stream.text == text


def test_whatever_is_killed_each_row_keeps_its_promises(seed: int, tmp_path: Path) -> None:
    run(seed, tmp_path, 0.01)


def test_under_many_kills_too(seed: int, tmp_path: Path) -> None:
    run(seed, tmp_path, 0.1)


def test_the_same_seed_gives_the_same_run(seed: int, tmp_path: Path) -> None:
    first, second = (run(seed, tmp_path / name, 0.02) for name in ("first", "second"))
    assert first[1] == second[1]
    assert [stream.text for stream, _ in first[0].streams] == [stream.text for stream, _ in second[0].streams]
