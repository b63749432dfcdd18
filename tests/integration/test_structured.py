"""Structured output: partial values while a stream runs, the validated model at its end."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator

import penstock
from penstock.ports import BlockStart, FinishDelta, RefusalDelta, TextDelta, ToolCallFragment
from penstock.testing import ScriptedAttempt, ScriptedProvider, SimulatedSystem
from penstock.toolbox.structured import PartialJson


class Step(BaseModel):
    text: str
    minutes: int


class Recipe(BaseModel):
    name: str
    steps: list[Step]


SAID = '{"name": "Tee", "steps": [{"text": "Wasser kochen", "minutes": 4}, {"text": "ziehen lassen", "minutes": 3}]}'
PIECES = [SAID[at : at + 5] for at in range(0, len(SAID), 5)]


def is_part(part: Any, whole: Any) -> bool:
    """Whether ``part`` is ``whole`` with things missing at its end."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and is_part(one, whole[key]) for key, one in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) <= len(whole) and all(map(is_part, part, whole))
    if isinstance(part, str):
        return isinstance(whole, str) and whole.startswith(part)
    if isinstance(part, int) and isinstance(whole, int):
        return str(whole).startswith(str(part))
    return bool(part == whole)


def test_partial_values_grow_to_the_whole_while_the_stream_runs() -> None:
    with penstock.System() as system:
        stream = system.open_stream(options=penstock.StreamOptions(batch_size=1, rate_limit=None))
        recipe = penstock.structured(stream, Recipe)
        for piece in PIECES:
            stream.process_token(piece)
        stream.stop()
        values = list(recipe)
        assert len(values) > 5
        assert all(is_part(value, json.loads(SAID)) for value in values)
        assert values[-1] == json.loads(SAID)
        assert recipe.result(timeout=5) == Recipe.model_validate_json(SAID)


def test_the_same_in_asyncio() -> None:
    async def read(recipe: penstock.Structured[Recipe]) -> tuple[list[Any], Recipe]:
        return [value async for value in recipe], await recipe.aresult()

    with penstock.System() as system:
        stream = system.open_stream(options=penstock.StreamOptions(batch_size=1, rate_limit=None))
        stream.process_tokens(PIECES)
        stream.stop()
        values, result = asyncio.run(read(penstock.structured(stream, Recipe)))
        assert values[-1] == json.loads(SAID)
        assert result.name == "Tee"


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (SAID[:-10], "JSON: "),
        ("I cannot do that.", "JSON: "),
        ('{"name": "Tee", "steps": [{"text": "a"}]}', "steps.0.minutes: missing"),
        ("", "JSON: "),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_with_where_and_why(said: str, problem: str) -> None:
    with penstock.System() as system:
        stream = system.open_stream()
        stream.process_token(said or " ")
        stream.stop()
        with pytest.raises(penstock.OutputInvalid) as refused:
            penstock.structured(stream, Recipe).result(timeout=5)
        assert any(one.startswith(problem) for one in refused.value.problems)
        assert refused.value.partial.strip() == said
        assert "cannot do that" not in str(refused.value)


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=7)


class Dog(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["dog"]


class Animals(BaseModel):
    names: dict[str, int] = {}
    found: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []

    @field_validator("names")
    @classmethod
    def check(cls, names: dict[str, int]) -> dict[str, int]:
        if "secret" in names:
            raise ValueError(f"{names} must not be said")
        return names


@pytest.mark.parametrize(
    ("said", "problems"),
    [
        ('{"found": [{"kind": "secret tag"}]}', ("found.0: union_tag_invalid",)),
        ('{"found": [{"kind": "dog", "secret name": 1}]}', ("found.0.*.*: extra_forbidden",)),
        ('{"found": [{"kind": "cat", "lives": 3}]}', ("found.0.*.lives: greater_than_equal",)),
        ('{"names": {"secret key": "secret value"}}', ("names.*: int_parsing",)),
        ('{"names": {"secret": 1}}', ("names: value_error",)),
        ('["secret item"]', ("JSON: model_type",)),
    ],
)
def test_nothing_of_the_answer_is_quoted(said: str, problems: tuple[str, ...]) -> None:
    with penstock.System() as system:
        stream = system.open_stream()
        stream.process_token(said)
        stream.stop()
        with pytest.raises(penstock.OutputInvalid) as refused:
            penstock.structured(stream, Animals).result(timeout=5)
    assert refused.value.problems == problems
    assert "secret" not in str(refused.value)
    assert "secret" not in repr(refused.value)


def test_a_fence_around_the_json_is_passed_over() -> None:
    with penstock.System() as system:
        stream = system.open_stream()
        stream.process_token(f"```json\n{SAID}\n```")
        stream.stop()
        assert penstock.structured(stream, Recipe).result(timeout=5).name == "Tee"


def test_a_reset_begins_the_value_again() -> None:
    with penstock.System() as system:
        stream = system.open_stream(options=penstock.StreamOptions(batch_size=1))
        stream.process_token('{"name": "Kaffee", "steps"')
        stream.flush_buffer()
        stream.reset("again")
        stream.process_tokens(PIECES)
        stream.stop()
        assert list(penstock.structured(stream, Recipe))[-1]["name"] == "Tee"
        assert penstock.structured(stream, Recipe).result(timeout=5).name == "Tee"


def test_a_failed_stream_raises_its_own_error() -> None:
    with penstock.System() as system:
        stream = system.open_stream()
        stream.cancel("enough")
        with pytest.raises(penstock.StreamCancelledError):
            penstock.structured(stream, Recipe).result(timeout=5)
        with pytest.raises(penstock.OptionError, match="output_type"):
            penstock.structured(stream, "no type")  # type: ignore[arg-type]


def test_looking_when_it_is_worth_it_reads_the_text_a_bounded_number_of_times() -> None:
    """Linear: all looks together parse at most 33 times the text, plus what the first thousand characters cost."""
    for length in (10_000, 100_000, 1_000_000):
        partial = PartialJson()
        partial.feed('{"text": "')
        read = 0
        at = 0
        while at < length:
            partial.feed("x" * 10)
            at += 10
            if partial.is_worth_a_look:
                read += len(partial.text)
                assert len(partial.value["text"]) == at
        assert read <= 34 * length + 1024 * 1024


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ),
    st.randoms(use_true_random=False),
)
def test_whatever_the_json_and_its_pieces_the_last_value_is_the_whole(whole: Any, cuts: random.Random) -> None:
    said = json.dumps({"value": whole})
    partial = PartialJson()
    while said:
        at = cuts.randint(1, len(said))
        partial.feed(said[:at])
        said = said[at:]
        assert partial.value is None or is_part(partial.value, {"value": whole})
    assert partial.value == {"value": whole}


def test_the_request_parameter_is_openais() -> None:
    asked = penstock.response_format(Recipe)
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["name"] == "Recipe"
    assert asked["json_schema"]["schema"]["required"] == ["name", "steps"]


def test_a_refusal_is_named_and_its_text_is_in_the_error() -> None:
    steps: list[Any] = [RefusalDelta("I cannot "), RefusalDelta("help with that.")]
    with SimulatedSystem() as system:
        stream = system.chat("m", "hi", provider=ScriptedProvider(steps))
        with pytest.raises(penstock.OutputInvalid, match="refused") as refused:
            penstock.structured(stream, Recipe).result(timeout=5)
    assert refused.value.partial == "I cannot help with that."
    assert "cannot help" not in str(refused.value)


def test_an_answer_beside_a_refusal_is_read() -> None:
    steps: list[Any] = [RefusalDelta("Well, "), TextDelta(SAID)]
    with SimulatedSystem() as system:
        stream = system.chat("m", "hi", provider=ScriptedProvider(steps))
        assert penstock.structured(stream, Recipe).result(timeout=5).name == "Tee"


@pytest.mark.parametrize(
    ("steps", "finish", "partial"),
    [
        ((), FinishDelta("refusal", "refusal"), ""),
        (("I cannot do that.",), FinishDelta("refusal", "refusal"), "I cannot do that."),
        (("3",), FinishDelta("refusal", "refusal"), "3"),
        (("{", RefusalDelta("no way")), FinishDelta("refusal", "refusal"), "no way"),
        (("{", RefusalDelta("no way")), FinishDelta("stop", "stop"), "no way"),
        (("Well. ", RefusalDelta("no way")), FinishDelta("stop", "stop"), "no way"),
    ],
)
def test_whatever_says_that_the_model_refused_the_error_says_so(
    steps: tuple[Any, ...], finish: FinishDelta, partial: str
) -> None:
    with SimulatedSystem() as system:
        stream = system.chat("m", "hi", provider=ScriptedProvider(ScriptedAttempt((*steps, finish), finish=None)))
        with pytest.raises(penstock.OutputInvalid, match="the model refused") as refused:
            penstock.structured(stream, int).result(timeout=5)
    assert refused.value.partial == partial


def test_a_content_filter_is_named_too() -> None:
    with SimulatedSystem() as system:
        attempt = ScriptedAttempt((SAID, FinishDelta("content_filter", "SAFETY")), finish=None)
        stream = system.chat("m", "hi", provider=ScriptedProvider(attempt))
        with pytest.raises(penstock.OutputInvalid, match="content filter") as refused:
            penstock.structured(stream, Recipe).result(timeout=5)
    assert refused.value.partial == SAID


COMMENT = BlockStart("text", phase="commentary")
FINAL = BlockStart("text", phase="final_answer")
PART = BlockStart("text")


@pytest.mark.parametrize(
    "steps",
    [
        (COMMENT, "Let me see.", FINAL, *PIECES),
        (COMMENT, "{}", FINAL, *PIECES[:3], BlockStart("text", phase="final_answer"), *PIECES[3:]),
        (COMMENT, "Let me see.", PART, *PIECES),
        (FINAL, *PIECES, COMMENT, "Done."),
        ("Looking.", PART, *PIECES),
        ("Looking.", PART, "Found.", PART, *PIECES),
        (*PIECES[:3], PART, *PIECES[3:]),
        (PART, *PIECES),
    ],
)
@pytest.mark.parametrize("is_late", [False, True])
def test_an_answer_in_parts_is_read_without_what_stands_around_it(steps: tuple[Any, ...], is_late: bool) -> None:
    options = penstock.StreamOptions(batch_size=1, rate_limit=None, retain_bytes=0 if is_late else 1_000_000)
    with SimulatedSystem() as system:
        provider = ScriptedProvider((*steps[:-1], *([1.0] if is_late else []), steps[-1]))
        stream = system.chat("m", "hi", provider=provider, options=options)
        if is_late:
            system.advance(0.5)
        recipe = penstock.structured(stream, Recipe)
        values = list(recipe)
        assert values[-1] == json.loads(SAID)
        assert all(is_part(value, json.loads(SAID)) for value in values)
        assert recipe.result(timeout=5).name == "Tee"


def test_only_the_answer_of_the_last_round_is_read_whatever_its_parts() -> None:
    def search() -> str:
        """Search."""
        return "found"

    called = ToolCallFragment(index=0, id="c", name="search", arguments="{}")
    first = ScriptedAttempt((SAID, called), finish="tool_calls")
    with SimulatedSystem() as system:
        provider = ScriptedProvider(first, ScriptedAttempt(("Found.", PART, "3")))
        agent = system.agent(model="m", provider=provider, tools=[search])
        assert penstock.structured(agent.stream_chat("hi"), int).result(timeout=5) == 3
