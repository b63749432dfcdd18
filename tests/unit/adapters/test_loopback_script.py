"""The pure part of the loopback provider: values, scripts, framing, timelines."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock.adapters.loopback as package
from penstock.adapters.loopback.chat_encoder import ChatEncoder
from penstock.adapters.loopback.encoder import AnswerContext, AnswerEncoder, to_usage
from penstock.adapters.loopback.faults import (
    DelayFirstByte,
    ErrorFrame,
    HangUp,
    HoldOpen,
    HugeEvent,
    InvalidUtf8,
    MalformedJson,
    NotAStream,
    ResetAfter,
    StallAfter,
    Status,
    TruncateAfter,
)
from penstock.adapters.loopback.framing import BodyFraming, Cutter
from penstock.adapters.loopback.ledger import Ledger, ReceivedRequest
from penstock.adapters.loopback.models import default_script
from penstock.adapters.loopback.responses_encoder import ResponsesEncoder
from penstock.adapters.loopback.script import Answer, Cycle, Playback, Script, ScriptedCall, split_text
from penstock.adapters.loopback.timeline import EndEarly, Head, ResetConnection, Stall, WaitUntil, stream_timeline
from penstock.errors import CallTimeout, OptionError
from penstock.events import Usage

CONTEXT = AnswerContext(number=1, model="m", created=0, input_tokens=3, include_usage=True)


def ask(model: str | None = "m", body: Any = None) -> ReceivedRequest:
    return ReceivedRequest(number=1, method="POST", path="/v1/chat/completions", model=model, body=body, headers={})


def said(reply: object) -> str:
    assert isinstance(reply, Answer)
    return reply.full_text


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Answer(7), "text"),  # type: ignore[arg-type]
        (lambda: Answer("\ud800"), "text"),
        (lambda: Answer(tokens=("a", 1)), "tokens"),  # type: ignore[arg-type]
        (lambda: Answer(tokens="abc"), "tokens"),  # type: ignore[arg-type]
        (lambda: Answer(repeat=-1), "repeat"),
        (lambda: Answer("", repeat=5), "repeat"),
        (lambda: Answer(finish_reason="because"), "finish_reason"),
        (lambda: Answer(usage=3), "usage"),  # type: ignore[arg-type]
        (lambda: Answer(send_usage="perhaps"), "send_usage"),  # type: ignore[arg-type]
        (lambda: Answer(pace=-0.1), "pace"),
        (lambda: Answer(pace=0.1, tokens_per_second=10), "tokens_per_second"),
        (lambda: Answer(tokens_per_second=0), "tokens_per_second"),
        (lambda: Answer(first_token_delay=-1), "first_token_delay"),
        (lambda: Answer(framing="smoke"), "framing"),  # type: ignore[arg-type]
        (lambda: Answer(split=0), "split"),
        (lambda: Answer(split=True), "split"),
        (lambda: Answer(split="words"), "split"),  # type: ignore[arg-type]
        (lambda: Answer(split=(3, 3)), "split"),
        (lambda: Answer(split=(0, 3)), "split"),
        (lambda: Answer(batch=0), "batch"),
        (lambda: Answer(events_per_chunk=0), "events_per_chunk"),
        (lambda: Answer(line_ending="\n\n"), "line_ending"),  # type: ignore[arg-type]
        (lambda: Answer(comments=-1), "comments"),
        (lambda: Answer(bom=1), "bom"),  # type: ignore[arg-type]
        (lambda: Answer(faults=(Status(500),)), "faults"),  # type: ignore[arg-type]
        (lambda: Answer(tool_calls=("f",)), "tool_calls"),  # type: ignore[arg-type]
        (lambda: ScriptedCall("f", 3), "arguments"),  # type: ignore[arg-type]
        (lambda: Status(200), "status"),
        (lambda: Status(503, retry_after=-1), "retry_after"),
        (lambda: Status(503, retry_after="a\r\nb: c"), "retry_after"),
        (lambda: HangUp(reset=2), "reset"),  # type: ignore[arg-type]
        (lambda: NotAStream(3), "body"),  # type: ignore[arg-type]
        (lambda: DelayFirstByte(-1), "seconds"),
        (lambda: StallAfter(-1), "tokens"),
        (lambda: StallAfter(1, seconds=-1), "seconds"),
        (lambda: ResetAfter(1.5), "tokens"),  # type: ignore[arg-type]
        (lambda: TruncateAfter(1, clean="yes"), "clean"),  # type: ignore[arg-type]
        (lambda: MalformedJson(-1), "after"),
        (lambda: ErrorFrame(1, code=1.5), "code"),  # type: ignore[arg-type]
        (lambda: InvalidUtf8(-1), "after"),
        (lambda: HugeEvent(0), "size"),
        (lambda: HoldOpen(-1), "seconds"),
        (lambda: Cycle(()), "replies"),
        (lambda: Script(replies=(3,)), "replies"),  # type: ignore[arg-type]
        (lambda: Script(replies=Answer), "replies"),  # type: ignore[arg-type]
        (lambda: Script(replies=()), "replies"),
        (lambda: Script(models={"m": 3}), "models['m']"),  # type: ignore[dict-item]
        (lambda: Script(answer=Status(500)), "answer"),  # type: ignore[arg-type]
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_name(make: Callable[[], object], field: str) -> None:
    with pytest.raises(OptionError) as caught:
        make()
    assert caught.value.field == field


@given(st.text())
def test_the_tokens_of_a_text_are_the_text(text: str) -> None:
    assert "".join(split_text(text)) == text


def test_a_list_is_kept_as_a_tuple_so_that_an_answer_cannot_change() -> None:
    assert Answer(tokens=["a", "b"]).tokens == ("a", "b")  # type: ignore[arg-type]


def test_an_answer_is_repeated_until_it_has_so_many_tokens() -> None:
    assert Answer(tokens=("a", "b"), repeat=5).full_text == "ababa"


def test_usage_counts_reasoning_text_and_fragments_of_arguments() -> None:
    answer = Answer("one two", reasoning="so so so", tool_calls=(ScriptedCall("f", '{"a": 12345}'),))
    assert to_usage(answer, CONTEXT) == Usage(
        input_tokens=3, output_tokens=2 + 3 + 2, total_tokens=10, reasoning_tokens=3, cached_tokens=0
    )


# --- which request gets which answer ---------------------------------------------------------------------------------


def test_replies_come_one_after_the_other_and_the_last_one_stays() -> None:
    playback = Playback(Script((Status(503), Answer("then"))))
    assert playback.reply(ask()) == Status(503)
    assert [said(playback.reply(ask())) for _ in range(3)] == ["then"] * 3


def test_a_cycle_begins_again() -> None:
    playback = Playback(Script(Cycle((Answer("a"), Answer("b")))))
    assert [said(playback.reply(ask())) for _ in range(5)] == list("ababa")


def test_a_model_has_replies_and_a_count_of_its_own() -> None:
    playback = Playback(Script(Answer("other"), {"m": (Answer("first"), Answer("second"))}))
    assert [said(playback.reply(ask(model))) for model in ("m", "x", "m", None)] == [
        "first",
        "other",
        "second",
        "other",
    ]


def test_a_function_sees_the_request_and_decides() -> None:
    playback = Playback(Script(lambda request: Answer(f"you said {request.last_user_text}")))
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, {"role": "assistant"}]}
    assert said(playback.reply(ask(body=body))) == "you said hi"


def test_a_bare_stream_fault_happens_to_the_scripts_own_answer() -> None:
    reply = Playback(Script(ResetAfter(2), answer=Answer("a b c"))).reply(ask())
    assert reply == Answer("a b c", faults=(ResetAfter(2),))


def test_a_function_that_gives_something_else_is_refused() -> None:
    with pytest.raises(OptionError, match="an Answer, a Replay or a fault"):
        Playback(Script(lambda request: "hello")).reply(ask())  # type: ignore[arg-type,return-value]


def test_the_table_in_the_docstring_names_every_model_of_the_default_script() -> None:
    assert package.__doc__ is not None
    table = re.findall(r"^``([a-z0-9-]+)``  ?", package.__doc__, re.MULTILINE)
    assert table == list(default_script().models)


def test_the_tools_model_calls_the_first_tool_and_then_tells_its_result() -> None:
    playback = Playback(default_script())
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    first = playback.reply(ask("tools", {"messages": [], "tools": tools}))
    assert isinstance(first, Answer)
    assert first.tool_calls[0].name == "look_up"
    messages = [{"role": "tool", "content": "12 °C"}]
    assert said(playback.reply(ask("tools", {"messages": messages, "tools": tools}))) == "The tool says: 12 °C"


# --- framing ---------------------------------------------------------------------------------------------------------


def dechunk(data: bytes) -> list[bytes]:
    chunks = []
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        chunks.append(data[:length])
        assert data[length : length + 2] == b"\r\n"
        data = data[length + 2 :]
    return chunks


SPLITS = st.one_of(
    st.none(),
    st.just("bytes"),
    st.integers(1, 40),
    st.sets(st.integers(1, 200), min_size=1).map(lambda offsets: tuple(sorted(offsets))),
)


@given(
    st.lists(st.binary(min_size=1, max_size=30), min_size=1),
    SPLITS,
    st.sampled_from(["chunked", "close", "length", "gzip"]),
    st.one_of(st.none(), st.integers(1, 5)),
    st.integers(1, 4),
    st.booleans(),
)
def test_whatever_the_framing_the_body_is_what_was_fed(
    events: list[bytes], split: Any, framing: Any, batch: int | None, per_chunk: int, flush: bool
) -> None:
    made = BodyFraming(framing, Answer(split=split, framing=framing, batch=batch, events_per_chunk=per_chunk))
    half = len(events) // 2
    writes = made.feed(events[:half], flush=flush) + made.feed(events[half:], flush=flush) + made.end()
    assert all(writes)
    body = b"".join(writes)
    if made.chunked:
        body = b"".join(dechunk(body))
    if framing == "gzip":
        body = zlib.decompress(body, wbits=31)
    assert body == b"".join(events)


def test_each_event_is_a_chunk_of_its_own_in_one_write() -> None:
    [write] = BodyFraming("chunked", Answer()).feed([b"one", b"two"], flush=True)
    assert dechunk(write) == [b"one", b"two"]


def test_a_batch_is_one_write_and_waits_until_it_is_full() -> None:
    framing = BodyFraming("close", Answer(batch=2))
    assert framing.feed([b"1", b"2", b"3"], flush=False) == [b"12"]
    assert framing.feed([b"4"], flush=False) == [b"34"]
    assert framing.feed([b"5"], flush=True) == [b"5"]


def test_events_can_share_a_chunk() -> None:
    [write] = BodyFraming("chunked", Answer(events_per_chunk=2)).feed([b"a", b"b", b"c"], flush=True)
    assert dechunk(write) == [b"ab", b"c"]


def test_cuts_are_counted_from_the_beginning_of_the_body() -> None:
    cutter = Cutter((2, 7))
    assert cutter.cut(b"abc", flush=True) == [b"ab", b"c"]
    assert cutter.cut(b"defghij", flush=False) == [b"defg", b"hij"]
    every = Cutter(4)
    assert every.cut(b"abcdef", flush=True) == [b"abcd", b"ef"]
    assert every.cut(b"ghij", flush=False) == [b"gh"]


# --- timelines -------------------------------------------------------------------------------------------------------


def chat(answer: Answer) -> Callable[[], AnswerEncoder]:
    return lambda: ChatEncoder(answer, CONTEXT)


def waits(answer: Answer) -> list[float]:
    """When each step that waits for a moment is due, in seconds since the request."""
    return [step.seconds for step in stream_timeline(answer, chat(answer)) if isinstance(step, WaitUntil)]


def test_deadlines_are_multiples_of_the_pace_so_that_delays_do_not_add_up() -> None:
    answer = Answer(tokens=tuple("abcd"), pace=0.5, first_token_delay=2)
    assert waits(answer) == [2, 2.5, 3, 3.5]


def test_a_paced_batch_is_due_when_its_last_token_is() -> None:
    answer = Answer(tokens=tuple("abcde"), tokens_per_second=1, batch=2)
    assert waits(answer) == [1, 3, 4]


def test_a_fast_answer_has_no_deadlines() -> None:
    assert waits(Answer()) == []


@pytest.mark.parametrize("encoder", [ChatEncoder, ResponsesEncoder])
@pytest.mark.parametrize("tokens", [0, 1, 3, 99])
def test_a_fault_comes_after_exactly_so_many_tokens(encoder: type[ChatEncoder | ResponsesEncoder], tokens: int) -> None:
    answer = Answer(tokens=("@0", "@1", "@2", "@3"), faults=(TruncateAfter(tokens, clean=True),))
    steps = list(stream_timeline(answer, lambda: encoder(answer, CONTEXT)))
    assert steps[-1] == EndEarly(clean=True)
    deltas = [step for step in steps if isinstance(step, bytes) and re.search(rb'"(content|delta)":"@\d"', step)]
    assert len(deltas) == min(tokens, 4)


def test_several_faults_of_one_answer_come_in_the_order_of_their_places() -> None:
    answer = Answer(tokens=("a", "b", "c"), faults=(ResetAfter(2), StallAfter(1, seconds=9)))
    steps = [step for step in stream_timeline(answer, chat(answer)) if isinstance(step, (Stall, ResetConnection, Head))]
    assert [type(step) for step in steps] == [Head, Stall, ResetConnection]


@pytest.mark.parametrize("fault", [None, ErrorFrame(1), TruncateAfter(1, clean=True), HugeEvent(99), MalformedJson(1)])
def test_the_length_announced_is_the_length_sent(fault: Any) -> None:
    answer = Answer(framing="length", timestamps=True, comments=2, bom=True, faults=(fault,) if fault else ())
    steps = list(stream_timeline(answer, chat(answer)))
    [head] = [step for step in steps if isinstance(step, Head)]
    assert int(dict(head.headers)["content-length"]) == sum(len(step) for step in steps if isinstance(step, bytes))


def test_the_length_announced_is_that_of_the_whole_answer_where_it_is_cut() -> None:
    answer = Answer(framing="length")
    cut = answer.replace(faults=(TruncateAfter(1),))
    lengths = []
    for each in (answer, cut):
        head = next(step for step in stream_timeline(each, chat(each)) if isinstance(step, Head))
        lengths.append(dict(head.headers)["content-length"])
    assert lengths[0] == lengths[1]


def test_events_of_a_response_are_numbered_without_gaps() -> None:
    answer = Answer("a b c", reasoning="so so", refusal="no", tool_calls=(ScriptedCall("f", '{"x": "abcdefgh"}'),))
    steps = [
        step for step in stream_timeline(answer, lambda: ResponsesEncoder(answer, CONTEXT)) if isinstance(step, bytes)
    ]
    numbers = [msgspec.json.decode(step.split(b"data: ")[1])["sequence_number"] for step in steps]
    assert numbers == list(range(len(steps)))


# --- the ledger ------------------------------------------------------------------------------------------------------


def test_waiting_for_what_does_not_come_says_what_there_is() -> None:
    ledger = Ledger(history=2)
    with pytest.raises(CallTimeout, match="requests=0"):
        ledger.wait_for(lambda statistics: statistics.requests == 1, timeout=0.01)


def test_only_the_latest_requests_are_kept_but_all_are_counted() -> None:
    ledger = Ledger(history=2)
    for _ in range(3):
        ledger.record(ask())
    assert (len(ledger.requests), ledger.statistics().requests) == (2, 3)
