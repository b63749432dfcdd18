"""The model ``tools`` of the loopback provider calls any function as its schema says."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest

import penstock
from penstock.adapters.loopback.models import default_script
from penstock.adapters.loopback.request import ReceivedRequest
from penstock.adapters.loopback.script import Answer

WEATHER = {"city": "Zürich", "unit": "°C"}


def called_with(*tools: Any) -> Any:
    """Return the arguments of the call that answers a request with these tools."""
    body = {"model": "tools", "tools": list(tools), "messages": [{"role": "user", "content": "Hello"}]}
    request = ReceivedRequest(
        number=1, method="POST", path="/v1/chat/completions", model="tools", body=body, headers={}
    )
    reply = default_script().models["tools"]
    assert callable(reply)
    answer = reply(request)
    assert isinstance(answer, Answer)
    return json.loads(answer.tool_calls[0].arguments)


def function(parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


def nothing() -> None: ...
def numbers(a: int, b: float, c: int = 3) -> None: ...
def many(on: bool, names: list[str], of: dict[str, int], word: str, unit: Literal["°F"], city: str = "") -> None: ...


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        (nothing, {}),
        (numbers, {"a": 17, "b": 17}),
        (many, {"on": True, "names": [], "of": {}, "word": "water", "unit": "°F", "city": "Zürich"}),
    ],
)
def test_a_function_of_ones_own_is_called_with_what_it_takes(tool: Any, arguments: Any) -> None:
    ours = penstock.tool(tool)
    assert called_with(function(ours.parameters)) == arguments
    ours.check(arguments)


@pytest.mark.parametrize(
    "parameters",
    [None, 7, {}, {"type": "object"}, {"properties": 7}, {"properties": {}}, {"type": "object", "properties": []}],
)
def test_one_that_does_not_say_what_it_takes_is_asked_for_the_weather(parameters: Any) -> None:
    assert called_with(function(parameters)) == WEATHER
    assert called_with() == WEATHER


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (7, "water"),
        ({"type": ["integer", "null"]}, 17),
        ({"type": []}, "water"),
        ({"type": "null"}, None),
        ({"type": {}, "enum": 7}, "water"),
        ({"$ref": "#/$defs/Step"}, "water"),
    ],
)
def test_a_schema_that_is_odd_breaks_nothing(schema: Any, value: Any) -> None:
    assert called_with(function({"properties": {"x": schema}, "required": ["x"]})) == {"x": value}
    assert called_with(function({"properties": {"x": schema}, "required": 7})) == {}


@pytest.mark.parametrize(
    "tool",
    [
        {"name": "f", "input_schema": {"properties": {"n": {"type": "integer"}}, "required": ["n"]}},
        {"functionDeclarations": [
            {"name": "f", "parametersJsonSchema": {"properties": {"n": {"type": "integer"}}, "required": ["n"]}}
        ]},
        {"type": "function", "name": "f", "parameters": {"properties": {"n": {"type": "integer"}}, "required": ["n"]}},
    ],
    ids=["anthropic", "gemini", "responses"],
)  # fmt: skip
def test_the_schema_is_found_in_each_api_s_form(tool: Any) -> None:
    assert called_with(tool) == {"n": 17}
