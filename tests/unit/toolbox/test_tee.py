"""`Stream.tee`: rules 19 to 23 of the combinators."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.errors import OptionError, TeeError
from penstock.events import StreamReset
from penstock.testing import HANG, ScriptedProvider, SimulatedSystem
from penstock.toolbox.copies import CopyGuard, open_copy
from penstock.toolbox.requests import Worker
from penstock.toolbox.stage import Run, Steps
from penstock.toolbox.tee import Tee
from tests.unit.toolbox.single import shown, system, token, tokens_of

__all__ = ["system"]

END = penstock.StreamCompleted(stream_id="", seq=0, text="")


def driven(steps: Steps) -> list[object]:
    """What a stage gives, as `shown`; functions that may block are called."""
    iterator: Any = iter(steps)
    given: list[Any] = []
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            if error is not None:
                output = iterator.throw(error)
            else:
                output = iterator.send(answer) if hasattr(iterator, "send") else next(iterator)
        except StopIteration:
            return shown(given)
        answer = error = None
        if isinstance(output, Run):
            try:
                answer = output.function()
            except Exception as raised:
                error = raised
        else:
            given.append(output)


def fed(tee: Tee, event: Any) -> list[object]:
    """What comes of an event after which no further one waits."""
    given = driven(tee.feed(event))
    return given if tee.deadline is None else [*given, *driven(tee.overdue())]


def stage(target: Any, mode: Any = "text", on_error: Any = "fail", flush_every: int = 1) -> Tee:
    return Tee(open_copy(target), mode, frozenset({"text"}), on_error, flush_every, lambda: None)


@pytest.mark.parametrize("where", ["no/such/folder/x.txt", "."])
def test_rule_19_a_path_is_opened_at_the_call(system: SimulatedSystem, tmp_path: Path, where: str) -> None:
    provider = ScriptedProvider(["a"])
    parent = system.open_stream("p")
    with pytest.raises(OSError, match=r"No such file|Is a directory"):
        parent.tee(tmp_path / where)
    assert provider.requests == 0
    assert parent.statistics().subscribers == 0
    assert list(tmp_path.iterdir()) == []


def test_a_path_of_what_is_no_file_is_refused_and_left_as_it_is(system: SimulatedSystem, tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("there are no such files")
    os.mkfifo(tmp_path / "pipe")  # as a device such as /dev/null, which the superuser could replace
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    parent = system.open_stream("p")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match="Not a regular file"):
            parent.tee(tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link", "pipe"]


def test_rule_20_the_file_gets_its_name_when_the_stream_has_completed(system: SimulatedSystem, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("of yesterday")
    (tmp_path / "x.txt.partial").write_text("left by a crash, and longer than what comes now")
    parent = system.open_stream("p", penstock.SAFE)
    copied = parent.tee(path)
    parent.process_tokens(["caf", "é\r\n"])
    system.settle()
    assert path.read_text() == "of yesterday"
    assert (tmp_path / "x.txt.partial").read_bytes() == "café\r\n".encode()
    parent.process_token("\ud83d\ude00 \ud83d")  # a pair of surrogates and a lone one
    parent.stop()
    assert copied.result(1).finish_reason == "stop"
    assert path.read_bytes() == "café\r\n😀 �".encode()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("end", ["fails", "is cancelled", "is killed", "is left by its reader"])
def test_rule_20_else_it_stays_partial_and_whole(system: SimulatedSystem, tmp_path: Path, end: str) -> None:
    provider = ScriptedProvider(
        ["one ", 0.1, "two ", 0.1, *([penstock.ProviderError("no")] if end == "fails" else [HANG])]
    )
    parent = system.chat("m", "Hello", provider=provider, request_options=penstock.RequestOptions(max_retries=0))
    copied = parent.tee(tmp_path / "x.txt")
    events = copied.events()
    system.advance(1)
    match end:
        case "is cancelled":
            parent.cancel()
        case "is killed":
            system.runtime.exit(copied._record.feeder, "kill")  # type: ignore[arg-type]
        case "is left by its reader":
            events.close()
    system.settle()
    assert copied.is_over
    assert not isinstance(copied._record.log.terminal, penstock.StreamCompleted)
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt.partial"]
    assert (tmp_path / "x.txt.partial").read_text() == "one two "
    with parent.tee(tmp_path / "x.txt").events():  # the path is free again
        pass


def test_rule_20_what_a_reader_has_seen_is_in_the_file(system: SimulatedSystem, tmp_path: Path) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    copied = parent.tee(tmp_path / "x.txt")
    seen = []
    copied.subscribe(lambda event: seen.append((copied.text, (tmp_path / "x.txt.partial").read_text())))
    for letter in "abc":
        parent.process_token(letter)
        system.settle()
    assert len(seen) == 3
    assert all(file.startswith(text) for text, file in seen)
    parent.cancel()


def test_rule_21_after_a_reset_the_text_begins_anew(system: SimulatedSystem, tmp_path: Path) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    file = io.StringIO("kept ")
    file.seek(0, io.SEEK_END)
    copies = [parent.tee(tmp_path / "x.txt"), parent.tee(file), parent.tee(tmp_path / "x.jsonl", mode="jsonl")]
    parent.process_token("void")
    system.settle()
    parent.reset("again")
    parent.process_token("new")
    parent.stop()
    for copied in copies:
        assert copied.result(1).text == "new"
    assert (tmp_path / "x.txt").read_text() == "new"
    assert file.getvalue() == "kept new"
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [line["type"] for line in lines] == ["TokenEvent", "StreamReset", "TokenEvent", "StreamCompleted"]
    assert [line["stream_id"] for line in lines] == ["p"] * 4


def test_rule_21_a_reset_of_one_origin_takes_back_only_its_text(tmp_path: Path) -> None:
    tee = stage(tmp_path / "x.txt")
    for text, origin in (("A1 ", "a"), ("é ", "b"), ("A2 ", "a"), ("A3 ", "a"), ("B2 ", "b")):
        fed(tee, token(text, origin=origin))
    driven(tee.reset(StreamReset("p", 1, "again", 0.0, {}, origin="a")))
    fed(tee, token("A4", origin="a"))
    assert driven(tee.end(END)) == ["stop"]
    tee.close()
    assert (tmp_path / "x.txt").read_text() == "é B2 A4"


class Broken:
    """A file on which only so many writes succeed."""

    def __init__(self, good: int) -> None:
        self.good = good
        self.written: list[str] = []

    def write(self, text: str) -> None:
        if not text:
            return
        if len(self.written) == self.good:
            raise OSError(28, "No space left on device")
        self.written.append(text)


def test_rule_22_a_copy_that_cannot_be_written_fails_the_stream(system: SimulatedSystem) -> None:
    provider = ScriptedProvider(["one ", 0.1, "two ", 0.1, "three", HANG])
    parent = system.chat("m", "Hello", provider=provider)
    copied = parent.tee(Broken(2))
    with pytest.raises(TeeError, match="its copy could not be written: OSError: No space left on device") as caught:
        copied.result(10)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.partial == "one two "
    assert copied.statistics().tee_errors == 1
    system.settle()
    assert parent.is_over
    assert system.scripted.open == 0


def test_rule_22_or_is_given_up(system: SimulatedSystem, tmp_path: Path) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    copied = parent.tee(file := Broken(1), on_error="detach")
    assert copied.statistics().tee_errors == 0
    for letter in "abc":
        parent.process_token(letter)
        system.settle()
    parent.stop()
    assert copied.result(1).text == "abc"
    assert file.written == ["a"]
    assert copied.statistics().tee_errors == 1


def test_rule_22_a_file_that_cannot_be_completed_fails_a_stream_that_has_completed(
    system: SimulatedSystem, tmp_path: Path
) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    copied = parent.tee(tmp_path / "folder")
    parent.process_token("a")
    system.settle()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "occupied").touch()
    parent.stop()
    with pytest.raises(TeeError) as caught:
        copied.result(1)
    assert caught.value.partial == "a"
    assert (tmp_path / "folder.partial").read_text() == "a"


def test_rule_23_a_slow_file_makes_the_stream_wait() -> None:
    """With threads: no thread of the dispatcher is held, and nothing is read beyond what fits."""
    may_write, is_writing = threading.Event(), threading.Event()
    written: list[str] = []

    def write(text: str) -> None:
        is_writing.set()
        assert may_write.wait(20)
        written.append(text)

    with penstock.System() as system:
        parent = system.open_stream("p", penstock.SAFE.replace(batch_size=1))
        copied = parent.tee(write)
        with pytest.raises(penstock.BufferFull) as caught:
            parent.process_tokens(["x"] * 1000, timeout=0.05)
        assert caught.value.accepted < 100 + 3 * 16  # the buffer, what waits for the copy, what is being written
        assert is_writing.wait(20)
        assert system.open_stream("other").state == "idle"
        assert copied.text == ""
        may_write.set()
        parent.process_tokens(["y"] * 300, timeout=20)
        parent.stop()
        assert copied.result(20).text == "".join(written)
        assert len(written) == caught.value.accepted + 300


def test_two_copies_to_one_path_are_refused(system: SimulatedSystem, tmp_path: Path) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    copied = parent.tee(tmp_path / "x.txt")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OptionError, match="a path that no other tee is writing to"):
        parent.tee(str(tmp_path / "link" / "x.txt"))
    parent.process_token("a")
    parent.stop()
    assert copied.result(1).text == "a"
    assert (tmp_path / "x.txt").read_text() == "a"
    again = parent.tee(tmp_path / "x.txt")
    assert again.result(1).text == "a"


def test_a_stream_that_cannot_be_made_leaves_no_file(system: SimulatedSystem, tmp_path: Path) -> None:
    parent = system.open_stream("p")
    with pytest.raises(penstock.StreamExists):
        parent.tee(tmp_path / "x.txt", stream_id="p")
    assert list(tmp_path.iterdir()) == []


def test_an_open_file_is_neither_closed_nor_renamed(system: SimulatedSystem, tmp_path: Path) -> None:
    with (tmp_path / "text").open("w", encoding="utf-8", newline="") as text, (tmp_path / "raw").open("wb", 0) as raw:
        parent = system.open_stream("p", penstock.SAFE)
        copies = [parent.tee(text), parent.tee(raw), parent.tee(binary := io.BytesIO())]
        parent.process_token("é\n")
        system.settle()
        assert (tmp_path / "text").read_bytes() == (tmp_path / "raw").read_bytes() == "é\n".encode()  # flushed
        parent.stop()
        for copied in copies:
            copied.result(1)
        assert not text.closed
        assert not raw.closed
        assert binary.getvalue() == "é\n".encode()


def test_a_file_that_was_opened_for_reading_is_refused_at_the_call(system: SimulatedSystem, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with (tmp_path / "x").open() as file, pytest.raises(OSError, match="not writable"):
        system.open_stream("p").tee(file)


def test_a_function_gets_each_text_and_may_be_async(system: SimulatedSystem) -> None:
    plain: list[str] = []
    awaited: list[str] = []

    async def keep(text: str) -> None:
        awaited.append(text)

    async def main() -> None:
        parent = system.open_stream("p", penstock.SAFE)
        copies: list[Any] = [parent.tee(plain.append), parent.tee(keep)]
        for text in ("a", "b"):
            parent.process_token(text)
            system.settle()
        parent.stop()
        for copied in copies:
            assert (await copied.aresult(1)).text == "ab"

    system.run(main())
    assert plain == awaited == ["a", "b"]


@pytest.mark.parametrize("mode", ["text", "jsonl"])
def test_only_the_wanted_kinds_are_written_and_all_pass(tmp_path: Path, mode: Any) -> None:
    tee = stage(tmp_path / "x", mode)
    given = [*fed(tee, token("hm", kind="reasoning")), *fed(tee, token("a")), *driven(tee.end(END))]
    assert given == [["hm"], ["a"], "stop"]
    tee.close()
    text = (tmp_path / "x").read_text()
    assert "hm" not in text
    assert text == "a" if mode == "text" else len(text.splitlines()) == 2


def test_several_events_are_written_together_and_the_rest_at_the_end() -> None:
    written: list[str] = []
    tee = stage(written.append, flush_every=3)
    for letter in "abcd":
        fed(tee, token(letter))
    assert written == ["abc"]
    driven(tee.reset(StreamReset("p", 1, "again", 0.0, {})))
    fed(tee, token("e"))
    assert driven(tee.end(penstock.StreamCancelled(stream_id="", seq=0))) == ["StreamCancelled"]
    assert written == ["abc", "e"]


def test_events_that_wait_change_the_thread_once_and_pass_after_that() -> None:
    """A thread is asked once for all of them, not once for each."""
    file = io.StringIO()
    writes: list[str] = []
    file.write = writes.append  # type: ignore[method-assign, assignment]
    for target in (file, writes.append):
        writes.clear()
        tee = stage(target)
        for letter in "abc":
            assert driven(tee.feed(token(letter))) == []
        assert tee.deadline == tee.now
        outputs = list(_until_run(tee.overdue()))
        assert len(outputs) == 1
        outputs[0].function()
        assert writes == ["a", "b", "c"]


def _until_run(steps: Steps) -> Iterator[Any]:
    """What comes up to the first thing to run."""
    for output in steps:
        yield output
        if isinstance(output, Run):
            return


@pytest.mark.parametrize("letters", [16, 40])
def test_no_more_is_held_than_fits(letters: int) -> None:
    writes: list[str] = []
    tee = stage(writes.append)
    given = [driven(tee.feed(token("x"))) for _ in range(letters)]
    assert [len(one) for one in given[:16]] == [0] * 15 + [16]
    assert len(writes) == letters // 16 * 16
    assert driven(tee.feed(token("y" * 65_536))) != []


def test_of_events_that_wait_those_before_a_failure_pass(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE.replace(batch_size=1))
    seen: list[str] = []

    def write(text: str) -> None:
        if text == "d":
            raise OSError(28, "No space left on device")
        seen.append(text)

    copied = parent.tee(write)
    copied.subscribe(lambda event: None)
    parent.process_tokens("abcdef")
    with pytest.raises(TeeError) as caught:
        copied.result(10)
    assert caught.value.partial == "abc" == "".join(seen)


def workers(system: SimulatedSystem) -> list[Any]:
    """The processes that call functions which may block."""
    return [ref for ref, process in system.runtime._alive.items() if isinstance(process, Worker)]


@pytest.mark.parametrize("when", ["idle", "asked"])
def test_a_copy_goes_on_or_fails_when_the_process_that_writes_is_killed(system: SimulatedSystem, when: str) -> None:
    written: list[str] = []
    parent = system.open_stream("p", penstock.SAFE)
    copied = parent.tee(written.append)
    parent.process_token("a")
    system.settle()
    [worker] = workers(system)
    if when == "idle":
        system.runtime.exit(worker, "kill")
    else:

        def kill() -> None:
            if worker.actor_inbox.qsize():
                system.runtime.exit(worker, "kill")

        dispatcher: Any = system.runtime.dispatcher
        dispatcher.before_step = kill
    parent.process_token("b")
    parent.stop()
    if when == "idle":
        assert copied.result(1).text == "ab"
        assert written == ["a", "b"]
    else:
        with pytest.raises(TeeError) as caught:
            copied.result(1)
        assert isinstance(caught.value.__cause__, penstock.ProcessDead)
    system.settle()
    assert workers(system) == []


def test_an_async_function_gets_one_text_after_the_other(system: SimulatedSystem) -> None:
    running: list[int] = [0]
    seen: list[str] = []

    async def keep(text: str) -> None:
        assert running[0] == 0
        running[0] += 1
        await asyncio.sleep(0)
        running[0] -= 1
        seen.append(text)

    async def main() -> None:
        parent = system.open_stream("p", penstock.SAFE.replace(batch_size=1))
        copied = parent.tee(keep)
        parent.process_tokens("abcdef")
        parent.stop()
        assert (await copied.aresult(1)).text == "abcdef"

    system.run(main())
    assert seen == list("abcdef")


def test_events_of_all_sorts_are_lines_of_json(tmp_path: Path) -> None:
    tee = stage(tmp_path / "x", "jsonl")
    call = penstock.ToolCall(id="1", name="f", arguments={"n": 10**30, "t": "\u2028\ud800"}, arguments_raw="{}")
    for event in (token("a\u2028\n"), penstock.ToolCallCompleted(index=0, call=call), penstock.Progress(position=1)):
        fed(tee, event)
    error = penstock.ProviderError("broken")
    driven(tee.end(penstock.StreamFailed(stream_id="", seq=0, error=error)))
    tee.close()
    lines = [json.loads(line) for line in (tmp_path / "x.partial").read_text("utf-8").split("\n")[:-1]]
    assert [line["type"] for line in lines] == ["TokenEvent", "ToolCallCompleted", "Progress", "StreamFailed"]
    assert lines[1]["call"]["arguments"]["n"] == 10**30


def test_a_copy_in_use_is_closed_by_the_thread_that_uses_it() -> None:
    closed: list[str] = []

    class Target:
        write: Callable[[str], None] = closed.append

        def close(self) -> None:
            closed.append("closed")

    guard = CopyGuard(Target())  # type: ignore[arg-type]

    def use() -> None:
        guard.close()
        assert closed == []

    guard.run(use)
    assert closed == ["closed"]
    guard.close()
    with pytest.raises(penstock.StreamClosed):
        guard.run(use)
    assert closed == ["closed"]


@pytest.mark.parametrize(
    "arguments", [{"mode": "csv"}, {"on_error": "stop"}, {"flush_every": 0}, {"kinds": "words"}], ids=str
)
def test_arguments_that_are_not_allowed_are_refused_before_a_file_is_opened(
    system: SimulatedSystem, tmp_path: Path, arguments: Any
) -> None:
    with pytest.raises(OptionError, match=next(iter(arguments))):
        system.open_stream("p").tee(tmp_path / "x.txt", **arguments)
    assert list(tmp_path.iterdir()) == []
    for target in (3, None, io.StringIO):
        with pytest.raises(OptionError, match="target"):
            system.stream("p").tee(target)  # type: ignore[arg-type]


def test_the_end_is_told_when_the_file_has_its_name(system: SimulatedSystem, tmp_path: Path) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    copied = parent.tee(tmp_path / "x.txt")
    was_there: list[bool] = []

    def look(event: Any) -> None:
        if isinstance(event, penstock.StreamCompleted):
            was_there.append((tmp_path / "x.txt").exists())

    copied.subscribe(look)
    parent.stop()
    copied.result(1)
    system.settle()
    assert was_there == [True]
    assert tokens_of(copied) == ["stop"]
