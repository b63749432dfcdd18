"""``on_interrupt="resume"`` behind the end of a process: the provider's answer goes on where the log ends.

The provider answers no request as it has answered another, so that a splice of two answers would be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

import penstock
from penstock.actors.stream.heads import read_log
from penstock.adapters.journals.sqlite import SqliteJournal
from penstock.adapters.loopback.answer import Answer
from penstock.adapters.loopback.faults import ResetAfter, StallAfter, Status, TruncateAfter
from penstock.adapters.loopback.ledger import ReceivedRequest
from penstock.adapters.loopback.parts import Found, Picture, Ran, RawEvent, Said, Search, Source, Thought
from penstock.adapters.loopback.resumption import KeptResponses
from penstock.adapters.loopback.script import Script, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.config.options import StreamOptions
from penstock.config.settings import Settings
from penstock.events import Event, StreamCompleted, StreamFailed, StreamReset, TokenEvent, ToolCallDelta
from penstock.events.codec import decode_value, encode_events, encode_value
from penstock.ports import EMPTY, Append, EntryId, LogFrame, OwnerMark, Request
from penstock.testing import eventually

EAGER = StreamOptions(batch_size=1, rate_limit=None)
RESUME = penstock.RequestOptions(on_interrupt="resume", retry_base_delay=0.01, retry_max_delay=0.01)
PAGE = "https://a.example/"
WORDS = "".join(f"word{number} " for number in range(30))
PARTS = (
    Thought("Hm, well. So it is.", signature="c2ln"),
    Said("Looking up. ", phase="commentary"),
    Search("penstock", [Found(PAGE, "A", "text of A")]),
    Said("Fünd "),
    Said("two words", citations=[Source(PAGE, "A", cited_text="w w")]),
    Said(". "),
    Ran("print(42)", "42\n"),
    Picture(b"\x89PNG\r\n\x1a\n----"),
    RawEvent({"type": "response.new_thing", "x": 1}),
    Said("Well 😀 done.", phase="final_answer"),
    ScriptedCall("f", '{"x": 1, "y": [2, 3]}', id="call_1", signature="c2ln"),
    ScriptedCall("g", "{}", id="call_2"),
)


def different(number: int) -> Answer:
    """The answer to a request for which none was expected."""
    return Answer(f"Another answer, number {number}.")


class Asked:
    """A script that gives its first answer once, and notes what is asked."""

    def __init__(self, first: Answer | Sequence[Answer]) -> None:
        self.answers = list(first) if isinstance(first, Sequence) else [first]
        self.count = 0

    def __call__(self, request: ReceivedRequest) -> Answer:
        self.count += 1
        return self.answers[self.count - 1] if self.count <= len(self.answers) else different(self.count)


def kept_requests(provider: LoopbackProvider) -> list[ReceivedRequest]:
    """The requests for an answer that the provider keeps."""
    return [request for request in provider.requests if request.method == "GET"]


def resets_in(events: Sequence[Event]) -> int:
    return sum(isinstance(event, StreamReset) for event in events)


def said(events: Sequence[Event]) -> list[tuple[Any, ...]]:
    """All that the events say, wherever they are divided: text by kind and part, pieces of calls, other events."""
    told: list[tuple[Any, ...]] = []
    for event in events:
        if isinstance(event, TokenEvent):
            place: tuple[Any, ...]
            place, text = (event.kind, event.part, event.phase), event.text
        elif isinstance(event, ToolCallDelta):
            place, text = ("call", event.index, None), event.text
        elif isinstance(event, StreamCompleted):
            same = msgspec.structs.replace(event, seq=0, timestamp=0.0, metrics=None, media=(), citations=())
            told.append((*_unnumbered(same.server_tools), same.text, same.reasoning, same.parts, same.tool_calls))
            told.append((same.finish_reason, same.usage, same.reasoning_blocks, same.model, same.provider_blocks))
            told.append((*_unnumbered(event.citations), *_unnumbered(event.media)))
            continue
        elif isinstance(event, StreamFailed):
            told.append((type(event.error), event.partial))
            continue
        else:
            told.append((msgspec.structs.replace(event, seq=0, timestamp=0.0),))
            continue
        if told and told[-1][:3] == place:
            text = told.pop()[3] + text
        told.append((*place, text))
    return told


def _unnumbered(events: Sequence[Any]) -> list[Any]:
    return [msgspec.structs.replace(event, seq=0, timestamp=0.0) for event in events]


class Past:
    """The stored log of an answer, to be written anew up to any place."""

    def __init__(self, path: Path, provider: LoopbackProvider, **how: Any) -> None:
        with penstock.System(Settings(), journal=SqliteJournal(path)) as system:
            self.ask(system, provider, **how).result(10)
        with SqliteJournal(path) as store:
            self.entries = store.read("s")
        past = read_log("s", self.entries)
        self.events, self.head = list(past.events), past.head
        self.count = 0

    @staticmethod
    def ask(system: penstock.System, provider: LoopbackProvider, **how: Any) -> penstock.Stream:
        options = how.pop("request_options", RESUME)
        stream = how.pop("options", EAGER)
        ask: Callable[..., penstock.Stream] = how.pop("ask", system.respond)
        return ask(
            "m",
            "Hello",
            stream_id="s",
            provider=how.pop("by", "openai"),
            base_url=provider.base_url,
            on_orphan="continue",
            options=stream,
            request_options=options,
            **how,
        )

    @property
    def marks(self) -> list[OwnerMark]:
        return [entry for entry in self.entries if isinstance(entry, OwnerMark)]

    def write(self, path: Path, events: Sequence[Event], notes: Sequence[Mapping[str, Any]] | None = None) -> None:
        """Write what a process leaves that has stored these events, and no end."""
        data = [mark.data for mark in self.marks[1:]] if notes is None else [encode_value(note) for note in notes]
        tail, appends = EMPTY, []
        for number, each in enumerate([self.marks[0].data, *data]):
            mark = OwnerMark(EntryId((number + 1) << 10, 0), "local", "note" if number else "open", each)
            opens = None if number else Request("s", "s")
            appends.append(Append("s", tail, mark, opens=opens, node="local"))
            tail = mark.id
        if events:
            frame = LogFrame(EntryId(tail.epoch, len(events)), 1, encode_events(events, self.head.metadata), False)
            appends.append(Append("s", tail, frame))
        with SqliteJournal(path) as store:
            assert all(isinstance(answer, EntryId) for answer in store.append_all(appends))

    def taken_up(self, path: Path, events: Sequence[Event], **how: Any) -> list[Event]:
        """All events of the stream, which ends in another process, after these."""
        self.write(path, events, **how)
        with penstock.System(Settings(), journal=SqliteJournal(path)) as system:
            read = list(system.stream("s").events(after=0))
        with SqliteJournal(path) as store:
            found = list(read_log("s", store.read("s")).events)
        assert said(read) == said(found), "a reader may get several events as one"
        return found


@pytest.fixture
def rich(tmp_path: Path) -> Iterator[tuple[Past, LoopbackProvider, Asked]]:
    asked = Asked(Answer(parts=PARTS))
    with LoopbackProvider(Script(asked)) as provider:
        yield Past(tmp_path / "first.db", provider, request_options=RESUME.replace(raw="all")), provider, asked


def halves(event: Event) -> Event | None:
    """An event with the first half of its text; None if there is nothing to divide."""
    if not isinstance(event, (TokenEvent, ToolCallDelta)) or len(event.text) < 2:
        return None
    half = event.text[: len(event.text) // 2]
    return msgspec.structs.replace(event, text=half, **({"tokens": (half,)} if isinstance(event, TokenEvent) else {}))


def test_wherever_the_log_ends_the_answer_is_whole_and_nothing_comes_twice(
    tmp_path: Path, rich: tuple[Past, LoopbackProvider, Asked]
) -> None:
    past, provider, asked = rich
    assert {type(event).__name__ for event in past.events} >= {
        *("TokenEvent", "ReasoningBlockClosed", "ServerToolCall", "ServerToolResult", "Citation", "MediaPart"),
        *("ProviderEvent", "ToolCallStarted", "ToolCallDelta", "ToolCallCompleted"),
    }
    ends: list[list[Event]] = [past.events[:count] for count in range(len(past.events))]
    ends += [[*past.events[:place], half] for place, each in enumerate(past.events) if (half := halves(each))]
    for number, end in enumerate(ends):
        found = past.taken_up(tmp_path / f"{number}.db", end)
        assert found[: len(end)] == end
        assert resets_in(found) == 0, len(end)
        assert said(found) == said(past.events), len(end)
    assert asked.count == 1
    assert len(kept_requests(provider)) == len(ends)


def test_a_log_of_larger_or_smaller_pieces_is_found_all_the_same(tmp_path: Path) -> None:
    asked = Asked(Answer(parts=PARTS))
    with LoopbackProvider(Script(asked)) as provider:
        past = Past(tmp_path / "first.db", provider, options=StreamOptions(batch_size=4, rate_limit=None))
        for count in range(len(past.events)):
            found = past.taken_up(tmp_path / f"{count}.db", past.events[:count])
            assert said(found) == said(past.events)
    assert asked.count == 1


# --- when it cannot be made certain ----------------------------------------------------------------------------------


def begun_anew(found: Sequence[Event], before: Sequence[Event], text: str) -> None:
    """The events before stand, then there is one reset, then all of another answer."""
    assert list(found[: len(before)]) == list(before)
    assert isinstance(found[len(before)], StreamReset)
    assert resets_in(found) == 1
    end = found[-1]
    assert isinstance(end, StreamCompleted)
    assert end.text == text
    assert "".join(event.text for event in found[len(before) :] if isinstance(event, TokenEvent)) == text


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[tuple[Past, LoopbackProvider, Asked]]:
    asked = Asked(Answer(WORDS))
    with LoopbackProvider(Script(asked)) as provider:
        yield Past(tmp_path / "first.db", provider), provider, asked


Plain = tuple[Past, LoopbackProvider, Asked]
Kept = Callable[[KeptResponses, str], Any]


def test_without_a_name_in_the_log_a_new_answer_begins_behind_a_reset(tmp_path: Path, plain: Plain) -> None:
    past, provider, _ = plain
    before = past.events[:5]
    for number, notes in enumerate([(), ({"answer": None},)]):
        found = past.taken_up(tmp_path / f"{number}.db", before, notes=notes)
        begun_anew(found, before, different(number + 2).text)
    assert not kept_requests(provider)


def test_an_answer_that_the_provider_has_no_more_begins_anew_behind_a_reset(
    tmp_path: Path, plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    past, provider, _ = plain
    monkeypatch.setattr(KeptResponses, "resume", lambda self, response_id: None)
    begun_anew(past.taken_up(tmp_path / "a.db", past.events[:5]), past.events[:5], different(2).text)
    assert len(kept_requests(provider)) == 1, "a 404 is not tried again"


@pytest.mark.parametrize("which", ["text", "name", "shorter", "kind"])
def test_another_answer_than_that_in_the_log_is_not_spliced(
    tmp_path: Path, plain: Plain, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    past, _, _ = plain
    usual = KeptResponses.resume

    def resume(self: KeptResponses, response_id: str) -> Any:
        found = usual(self, response_id)
        assert found is not None
        answer, context = found
        changes: dict[str, dict[str, Any]] = {
            "text": {"text": WORDS.replace("word3", "wort3")},
            "shorter": {"text": "word0 word1 "},
            "kind": {"text": "Well.", "reasoning": WORDS},
        }
        if which == "name":
            return answer, msgspec.structs.replace(context, number=context.number + 7)
        return answer.replace(**changes[which]), context

    monkeypatch.setattr(KeptResponses, "resume", resume)
    begun_anew(past.taken_up(tmp_path / "a.db", past.events[:5]), past.events[:5], different(2).text)


def test_a_log_without_tokens_that_were_dropped_is_not_continued(tmp_path: Path, plain: Plain) -> None:
    past, provider, _ = plain
    gap: list[Any] = [*past.events[:2], msgspec.structs.replace(past.events[2], dropped=3)]
    begun_anew(past.taken_up(tmp_path / "a.db", gap), gap, different(2).text)
    assert not kept_requests(provider)


def test_what_a_reset_has_voided_is_not_looked_for(tmp_path: Path, plain: Plain) -> None:
    past, _, asked = plain
    before = past.events[0]
    assert isinstance(before, TokenEvent)
    events: list[Event] = [
        msgspec.structs.replace(before, text="void", tokens=("void",)),
        StreamReset("s", 2, "by hand", 1.0, past.head.metadata),
        *(msgspec.structs.replace(event, seq=event.seq + 2) for event in past.events[:4]),
    ]
    found = past.taken_up(tmp_path / "a.db", events)
    assert resets_in(found) == 1
    assert said(found[2:]) == said(past.events)
    assert asked.count == 1


# --- when it takes more than one request -----------------------------------------------------------------------------


def test_a_connection_that_breaks_on_the_way_is_made_again_whether_or_not_all_of_the_log_had_come(
    tmp_path: Path,
) -> None:
    faults = ((ResetAfter(3),), (TruncateAfter(2),), (ResetAfter(20),), (TruncateAfter(4),))
    asked = Asked(Answer(WORDS, resumptions=faults))
    with LoopbackProvider(Script(asked)) as provider:
        past = Past(tmp_path / "first.db", provider, request_options=RESUME.replace(max_retries=6))
        found = past.taken_up(tmp_path / "a.db", past.events[:10])
        assert said(found) == said(past.events)
        assert len(kept_requests(provider)) == 5
    assert asked.count == 1


def test_an_answer_that_cannot_be_had_in_as_many_tries_as_are_allowed_begins_anew(tmp_path: Path) -> None:
    asked = Asked(Answer(WORDS, resumptions=((ResetAfter(1),),) * 3))
    with LoopbackProvider(Script(asked)) as provider:
        past = Past(tmp_path / "first.db", provider, request_options=RESUME.replace(max_retries=2))
        begun_anew(past.taken_up(tmp_path / "a.db", past.events[:9]), past.events[:9], different(2).text)
        assert len(kept_requests(provider)) == 3


def test_an_answer_of_which_nothing_has_come_needs_no_reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(Answer(WORDS))
    with LoopbackProvider(Script(asked)) as provider:
        past = Past(tmp_path / "first.db", provider)
        assert said(past.taken_up(tmp_path / "a.db", ())) == said(past.events)
        assert asked.count == 1
        monkeypatch.setattr(KeptResponses, "resume", lambda self, response_id: None)
        found = past.taken_up(tmp_path / "b.db", ())
        assert resets_in(found) == 0
        assert isinstance(found[-1], StreamCompleted)
        assert found[-1].text == different(2).text


def test_the_log_names_the_answer_that_it_has_and_no_other(tmp_path: Path) -> None:
    """A request that fails before its first piece has a name too: the next one's takes its place, or none does."""
    silent = Answer(WORDS, faults=(TruncateAfter(0),))
    asked = Asked([silent, Answer(WORDS)])
    with LoopbackProvider(Script(asked)) as provider:
        past = Past(tmp_path / "first.db", provider)
        assert asked.count == 2
        first, second = (request.number for request in provider.requests)
        name = past.head.facts["answer"]["name"]
        found = past.taken_up(tmp_path / "a.db", past.events[:3])
        assert said(found) == said(past.events)
        assert kept_requests(provider)[0].path.endswith(name)
        assert first < second


def test_an_answer_that_is_not_kept_takes_the_name_of_the_one_before_it_out_of_the_log(tmp_path: Path) -> None:
    first = Asked(Answer(WORDS, faults=(TruncateAfter(0),)))
    with LoopbackProvider(Script(first, models={"other": Answer("Not kept.")})) as provider:
        settings = Settings.load(providers={"ollama": {"base_url": provider.url}})
        options = RESUME.replace(fallback=("ollama/other",), max_retries=0)
        with penstock.System(settings, journal=SqliteJournal(tmp_path / "a.db")) as system:
            asked = Past.ask(system, provider, ask=system.chat, by="openai-responses", request_options=options)
            assert asked.result(10).text == "Not kept."
        with SqliteJournal(tmp_path / "a.db") as store:
            entries = store.read("s")
        notes = [
            decode_value(entry.data) for entry in entries if isinstance(entry, OwnerMark) and entry.reason == "note"
        ]
        assert notes
        assert read_log("s", entries).head.facts["answer"] is None


def test_an_answer_of_a_fallback_is_asked_for_at_the_fallback(tmp_path: Path) -> None:
    script = Script(Status(500), models={"other": Asked(Answer(WORDS))})
    with LoopbackProvider(script) as provider:
        options = RESUME.replace(fallback=("openai/other",), max_retries=0)
        past = Past(tmp_path / "first.db", provider, request_options=options)
        found = past.taken_up(tmp_path / "a.db", past.events[:3])
        assert said(found) == said(past.events)


def test_a_stream_that_may_not_go_on_stores_no_name(tmp_path: Path) -> None:
    for number, policy in enumerate(("fail", "restart")):
        with LoopbackProvider(Script(Asked(Answer(WORDS)))) as provider:
            options = RESUME.replace(on_interrupt=policy)
            past = Past(tmp_path / f"{number}.db", provider, request_options=options, background=True, store=True)
            assert "answer" not in past.head.facts


# --- more processes than two -----------------------------------------------------------------------------------------


def test_each_further_process_goes_on_where_the_one_before_has_ended(tmp_path: Path) -> None:
    """The answer stalls where each process is stopped; the last one gets the end."""
    stalls = tuple((StallAfter(count),) for count in (12, 18, 3))  # the third one before what the log has
    asked = Asked(Answer(WORDS, faults=(StallAfter(6),), resumptions=stalls))
    path = tmp_path / "a.db"
    with LoopbackProvider(Script(asked)) as provider:
        for number, words in enumerate((6, 12, 18, 18)):
            with penstock.System(Settings(), journal=SqliteJournal(path)) as system:
                stream = system.stream("s") if number else Past.ask(system, provider)
                eventually(lambda: stream.text.count("word") == words)  # noqa: B023
                eventually(lambda: len(kept_requests(provider)) == number)  # noqa: B023
                assert system._services.writer is not None
                assert system._services.writer.flush(10)
                left = system._services.writer.store.read("s")
            with SqliteJournal(path) as store:  # the system's stop has ended the stream: take that back
                store.forget("s")
                opening = left[0]
                assert isinstance(opening, OwnerMark)
                tail = EMPTY
                for entry in left:
                    opens = Request("s", "s") if entry is opening else None
                    assert store.append_all([Append("s", tail, entry, opens=opens, node="local")]) == [entry.id]
                    tail = entry.id
        with penstock.System(Settings(), journal=SqliteJournal(path)) as system:
            found = list(system.stream("s").events(after=0))
    assert resets_in(found) == 0
    assert found[-1].text == WORDS  # type: ignore[union-attr]
    assert "".join(event.text for event in found if isinstance(event, TokenEvent)) == WORDS
    assert asked.count == 1


def test_a_cancel_closes_the_connection_of_the_answer_that_was_taken_up(tmp_path: Path) -> None:
    asked = Asked(Answer(WORDS, resumptions=((StallAfter(9),),)))
    with LoopbackProvider(Script(asked)) as provider:
        past = Past(tmp_path / "first.db", provider)
        past.write(tmp_path / "a.db", past.events[:5])
        with penstock.System(Settings(), journal=SqliteJournal(tmp_path / "a.db")) as system:
            stream = system.stream("s")
            eventually(lambda: stream.text.count("word") == 9)
            closed = provider.statistics().client_disconnects
            stream.cancel()
            provider.wait_for(lambda statistics: statistics.client_disconnects > closed)
            eventually(lambda: stream.is_over)
            assert stream.text == " ".join(f"word{number}" for number in range(9))


def test_a_total_timeout_ends_it_with_what_the_log_has(tmp_path: Path) -> None:
    asked = Asked(Answer(WORDS, resumptions=((StallAfter(2),),)))
    with LoopbackProvider(Script(asked)) as provider:
        past = Past(tmp_path / "first.db", provider, request_options=RESUME.replace(total_timeout=1.0))
        found = past.taken_up(tmp_path / "a.db", past.events[:5])
    assert resets_in(found) == 0
    end = found[-1]
    assert isinstance(end, StreamFailed)
    assert end.partial == "".join(event.text for event in past.events[:5] if isinstance(event, TokenEvent))
