"""What a body of any protocol may say to Penstock itself: one parser, and so one answer everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from penstock.gateway.problems import RequestRefused
from penstock.gateway.requests import agui, anthropic, chat, native, responses, ui
from penstock.gateway.requests.asked import Asked

HI = {"role": "user", "content": "Hi"}


def _ui(own: Mapping[str, Any]) -> Asked:
    messages = [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]
    return ui.parse({"id": "c", "model": "m", "messages": messages, "penstock": own})


def _agui(own: Mapping[str, Any]) -> Asked:
    run = {"threadId": "t", "runId": "r", "messages": [{"id": "1", **HI}]}
    return agui.parse({**run, "forwardedProps": {"model": "m", "penstock": own}})


PARSERS: dict[str, Callable[[Mapping[str, Any]], Asked]] = {
    "openai": lambda own: chat.parse({"model": "m", "messages": [HI], "penstock": own}),
    "responses": lambda own: responses.parse({"model": "m", "input": "Hi", "penstock": own}),
    "anthropic": lambda own: anthropic.parse({"model": "m", "messages": [HI], "penstock": own}, "anthropic"),
    "ui": _ui,
    "agui": _agui,
}
PROTOCOLS = pytest.mark.parametrize("parse", PARSERS.values(), ids=PARSERS)


@PROTOCOLS
def test_every_protocol_reads_all_fields(parse: Callable[[Mapping[str, Any]], Asked]) -> None:
    asked = parse(
        {
            "provider": "openai",
            "stream_id": "s1",
            "on_orphan": 5,
            "metadata": {"a": 1},
            "options": {"batch_size": 2},
            "request_options": {"max_retries": 0},
            "approval": "wait",
        }
    )
    assert (asked.provider, asked.stream_id, asked.on_orphan) == ("openai", "s1", 5)
    assert asked.metadata["a"] == 1
    assert (asked.options, asked.request_options) == ({"batch_size": 2}, {"max_retries": 0})
    assert asked.waits_for_approval
    assert not parse({"approval": "deny"}).waits_for_approval
    assert parse({"provider": None, "metadata": None}).provider is None


@PROTOCOLS
@pytest.mark.parametrize(
    ("own", "param"),
    [
        ({"colour": "secret"}, "penstock.colour"),
        ({"a secret": 1}, "penstock.…"),
        ({"secret" * 20: 1}, "penstock.…"),
        ({"provider": ["secret"]}, "penstock.provider"),
        ({"stream_id": ""}, "penstock.stream_id"),
        ({"metadata": "secret"}, "penstock.metadata"),
        ({"options": []}, "penstock.options"),
        ({"on_orphan": "secret"}, "penstock.on_orphan"),
        ({"on_orphan": -1}, "penstock.on_orphan"),
        ({"on_orphan": 90_000}, "penstock.on_orphan"),
        ({"on_orphan": True}, "penstock.on_orphan"),
        ({"approval": "secret"}, "penstock.approval"),
    ],
)
def test_every_protocol_refuses_the_same_and_repeats_nothing(
    parse: Callable[[Mapping[str, Any]], Asked], own: Mapping[str, Any], param: str
) -> None:
    with pytest.raises(RequestRefused) as refused:
        parse(own)
    problem = refused.value.problem
    assert (problem.status, problem.param) == (400, param)
    assert problem.message.startswith(f"{param}: ")
    assert "secret" not in problem.message


OPTIONS = {"timeout": 5, "max_retries": 0, "extra_headers": {"x": "y"}, "extra_query": {}, "extra_body": {"b": 2}}


def _with_options(protocol: str) -> Asked:
    """A body with fields that have the names of call options, where the model's parameters stand."""
    if protocol == "agui":
        props = {"model": "m", **OPTIONS}
        return agui.parse({"threadId": "t", "runId": "r", "messages": [{"id": "1", **HI}], "forwardedProps": props})
    messages = [{"id": "1", **HI}]
    parsers: dict[str, Callable[[Mapping[str, Any]], Asked]] = {
        "openai": chat.parse,
        "responses": responses.parse,
        "anthropic": lambda body: anthropic.parse(body, "openai-chat"),
        "ui": ui.parse,
    }
    return parsers[protocol]({"model": "m", "messages": messages, "input": "Hi", **OPTIONS})


@pytest.mark.parametrize("protocol", PARSERS)
def test_no_field_of_the_models_is_an_option_of_the_call(protocol: str) -> None:
    parameters = dict(_with_options(protocol).parameters)
    sent = parameters.pop("extra_body", {})
    assert not parameters.keys() & OPTIONS.keys()
    assert protocol == "agui" or sent == OPTIONS, "only AG-UI's properties are the application's unless they are known"


def test_the_native_protocol_adds_the_entries_of_extra_body() -> None:
    asked = native.parse({"model": "m", "messages": [HI], "parameters": {**OPTIONS, "top_p": 1}})
    others = {name: value for name, value in OPTIONS.items() if name != "extra_body"}
    assert asked.parameters == {"top_p": 1, "extra_body": {"b": 2, **others}}
    for given, left in ((None, {}), (5, {"extra_body": {"extra_body": 5}}), ({}, {})):
        parameters = native.parse({"model": "m", "messages": [HI], "parameters": {"extra_body": given}}).parameters
        assert parameters == left


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"on_orphan": "secret"}, "on_orphan"), ({"stream_id": 3}, "stream_id"), ({"a secret": 1}, "…")],
)
def test_the_native_protocol_refuses_them_beside_the_messages(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        native.parse(fields)
    assert refused.value.problem.param == param
    assert "secret" not in refused.value.problem.message
