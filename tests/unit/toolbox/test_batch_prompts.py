"""The forms in which a prompt of a batch may be given."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import OptionError
from penstock.ports.batch import BatchPrompt
from penstock.toolbox.batch.prompts import read_prompt

MESSAGES = [{"role": "user", "content": "Why?"}]


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ("Why?", BatchPrompt(input="Why?")),
        (MESSAGES, BatchPrompt(input=MESSAGES)),
        ({"prompt": "Why?"}, BatchPrompt(input="Why?")),
        ({"id": 7, "messages": MESSAGES}, BatchPrompt(id=7, input=MESSAGES)),
        (
            {"id": "q", "prompt": "Why?", "model": "m", "params": {"temperature": 0}, "metadata": {"a": 1}},
            BatchPrompt(id="q", input="Why?", model="m", parameters={"temperature": 0}, metadata={"a": 1}),
        ),
        (
            {"prompt": "Why?", "system": "Be brief."},
            BatchPrompt(input=[{"role": "system", "content": "Be brief."}, *MESSAGES]),
        ),
        (
            {
                "custom_id": "c",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "m", "messages": MESSAGES, "max_tokens": 5, "stream": False},
            },
            BatchPrompt(id="c", input=MESSAGES, model="m", parameters={"max_tokens": 5}),
        ),
        (
            {"custom_id": "c", "url": "/v1/responses", "body": {"model": "m", "input": "Why?"}},
            BatchPrompt(id="c", input="Why?", model="m", responses=True),
        ),
    ],
)
def test_a_prompt_is_taken_in_each_of_its_forms(form: Any, wanted: BatchPrompt) -> None:
    assert read_prompt(form) == wanted


@pytest.mark.parametrize(
    ("form", "complaint"),
    [
        ({}, "there is no prompt"),
        ({"prompt": ""}, "prompt: got an empty text"),
        ({"prompt": 7}, "prompt: got a value of type int"),
        ({"prompt": "a", "messages": MESSAGES}, "prompt and messages are both there"),
        ({"messages": []}, "messages: got an empty list"),
        ({"messages": [{"role": "usr", "content": "x"}]}, "messages[0]"),
        ({"prompt": "a", "id": 1.5}, "id: got a value of type float"),
        ({"prompt": "a", "id": True}, "id: got a value of type bool"),
        ({"prompt": "a", "id": ""}, "id: got 0 characters"),
        ({"prompt": "a", "temperature": 0}, "temperature: unknown field; known: id, prompt"),
        ({"promt": "a"}, "unknown field (did you mean 'prompt'?)"),
        ({"prompt": "a", "params": {"stream_id": "x"}}, "params.stream_id: is not a parameter"),
        ({"prompt": "a", "params": []}, None),
        ({"prompt": "a", "params": [1]}, "params: got a value of type list"),
        ({"custom_id": "c", "url": "/v1/embeddings", "body": {}}, "url: got '/v1/embeddings'"),
        ({"custom_id": "c", "method": "GET", "body": {}}, "method: got 'GET'"),
        ({"custom_id": "c", "body": None}, "body: got a value of type NoneType"),
        ({"custom_id": "c", "body": {"messages": []}}, "body.messages: got an empty list"),
        (7, "messages: got"),
    ],
)
def test_a_prompt_in_no_form_is_refused_by_name(form: Any, complaint: str | None) -> None:
    if complaint is None:  # an empty list of parameters means none
        assert read_prompt(form).parameters == {}
        return
    with pytest.raises(OptionError) as raised:
        read_prompt(form)
    assert complaint in str(raised.value)
