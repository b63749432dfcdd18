"""Fragments of function calls, in every way in which providers mark them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.actors.call import toolcalls
from penstock.actors.call.answer import OutcomeBuilder
from penstock.actors.call.toolcalls import ToolCallAccumulator
from penstock.errors import ApiError
from penstock.events import ToolCallCompleted, ToolCallDelta, ToolCallStarted, ToolEvent
from penstock.ports import ErrorDelta, FinishDelta, KeepAlive, TextDelta, ToolCallFragment
from tests.unit.flow.common import steps

D = ToolCallFragment


def calls(*deltas: ToolCallFragment) -> list[tuple[str, str, Any]]:
    accumulator = ToolCallAccumulator()
    for delta in deltas:
        accumulator.feed(delta)
    finished = accumulator.finish()
    assert len(finished) == len(accumulator)
    return [(call.id, call.name, call.arguments) for call in finished]


def test_S32_fragments_of_one_call_concatenate_exactly() -> None:
    accumulator = ToolCallAccumulator()
    for delta in (D(index=0, id="a", name="f", arguments='{"x": '), D(index=0, arguments=' "é\n'), D(index=0)):
        accumulator.feed(delta)
    (call,) = accumulator.finish()
    assert (call.arguments_raw, call.arguments) == ('{"x":  "é\n', None)


def test_S32_a_fragment_without_a_name_keeps_the_name() -> None:
    assert calls(D(index=0, id="a", name="f"), D(index=0, arguments="{}"), D(index=0, name="", arguments="")) == [
        ("a", "f", {})
    ]


def test_S32_parallel_calls_interleave_by_index() -> None:
    assert calls(
        D(index=0, id="a", name="f", arguments='{"x"'),
        D(index=1, id="b", name="g", arguments='{"y"'),
        D(index=0, arguments=": 1}"),
        D(index=1, arguments=": 2}"),
    ) == [("a", "f", {"x": 1}), ("b", "g", {"y": 2})]


def test_calls_come_in_the_order_in_which_they_began_not_by_index() -> None:
    assert [name for _, name, _ in calls(D(index=3, id="a", name="f"), D(index=1, id="b", name="g"))] == ["f", "g"]


def test_a_new_id_begins_a_new_call_though_every_index_is_0() -> None:
    assert calls(
        D(index=0, id="a", name="f", arguments='{"x": 1}'),
        D(index=0, id="b", name="f", arguments='{"x"'),
        D(index=0, arguments=": 2}"),
    ) == [("a", "f", {"x": 1}), ("b", "f", {"x": 2})]


def test_ids_alone_are_enough_and_may_be_repeated_with_every_fragment() -> None:
    assert calls(
        D(id="a", name="f", arguments="{"),
        D(id="b", name="g", arguments="{"),
        D(id="a", name="f", arguments="}"),
        D(id="b", arguments="}"),
    ) == [("a", "f", {}), ("b", "g", {})]


def test_an_id_that_all_calls_have_does_not_make_them_one() -> None:
    first = D(index=0, id="c", name="f", arguments='{"x": 1}')
    assert calls(first, D(index=1, id="c", name="f", arguments='{"x"'), D(index=1, arguments=": 2}")) == [
        ("c", "f", {"x": 1}),
        ("c_1", "f", {"x": 2}),
    ]
    for index in (0, 1, None):
        second = D(index=index, id="c", name="g", arguments='{"x"')
        assert calls(first, second, D(index=index, id="c", arguments=": 2}")) == [
            ("c", "f", {"x": 1}),
            ("c_1", "g", {"x": 2}),
        ]


def test_an_id_may_come_after_the_first_fragment() -> None:
    assert calls(D(index=0, name="f"), D(index=0, id="a", arguments="{}")) == [("a", "f", {})]
    assert calls(D(name="f"), D(id="a", arguments="{}")) == [("a", "f", {})]


def test_an_id_without_index_behind_a_call_that_has_one_begins_another() -> None:
    assert len(calls(D(index=0, id="a", name="f"), D(id="b", name="g"))) == 2


def test_without_index_and_id_all_belongs_to_the_last_call_until_a_second_name() -> None:
    assert calls(D(name="f", arguments='{"x"'), D(arguments=": 1}"), D(name="g", arguments="{"), D(arguments="}")) == [
        ("call_0", "f", {"x": 1}),
        ("call_1", "g", {}),
    ]


def test_another_name_under_the_same_index_and_no_id_is_another_call() -> None:
    assert calls(D(index=0, name="f", arguments="{}"), D(index=0, name="g", arguments="{}")) == [
        ("call_0", "f", {}),
        ("call_1", "g", {}),
    ]


def test_another_name_is_another_call_though_no_arguments_have_come() -> None:
    assert [name for _, name, _ in calls(D(index=0, name="f"), D(index=0, name="g"))] == ["f", "g"]


def test_a_second_object_with_the_same_name_and_index_and_no_id_is_another_call() -> None:
    assert calls(D(index=0, name="f", arguments='{"x": 1}'), D(index=0, name="f", arguments='{"x": 2}')) == [
        ("call_0", "f", {"x": 1}),
        ("call_1", "f", {"x": 2}),
    ]


def test_a_name_repeated_with_every_fragment_is_the_same_call() -> None:
    assert calls(
        D(index=0, name="f", arguments='{"x": '),
        D(index=0, name="f", arguments='{"y": '),
        D(index=0, name="f", arguments="1}}"),
    ) == [("call_0", "f", {"x": {"y": 1}})]


def test_arguments_may_come_before_the_name() -> None:
    assert calls(D(index=0, arguments="{"), D(index=0, name="f", arguments="}")) == [("call_0", "f", {})]


def test_an_empty_id_is_none() -> None:
    assert calls(D(index=0, id="a", name="f"), D(index=0, id="", arguments="{}")) == [("a", "f", {})]


@pytest.mark.parametrize("raw", ["", "  \n", "null", " null "])
def test_no_arguments_mean_that_none_are_needed(raw: str) -> None:
    accumulator = ToolCallAccumulator()
    accumulator.feed(D(index=0, id="a", name="f", arguments=raw))
    (call,) = accumulator.finish()
    assert (call.arguments, call.arguments_raw) == ({}, raw)


@pytest.mark.parametrize(
    "raw", ['{"x": 1', "{", '{"x": NaN}', '{"x": 1}}', "{'x': 1}", '{"x": "\ud800"}', "nul", "[" * 100_000]
)
def test_S35_arguments_that_are_not_complete_json_are_none_and_kept_as_they_came(raw: str) -> None:
    accumulator = ToolCallAccumulator()
    accumulator.feed(D(index=0, id="a", name="f", arguments=raw))
    (call,) = accumulator.finish()
    assert (call.arguments, call.arguments_raw) == (None, raw)


def test_finish_may_be_asked_at_any_time_and_again() -> None:
    accumulator = ToolCallAccumulator()
    assert accumulator.finish() == ()
    accumulator.feed(D(index=0, id="a", name="f", arguments="{"))
    assert accumulator.finish()[0].arguments is None
    accumulator.feed(D(index=0, arguments="}"))
    assert accumulator.finish() == accumulator.finish()
    assert accumulator.finish()[0].arguments == {}


@pytest.mark.parametrize(
    ("fragments", "told"),
    [
        ([D(index=0, id="a", name="f", arguments="{"), D(index=0, arguments="}")], [["+0 a f", "0 {"], ["0 }"]]),
        ([D(arguments="{"), D(arguments="}"), D(name="f")], [[], [], ["+0 call_0 f", "0 {}"]]),
        ([D(index=0, name="f"), D(index=0, id="a"), D(index=0, arguments="{}")], [[], ["+0 a f"], ["0 {}"]]),
        ([D(index=0, name="f"), D(index=1, name="g")], [[], ["+0 call_0 f"]]),
        ([D(index=0, name="f"), D(index=0, arguments="{}"), D(index=0, id="a")], [[], ["+0 call_0 f", "0 {}"], []]),
    ],
)  # fmt: skip
def test_a_call_is_told_as_it_grows(fragments: list[ToolCallFragment], told: list[list[str]]) -> None:
    def shown(event: object) -> str:
        if isinstance(event, ToolCallStarted):
            return f"+{event.index} {event.id} {event.name}"
        assert isinstance(event, ToolCallDelta)
        return f"{event.index} {event.text}"

    accumulator = ToolCallAccumulator()
    assert [[shown(event) for event in accumulator.feed(each)] for each in fragments] == told


JSON = st.dictionaries(st.text(max_size=3), st.one_of(st.integers(-5, 5), st.text(max_size=5), st.none()), max_size=4)


@given(st.lists(JSON, min_size=1, max_size=4), st.sampled_from(("both", "index", "id", "zero")), st.data())
def test_however_they_are_cut_and_marked_the_calls_are_whole(
    arguments: list[Any], marking: str, data: st.DataObject
) -> None:
    pending: list[list[ToolCallFragment]] = []
    for place, value in enumerate(arguments):
        raw = json.dumps(value)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=4)))
        pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
        index = None if marking == "id" else 0 if marking == "zero" else place
        its_id = None if marking == "index" else f"id{place}"
        pending.append(
            [
                D(
                    index=index,
                    id=its_id if not number or marking in ("id", "zero") else None,
                    name=None if number else f"f{place}",
                    arguments=piece,
                )
                for number, piece in enumerate(pieces)
            ]
        )
    accumulator = ToolCallAccumulator()
    for first in pending:
        accumulator.feed(first.pop(0))
    while any(pending):
        chosen = data.draw(st.sampled_from([one for one in pending if one]))
        accumulator.feed(chosen.pop(0))
    finished = accumulator.finish()
    assert [call.name for call in finished] == [f"f{place}" for place in range(len(arguments))]
    assert [call.arguments for call in finished] == arguments


@pytest.mark.parametrize("name", [None, "f"])
def test_its_work_grows_in_proportion_to_the_fragments(name: str | None) -> None:
    def work(count: int) -> None:
        accumulator = ToolCallAccumulator()
        accumulator.feed(D(index=0, id="a", name="f", arguments='{"x": "'))
        for _ in range(count):
            accumulator.feed(D(index=0, name=name, arguments="y"))
        accumulator.finish()

    assert steps(lambda: work(4000)) < 5 * steps(lambda: work(1000))


@pytest.mark.parametrize("start", ['{"x": "', "", '{"x": ['])
def test_fragments_that_look_like_whole_objects_are_parsed_once_at_most(
    start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    monkeypatch.setattr(toolcalls, "_parse", lambda raw: parsed.append(raw))

    def work(count: int) -> None:
        accumulator = ToolCallAccumulator()
        accumulator.feed(D(index=0, name="f", arguments=start + "{ }"))
        for _ in range(count):
            accumulator.feed(D(index=0, name="f", arguments="{ }"))
        assert len(accumulator) == 1

    assert steps(lambda: work(4000)) < 5 * steps(lambda: work(1000))
    assert len(parsed) <= 2


@pytest.mark.parametrize("value", [{"x": '\\"{'}, {"x": "\\"}, {'"': [{}, "}"]}])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_brackets_and_quotes_in_strings_do_not_hide_where_an_object_ends(value: Any, size: int) -> None:
    raw = json.dumps(value)
    pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
    fragments = [D(index=0, name="f", arguments=piece) for piece in pieces]
    last = D(index=0, name="f", arguments='{"y": 1}')
    assert calls(*fragments, last) == [("call_0", "f", value), ("call_1", "f", {"y": 1})]


def test_process_takes_every_delta_and_says_whether_more_may_come() -> None:
    accumulator = ToolCallAccumulator()
    assert accumulator.process(TextDelta("Let me see.")) == "continue"
    assert accumulator.process(D(index=0, id="a", name="f", arguments='{"x": 1}')) == "continue"
    assert accumulator.process(D(index=1, id="b", name="g")) == "continue"
    assert [call.arguments for call in accumulator.finalize()] == [{"x": 1}, None]  # g's may only not have come
    assert accumulator.process(FinishDelta("tool_calls", "tool_calls")) == "done"
    assert accumulator.process(KeepAlive()) == "done"
    assert [call.arguments for call in accumulator.finalize()] == [{"x": 1}, {}]


def test_an_error_is_the_end_whatever_else_comes() -> None:
    accumulator = ToolCallAccumulator()
    accumulator.process(D(index=0, id="a", name="f"))
    assert accumulator.process(ErrorDelta(ApiError(200, "overloaded"))) == "error"
    assert accumulator.process(FinishDelta("stop", "stop")) == "error"
    assert accumulator.finalize()[0].arguments is None


def test_a_new_id_without_a_name_continues_the_open_call_of_its_index() -> None:
    named = D(index=0, id="a", name="delete", arguments="")
    first, second = D(index=0, id="b", arguments='{"pattern": "tmp/'), D(index=0, id="b", arguments='*.log"}')
    assert calls(named, first, second) == [("a", "delete", {"pattern": "tmp/*.log"})]
    assert calls(named, first, D(index=0, id="c", arguments='*.log"}')) == [("a", "delete", {"pattern": "tmp/*.log"})]


def test_a_new_id_without_a_name_begins_a_call_where_the_one_of_its_index_is_complete() -> None:
    begun = calls(
        D(index=0, id="a", name="f", arguments='{"x": 1}'),
        D(index=0, id="b", arguments='{"x": 2}'),
        D(index=0, id="b", name="g"),
    )
    assert begun == [("a", "f", {"x": 1}), ("b", "g", {"x": 2})]


def test_a_new_id_at_another_index_or_with_a_name_begins_a_call_although_one_is_open() -> None:
    begun = D(index=0, id="a", name="f", arguments='{"x": ')
    assert calls(begun, D(index=1, id="b", name="f", arguments="{}"), D(index=0, arguments="1}")) == [
        ("a", "f", {"x": 1}),
        ("b", "f", {}),
    ]
    assert [call[0] for call in calls(begun, D(index=0, id="b", name="f", arguments="{}"))] == ["a", "b"]


def test_a_backslash_at_the_end_of_a_part_escapes_one_sign_of_the_next_however_often_it_is_asked() -> None:
    for ask in (1, 2):
        call = toolcalls._Call(0)
        for part, is_closed in (('{"x": "a\\', False), ('"}', False), ('"}', True), ("{", False), ("}", True)):
            call.parts.append(part)
            assert [call.is_closed() for _ in range(ask)] == [is_closed] * ask


# --- what takes the place of pieces -----------------------------------------------------------------------------------


def shown(events: list[ToolEvent]) -> list[str]:
    said = []
    for event in events:
        if isinstance(event, ToolCallStarted):
            said.append(f"+{event.index} {event.id} {event.name}")
        elif isinstance(event, ToolCallDelta):
            said.append(f"{event.index} {event.text}")
    return said


@pytest.mark.parametrize(
    ("whole", "rest"),
    [
        ('{"x": 1}', ["0 : 1}"]),
        ('{"x"', []),  # as before
        ('{"y": 2}', []),  # what was reported cannot be taken back
        ("", []),
    ],
)
def test_whole_arguments_take_the_place_of_the_pieces_and_only_what_is_new_is_reported(
    whole: str, rest: list[str]
) -> None:
    accumulator = ToolCallAccumulator()
    assert shown(accumulator.feed(D(index=0, id="a", name="f", arguments='{"x"'))) == ["+0 a f", '0 {"x"']
    assert shown(accumulator.feed(D(index=0, arguments=whole, replaces=True))) == rest
    assert accumulator.finish()[0].arguments_raw == whole
    (completed,) = accumulator.complete()
    assert isinstance(completed, ToolCallCompleted)
    assert completed.call.arguments_raw == whole


def test_whole_arguments_of_a_call_that_was_not_reported_are_reported_with_its_start() -> None:
    accumulator = ToolCallAccumulator()
    assert accumulator.feed(D(index=0, arguments="{")) == []
    assert accumulator.feed(D(index=0, arguments='{"x": 1}', replaces=True)) == []
    assert shown(accumulator.feed(D(index=0, id="a", name="f"))) == ["+0 a f", '0 {"x": 1}']
    assert accumulator.feed(D(index=1, name="g")) == []
    assert accumulator.feed(D(index=1, arguments="", replaces=True)) == []  # an id may still come
    assert shown(accumulator.feed(D(index=1, arguments="{}", replaces=True))) == ["+1 call_1 g", "1 {}"]


@pytest.mark.parametrize("pieces", [['{"s": "', "{ {"], ['{"a": [', "[ \\"], ["{}", "{}"]])
def test_after_whole_arguments_a_second_object_begins_another_call_whatever_the_pieces_were(pieces: list[str]) -> None:
    fragments = [D(index=0, name="f", arguments=piece) for piece in pieces[:1]]
    fragments += [D(index=0, arguments=piece) for piece in pieces[1:]]
    asked = D(index=0, name="f", arguments="{")  # has the brackets counted
    whole, second = D(index=0, arguments='{"x": 1}', replaces=True), D(index=0, name="f", arguments='{"x": 2}')
    accumulator = ToolCallAccumulator()
    for fragment in (*fragments, asked, whole, second):
        accumulator.feed(fragment)
    assert [call.arguments for call in accumulator.finish()][-2:] == [{"x": 1}, {"x": 2}]


def test_the_arguments_of_a_custom_tool_are_free_text_once_they_are_whole() -> None:
    accumulator = ToolCallAccumulator()
    accumulator.feed(D(index=0, id="a", name="f", arguments="1", type="custom"))
    accumulator.feed(D(index=0, signature="g"))
    accumulator.feed(D(index=0, arguments="2"))
    (call,) = accumulator.finish()
    assert (call.arguments, call.type, call.signature) == ("12", "custom", "g")
    assert accumulator.finish(is_whole=False)[0].arguments is None
    accumulator.feed(D(index=1, id="b", name="g", arguments="12"))
    assert [(call.arguments, call.type) for call in accumulator.finish()] == [("12", "custom"), (12, "function")]


def test_a_name_repeated_after_whole_arguments_is_the_same_call_if_no_object_comes_with_it() -> None:
    first = D(index=0, name="f", arguments='{"x": 1}')
    assert calls(first, D(index=0, name="f"), D(index=0, name="f", arguments=" ")) == [("call_0", "f", {"x": 1})]


def test_a_piece_that_only_looks_like_a_second_object_does_not_hide_the_second_one() -> None:
    assert calls(
        D(index=0, name="f", arguments='{"s": "}'),
        D(index=0, name="f", arguments='{"}'),
        D(index=0, name="f", arguments='{"s": ""}'),
    ) == [("call_0", "f", {"s": "}{"}), ("call_1", "f", {"s": ""})]


def test_a_new_id_without_an_index_begins_a_call_although_one_is_open() -> None:
    begun = calls(D(index=0, id="a", name="f", arguments='{"x": '), D(id="b", arguments="1}"))
    assert [call[0] for call in begun] == ["a", "b"]


def test_a_start_that_was_reported_with_the_end_of_the_answer_is_not_reported_again() -> None:
    accumulator = ToolCallAccumulator()
    accumulator.feed(D(index=0, name="f"))
    assert shown(accumulator.complete()) == ["+0 call_0 f"]
    assert accumulator.feed(D(index=0, id="late")) == []


def test_the_providers_own_calls_are_not_the_clients() -> None:
    accumulator = ToolCallAccumulator()
    for fragment in (D(id="a", name="f", is_server=True), D(id="b", name="g"), D(id="c", name="h"), D(id="a")):
        accumulator.feed(fragment)
    assert (len(accumulator), accumulator.client_calls) == (3, 2)
    assert [call.is_server for call in accumulator.finish()] == [True, False, False]


def test_a_call_without_an_id_waits_for_one_until_another_call_begins() -> None:
    accumulator = ToolCallAccumulator()
    accumulator.feed(D(index=1, id="b", name="g"))
    assert accumulator.feed(D(index=0, name="f")) == []
    assert accumulator.feed(D(index=1, id="b")) == []  # that one has begun before
    assert shown(accumulator.feed(D(index=2, name="h"))) == ["+1 call_1 f"]


class _Unread(list[Any]):
    """A list that can be added to, measured and cut, but not gone through as a whole."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("gone through as a whole")


class _Parts:
    """The same for the parts of a call: `str.join` does not ask a list to be gone through."""

    def __init__(self, parts: list[str]) -> None:
        self._parts = parts
        self.append = parts.append

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, place: slice) -> list[str]:
        return self._parts[place]

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("joined as a whole")


def test_a_fragment_with_a_new_id_does_not_go_through_the_arguments_before_it() -> None:
    calls = ToolCallAccumulator()
    calls.feed(ToolCallFragment(index=0, id="a", name="f", arguments='{"x": "'))
    call = calls._calls[0]
    before = call.parts
    call.parts = _Parts(before)  # type: ignore[assignment]
    for number in range(5):
        calls.feed(ToolCallFragment(index=0, id=f"a{number}", arguments="yz"))
    calls.feed(ToolCallFragment(index=0, id="end", arguments='"}'))
    call.parts = before
    assert [call.arguments for call in calls.finish()] == [{"x": "yz" * 5}]


def test_the_calls_that_the_client_runs_are_counted_as_they_come() -> None:
    calls = ToolCallAccumulator()
    calls._calls = _Unread()
    for index in range(6):
        calls.feed(ToolCallFragment(index=index, id=str(index), name="f", is_server=index % 3 == 0))
        calls.feed(ToolCallFragment(index=index, arguments="{}", is_server=index % 3 == 0))
    calls.feed(ToolCallFragment(index=1, arguments=" ", is_server=True))  # told late
    assert (len(calls), calls.client_calls) == (6, 3)


@pytest.mark.parametrize("first", [" ", "\n\t"])
def test_white_space_alone_is_no_arguments_for_a_fragment_with_a_new_id(first: str) -> None:
    calls = ToolCallAccumulator()
    for fragment in (
        ToolCallFragment(index=0, id="a", name="f", arguments=first),
        ToolCallFragment(index=0, id="b", arguments="{}"),
        ToolCallFragment(index=0, id="c", arguments=" "),
    ):
        calls.feed(fragment)
    assert [call.name for call in calls.finish()] == ["f", ""]


def test_missing_arguments_are_an_empty_object_only_after_a_finish_reason() -> None:
    accumulator = ToolCallAccumulator()
    accumulator.feed(D(index=0, id="a", name="f"))
    assert [call.arguments for call in accumulator.finish(is_finished=False)] == [None]
    assert [call.arguments for call in accumulator.finish(is_finished=True)] == [{}]


@pytest.mark.parametrize("is_finished", [True, False])
def test_an_end_marker_alone_does_not_complete_a_call_without_arguments(is_finished: bool) -> None:
    builder = OutcomeBuilder()
    builder.note(D(index=0, id="a", name="f"))
    if is_finished:
        builder.note(FinishDelta("stop", "stop"))
    completed = builder.complete()[-1]
    assert isinstance(completed, ToolCallCompleted)
    assert completed.call.arguments == builder.outcome().tool_calls[0].arguments == ({} if is_finished else None)


@pytest.mark.parametrize("index", [None, 1])
def test_missing_arguments_may_be_those_of_a_call_without_a_name(index: int | None) -> None:
    fragments = (D(index=index and 0, id="a", name="f"), D(index=index, id="b", arguments='{"x": 1}'))
    assert calls(*fragments) == [("a", "f", None), ("b", "", {"x": 1})]


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        (["c", "c", "c_1"], ["c", "c_1", "c_1_2"]),
        (["c", "c_1", "c"], ["c", "c_1", "c_2"]),
        (["c", "c_2", "c"], ["c", "c_2", "c_3"]),
        (["c", "c", "c"], ["c", "c_1", "c_2"]),
        (["call_1", None], ["call_1", "call_1_1"]),
        ([None, "call_0"], ["call_0", "call_0_1"]),
        (["call_2", None, None], ["call_2", "call_1", "call_2_2"]),
    ],
)
def test_no_two_calls_of_an_answer_have_the_same_id(given: list[str | None], ids: list[str]) -> None:
    accumulator = ToolCallAccumulator()
    started = []
    for place, id in enumerate(given):
        started += accumulator.feed(D(index=place, id=id, name="f", arguments=f'{{"x": {place}}}'))
    assert [(call.id, call.arguments) for call in accumulator.finish()] == [
        (id, {"x": place}) for place, id in enumerate(ids)
    ]
    assert [event.id for event in started if isinstance(event, ToolCallStarted)] == ids


def test_the_start_of_a_call_says_what_is_known_of_its_kind_by_then() -> None:
    calls = ToolCallAccumulator()
    calls.feed(ToolCallFragment(0, "a", "sql", type="custom"))
    calls.feed(ToolCallFragment(1, "b", "web_search", is_server=True))
    late = calls.feed(ToolCallFragment(2, "c", "f"))
    calls.feed(ToolCallFragment(2, is_server=True))
    assert [(event.call_type, event.is_server) for event in late if isinstance(event, ToolCallStarted)] == [
        ("function", False)
    ]
    again = ToolCallAccumulator()
    started = again.feed(ToolCallFragment(0, "a", "sql", type="custom"))
    started += again.feed(ToolCallFragment(1, "b", "web_search", is_server=True))
    assert [(one.call_type, one.is_server) for one in started if isinstance(one, ToolCallStarted)] == [
        ("custom", False),
        ("function", True),
    ]
    assert [(call.type, call.is_server) for call in calls.finish(is_whole=True)] == [
        ("custom", False),
        ("function", True),
        ("function", True),
    ]


def test_a_call_without_an_id_is_reported_when_another_one_begins_with_whole_arguments() -> None:
    accumulator = ToolCallAccumulator()
    assert accumulator.feed(D(index=0, name="f")) == []
    another = D(index=1, id="b", name="g", arguments="{}", replaces=True)
    assert shown(accumulator.feed(another)) == ["+0 call_0 f", "+1 b g", "1 {}"]


@pytest.mark.parametrize(
    ("first", "whole", "count"),
    [("", "{}", 2), ("{}", "", 1), ("{}", " ", 1), (" ", "{}", 2), ("{", "{}", 2), ("{}", "{", 1)],
)
def test_a_new_id_continues_a_call_of_which_the_whole_arguments_are_not_complete(
    first: str, whole: str, count: int
) -> None:
    accumulator = ToolCallAccumulator()
    accumulator.feed(D(index=0, id="a", name="f", arguments=first))
    accumulator.feed(D(index=0, arguments=whole, replaces=True))
    accumulator.feed(D(index=0, id="b", arguments="{}"))
    assert len(accumulator) == count


def test_its_size_is_that_of_names_ids_and_arguments_as_they_are_now() -> None:
    accumulator = ToolCallAccumulator()
    sizes = [accumulator.size]
    for fragment in (
        D(index=0, id="ab", name="f", arguments='{"x'),
        D(index=0, arguments='": 1'),
        D(index=0, arguments='{"x": 1}', replaces=True),
        D(index=0, arguments="", replaces=True),
    ):
        accumulator.feed(fragment)
        sizes.append(accumulator.size)
    assert sizes == [0, 6, 10, 11, 3]


def test_an_id_that_is_made_up_is_none_of_those_that_have_come() -> None:
    accumulator = ToolCallAccumulator()
    accumulator.feed(D(index=0, id="call_1"))  # its name comes later
    accumulator.feed(D(index=1, name="g", arguments="{}"))
    assert [call.id for call in accumulator.finish()] == ["call_1", "call_1_1"]


@pytest.mark.parametrize("name", [None, ""])
def test_a_known_id_without_a_name_continues_its_call_at_whatever_index(name: str | None) -> None:
    one, other = (D(index=index, id="a", name=name, arguments="{}") for index in (0, 1))
    accumulator = ToolCallAccumulator()
    accumulator.feed(one)
    accumulator.feed(other)
    assert [call.arguments_raw for call in accumulator.finish()] == ["{}{}"]


def test_a_known_id_without_an_index_continues_its_call() -> None:
    piece = D(id="a", name="f", arguments='{"x": 1}')
    assert calls(piece, piece) == [("a", "f", None)]


def test_a_new_id_continues_a_text_that_is_open() -> None:
    first, second = D(index=0, id="a", name="f", arguments='"open'), D(index=0, id="b", arguments=' and closed"')
    assert calls(first, second) == [("a", "f", "open and closed")]


@pytest.mark.parametrize(("provider", "signed_by"), [(None, ""), ("gemini", "gemini")])
def test_a_signature_is_of_the_provider_or_of_an_unknown_one(provider: str | None, signed_by: str) -> None:
    accumulator = ToolCallAccumulator()
    accumulator.feed(D(index=0, id="a", name="f", signature="s"))
    assert [call.signed_by for call in accumulator.finish(provider=provider)] == [signed_by]


@pytest.mark.parametrize(
    ("fragments", "arguments"),
    [
        ([D(index=0, id="a", arguments="{"), D(index=0, id="b", arguments="}")], ["{", "}"]),  # has no name
        (
            [
                D(index=0, id="a", name="f", arguments="{}"),
                D(index=0, arguments=" "),
                D(index=0, id="b", arguments="[]"),
            ],
            ["{} ", "[]"],
        ),
        ([D(index=0, id="a", name="f", arguments="{"), D(index=1, id="a", name="f", arguments="{}}")], ["{{}}"]),
        ([D(index=0, id="a", name="f", arguments="{}"), D(index=0, id="a", name="f", arguments="{}")], ["{}{}"]),
        ([D(index=0, id="a", name="f", arguments="{}"), D(index=1, id="a", name="f", arguments="{}")], ["{}", "{}"]),
    ],
)
def test_a_fragment_with_an_id_continues_a_call_or_begins_one(
    fragments: list[ToolCallFragment], arguments: list[str]
) -> None:
    accumulator = ToolCallAccumulator()
    for fragment in fragments:
        accumulator.feed(fragment)
    assert [call.arguments_raw for call in accumulator.finish()] == arguments


def test_no_arguments_are_an_empty_object_unless_the_model_has_not_finished() -> None:
    accumulator = ToolCallAccumulator()
    accumulator.feed(D(index=0, id="a", name="f"))
    ends = accumulator.complete(), accumulator.complete(is_finished=True), accumulator.complete(is_finished=False)
    completed = [events[-1] for events in ends]
    assert [event.call.arguments for event in completed if isinstance(event, ToolCallCompleted)] == [{}, {}, None]
