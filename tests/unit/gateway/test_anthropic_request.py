"""Bodies of Anthropic's messages as calls, and what providers make of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.providers.anthropic.provider import AnthropicMessages
from penstock.adapters.providers.gemini.provider import Gemini
from penstock.adapters.providers.ollama.provider import OllamaChat
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.adapters.providers.openai.responses_provider import OpenAiResponses
from penstock.config.providers import Dialect
from penstock.events import ReasoningBlock
from penstock.gateway.answers.anthropic import answer
from penstock.gateway.answers.anthropic_parts import seal
from penstock.gateway.problems import RequestRefused
from penstock.gateway.requests.anthropic import parse
from penstock.gateway.requests.asked import Asked
from penstock.ports import ChatCall, Provider, Secret
from tests.unit.gateway.chat_made import completed, opened

HI = {"role": "user", "content": "Hi"}
KEY = Secret("sk-test-0123456789")
PROVIDERS: dict[Dialect, Provider] = {
    "openai-chat": OpenAiChat(KEY, "http://127.0.0.1/v1"),
    "openai-responses": OpenAiResponses(KEY, "http://127.0.0.1/v1"),
    "anthropic": AnthropicMessages(KEY, "http://127.0.0.1"),
    "gemini": Gemini(KEY, "http://127.0.0.1"),
    "ollama": OllamaChat(KEY, "http://127.0.0.1"),
}
OTHERS: list[Dialect] = ["openai-chat", "openai-responses", "gemini", "ollama"]


def asked(dialect: Dialect = "openai-chat", **body: Any) -> Asked:
    return parse({"model": "m", "max_tokens": 10, "messages": [HI], **body}, dialect)


def request_of(one: Asked, dialect: Dialect, provider: str = "") -> dict[str, Any]:
    """The body that a provider is sent."""
    parameters = {name: value for name, value in one.parameters.items() if name != "extra_body"}
    call = ChatCall(model=one.model, input=one.input, parameters=parameters, provider=provider or dialect)
    body: dict[str, Any] = json.loads(PROVIDERS[dialect].request(call).body)
    return body


def content_of(*blocks: Any, dialect: Dialect = "openai-chat", role: str = "user") -> Any:
    return asked(dialect, messages=[{"role": role, "content": list(blocks)}]).input


# --- for Anthropic itself ---------------------------------------------------------------------------------------------

PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}}
WHOLE = {
    "model": "claude-x",
    "max_tokens": 100,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Look"}, PICTURE]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "ZGF0YQ=="},
                {"type": "text", "text": "I search."},
                {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"q": 1}},
                {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
                {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "is_error": True,
                    "content": [{"type": "text", "text": "no"}, PICTURE],
                },
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}},
            ],
        },
    ],
    "metadata": {"user_id": "u"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
    "stop_sequences": ["!"],
    "temperature": 1.0,
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "tools": [
        {"name": "f", "description": "d", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
    ],
    "top_k": 5,
    "top_p": 0.9,
    "container": {"skills": []},
    "context_management": {"edits": []},
    "something_new": [1],
}


def test_a_body_reaches_anthropic_unchanged() -> None:
    one = parse({**WHOLE, "stream": True}, "anthropic")
    assert one.is_streamed
    assert one.dropped == ()
    assert request_of(one, "anthropic") == {**WHOLE, "stream": True}


BLOCKS = st.sampled_from(WHOLE["messages"][1]["content"])  # type: ignore[index]


@given(st.lists(BLOCKS, max_size=6))
def test_an_assistants_blocks_reach_anthropic_in_their_order(blocks: list[Any]) -> None:
    content = [*blocks, {"type": "text", "text": "end"}]
    body = request_of(asked("anthropic", messages=[HI, {"role": "assistant", "content": content}, HI]), "anthropic")
    assert body["messages"][1]["content"] == content


def test_beta_features_of_the_header_and_of_the_body_are_joined() -> None:
    one = parse({"model": "m", "messages": [HI], "anthropic_beta": "a"}, "anthropic", beta=["b", "a", ""])
    assert one.parameters["anthropic_beta"] == ["a", "b"]
    assert "anthropic_beta" not in asked("anthropic").parameters


def test_what_anthropic_has_not_made_does_not_reach_it() -> None:
    foreign = seal(ReasoningBlock(kind="reasoning", signature="e", provider="openai-responses"))
    location = {"type": "web_search_result_location", "url": "u", "title": "t", "cited_text": "c"}
    page = {"type": "page_location", "document_index": 0}
    content = [
        {"type": "thinking", "thinking": "hm", "signature": foreign},
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "a", "citations": [{**location, "encrypted_index": ""}]},
        {"type": "text", "text": "b", "citations": [{**location, "encrypted_index": "e"}, page]},
    ]
    body = request_of(asked("anthropic", messages=[HI, {"role": "assistant", "content": content}]), "anthropic")
    assert body["messages"][1]["content"] == [{"type": "text", "text": "a"}, content[3]]


# --- for others: the conversation -------------------------------------------------------------------------------------


def test_the_system_prompt_is_a_message() -> None:
    assert asked(system="Be brief.").input == [{"role": "system", "content": "Be brief."}, HI]
    one = asked(system=[{"type": "text", "text": "a", "cache_control": {}}, {"type": "text", "text": "b"}])
    assert one.input[0] == {"role": "system", "content": "a\n\nb"}
    assert one.dropped == ("system[0].cache_control",)
    assert asked(system="").input == [HI]
    assert asked(system=[]).input == [HI]


def test_text_and_pictures() -> None:
    assert content_of({"type": "text", "text": "Look"}) == [{"role": "user", "content": "Look"}]
    address = {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}}
    assert content_of({"type": "text", "text": "Look"}, PICTURE, address)[0]["content"] == [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}},
        {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
    ]


def test_documents() -> None:
    text = {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "d"}}
    assert content_of(text) == [{"role": "user", "content": "T\n\nd"}]
    parts = {"type": "document", "context": "c", "source": {"type": "content", "content": [PICTURE]}}
    assert [part["type"] for part in content_of(parts)[0]["content"]] == ["text", "image_url"]
    file = {
        "type": "document",
        "title": "a.pdf",
        "context": "c",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "QQ=="},
    }
    assert content_of(file)[0]["content"] == [
        {"type": "text", "text": "c"},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QQ=="}},
    ]
    address = {"type": "document", "source": {"type": "url", "url": "https://a.example/a.pdf"}}
    assert content_of(address, dialect="openai-responses")[0]["content"] == [
        {"type": "input_file", "file_url": "https://a.example/a.pdf"}
    ]
    found = {"type": "search_result", "title": "T", "source": "s", "content": [{"type": "text", "text": "x"}]}
    assert content_of(found) == [{"role": "user", "content": "T\ns\nx"}]


def test_files_that_anthropic_keeps_cannot_be_told_to_others() -> None:
    kept = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
    one = asked(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, kept, {"type": "odd"}]}])
    assert one.input == [{"role": "user", "content": "a"}]
    assert one.dropped == ("messages[0].content[1]", "messages[0].content[2]")


def test_a_pdf_reaches_gemini_as_data() -> None:
    file = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "QQ=="}}
    body = request_of(asked("gemini", messages=[{"role": "user", "content": [file]}]), "gemini")
    assert body["contents"][0]["parts"] == [{"inlineData": {"mimeType": "application/pdf", "data": "QQ=="}}]


def test_results_of_calls_follow_the_calls_directly() -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "1"}
    messages = [
        {"role": "assistant", "content": [{"type": "text", "text": "I "}, {"type": "text", "text": "call."}, use]},
        {"role": "user", "content": [{"type": "text", "text": "Go on"}, result]},
    ]
    assert asked(messages=messages).input == [
        {
            "role": "assistant",
            "content": "I call.",
            "tool_calls": [
                {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "1"},
        {"role": "user", "content": "Go on"},
    ]


def test_a_result_keeps_that_it_is_an_error_and_its_parts() -> None:
    result = {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "is_error": True,
        "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
    }
    assert content_of(result) == [{"role": "tool", "tool_call_id": "toolu_1", "content": "a\nb", "is_error": True}]
    empty = {"type": "tool_result", "tool_use_id": "toolu_1"}
    assert content_of(empty) == [{"role": "tool", "tool_call_id": "toolu_1", "content": ""}]


def test_pictures_of_a_result_go_where_the_provider_takes_them() -> None:
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [PICTURE]}
    told, user = content_of(result)
    assert told == {
        "role": "tool",
        "tool_call_id": "toolu_1",
        "content": "The result is in the next message.",
    }
    assert [part["type"] for part in user["content"]] == ["text", "image_url"]
    (kept,) = content_of(result, dialect="openai-responses")
    assert [part["type"] for part in kept["content"]] == ["image_url"]


def test_signed_thinking_and_server_tools_are_kept_for_anthropic_in_their_places() -> None:
    content = WHOLE["messages"][1]["content"]  # type: ignore[index]
    one = asked(messages=[HI, {"role": "assistant", "content": content}])
    blocks = one.input[1]["provider_blocks"]
    assert [(block["data"], block["at"], block["calls"]) for block in blocks] == [
        (content[0], 0, 0),
        (content[1], 0, 0),
        (content[3], 9, 0),
        (content[4], 9, 0),
    ]
    sent = request_of(one, "openai-chat")["messages"][1]
    assert set(sent) == {"role", "content", "tool_calls"}
    back = asked(messages=[HI, {"role": "assistant", "content": content}, HI])
    assert request_of(back, "anthropic")["messages"][1]["content"] == content


def test_the_reasoning_of_another_provider_goes_back_to_it() -> None:
    block = ReasoningBlock(kind="reasoning", text="hm", signature="ZW5j", id="rs_1", provider="openai-responses")
    content = [{"type": "thinking", "thinking": "hm", "signature": seal(block)}, {"type": "text", "text": "a"}]
    one = asked("openai-responses", messages=[HI, {"role": "assistant", "content": content}, HI])
    body = request_of(one, "openai-responses")
    assert body["input"][1]["encrypted_content"] == "ZW5j"
    unsigned = [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "a"}]
    lost = asked(messages=[{"role": "assistant", "content": unsigned}])
    assert (lost.input, lost.dropped) == ([{"role": "assistant", "content": "a"}], ("messages[0].content[0]",))


# --- for others: parameters -------------------------------------------------------------------------------------------


def test_tools_become_functions_and_anthropics_own_are_named_as_dropped() -> None:
    one = asked(tools=WHOLE["tools"], tool_choice=WHOLE["tool_choice"])
    assert one.parameters["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    ]
    assert one.parameters["parallel_tool_calls"] is False
    assert one.dropped == ("tools[0].cache_control", "tools[1]")
    own = asked(tools=[WHOLE["tools"][1]], tool_choice={"type": "any"})  # type: ignore[index]
    assert not own.parameters.keys() & {"tools", "tool_choice"}


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        ({"type": "tool", "name": "other"}, None),
        (None, None),
    ],
)
def test_the_choice_among_tools(choice: Any, told: Any) -> None:
    assert asked(tools=[{"name": "f"}], tool_choice=choice).parameters.get("tool_choice") == told


def test_limits_stops_and_the_user() -> None:
    one = asked(stop_sequences=["!"], metadata={"user_id": "u", "more": 1}, top_p=0.5, something_new=1)
    assert one.parameters == {"max_tokens": 10, "stop": ["!"], "user": "u", "top_p": 0.5, "something_new": 1}
    assert one.dropped == ("metadata.more",)
    assert asked(model="gpt-5-mini").parameters == {"max_completion_tokens": 10}
    assert asked(model="openai/o3").parameters == {"max_completion_tokens": 10}
    assert asked(model="gpt-4o").parameters == {"max_tokens": 10}


@pytest.mark.parametrize(
    ("body", "effort"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 8000}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 32_000}}, "high"),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, None),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}}, "medium"),
        ({"output_config": {"effort": "max"}}, "xhigh"),
        ({"thinking": {"type": "adaptive"}}, None),
    ],
)
def test_how_hard_the_model_is_to_think(body: Any, effort: str | None) -> None:
    assert asked(**body).parameters.get("reasoning_effort") == effort
    reasoning = asked("openai-responses", **body).parameters.get("reasoning")
    assert reasoning == (None if effort is None else {"effort": effort, "summary": "auto"})


def test_thinking_as_gemini_and_ollama_are_told() -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    config = request_of(asked("gemini", thinking=thinking), "gemini")["generationConfig"]
    assert config["thinkingConfig"] == {"includeThoughts": True, "thinkingBudget": 1024}
    level = asked("gemini", output_config={"effort": "max"}).parameters["generation_config"]["thinkingConfig"]
    assert level == {"includeThoughts": True, "thinkingLevel": "high"}
    assert request_of(asked("ollama", thinking=thinking), "ollama")["think"] is True
    assert request_of(asked("ollama", thinking={"type": "disabled"}), "ollama")["think"] is False


def test_the_format_of_the_answer() -> None:
    schema = {"type": "object"}
    one = asked(output_config={"format": {"type": "json_schema", "schema": schema}, "odd": 1})
    assert one.parameters["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }
    assert one.dropped == ("output_config.odd",)


def test_the_older_name_of_the_format_is_read_and_never_sent() -> None:
    wanted, other = ({"type": "json_schema", "schema": {"title": title}} for title in ("a", "b"))
    for dialect in OTHERS:
        one = asked(dialect, output_config={"format": wanted}, output_format=other)
        assert one.parameters["response_format"]["json_schema"]["schema"] == wanted["schema"]
        assert "output_format" not in request_of(one, dialect)
        assert one.dropped == ("output_format",)
    same = asked(output_format=wanted)
    assert (same.parameters["response_format"]["json_schema"]["schema"], same.dropped) == (wanted["schema"], ())
    assert asked(output_config={"format": wanted}, output_format=wanted).dropped == ()
    assert asked(output_format={"type": "yaml"}).dropped == ("output_format",)


@pytest.mark.parametrize("kind", [[], {}, 5, None])
def test_a_block_of_no_type_cannot_be_told(kind: Any) -> None:
    block = {"type": kind, "text": "a"}
    one = asked(messages=[{"role": "assistant", "content": [block, {"type": "text", "text": "b"}]}])
    assert (one.input, one.dropped) == ([{"role": "assistant", "content": "b"}], ("messages[0].content[0]",))


@pytest.mark.parametrize(
    ("dialect", "dropped"),
    [
        ("openai-chat", ()),
        ("openai-responses", ("stop_sequences", "top_k")),
        ("gemini", ("metadata.user_id", "tool_choice.disable_parallel_tool_use")),
        ("ollama", ("metadata.user_id", "tool_choice.disable_parallel_tool_use")),
    ],
)
def test_what_a_dialect_has_no_parameter_for_is_named(dialect: Dialect, dropped: tuple[str, ...]) -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    told: dict[str, Any] = {"stop_sequences": ["!"], "top_k": 5, "metadata": {"user_id": "u"}}
    one = asked(dialect, **told, tools=[{"name": "f"}], tool_choice=choice)
    assert one.dropped == dropped
    names = {"stop": "stop_sequences", "top_k": "top_k", "user": "metadata.user_id"}
    assert {name for name in names if name in one.parameters} == {
        name for name, path in names.items() if path not in dropped
    }


@pytest.mark.parametrize("dialect", OTHERS)
def test_no_provider_gets_a_parameter_of_anthropics(dialect: Dialect) -> None:
    one = asked(dialect, **{name: value for name, value in WHOLE.items() if name not in ("messages", "something_new")})
    body = request_of(one, dialect)
    own = {"system", "stop_sequences", "thinking", "output_config", "metadata", "container", "context_management"}
    assert not own & set(body)
    assert {"container", "context_management", "tools[1]"} <= set(one.dropped)


@pytest.mark.parametrize("dialect", [*OTHERS, "anthropic"])
def test_names_that_are_options_of_ours_are_the_models_business(dialect: Dialect) -> None:
    assert asked(dialect, timeout=3).parameters["extra_body"] == {"timeout": 3}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"messages": "Hi"}, "messages"),
        ({"max_tokens": "10"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stream": 1}, "stream"),
        ({"system": 3}, "system"),
        ({"system": [3]}, "system[0]"),
        ({"tools": {}}, "tools"),
        ({"tools": [3]}, "tools[0]"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["Hi"]}]}, "messages[0].content[0]"),
        ({"penstock": []}, "penstock"),
    ],
)
def test_a_field_that_is_not_allowed_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        asked(**fields)
    assert refused.value.problem.param == param
    assert param in refused.value.problem.message
    assert "Hi" not in refused.value.problem.message


def test_the_body_is_not_changed() -> None:
    before = json.dumps(WHOLE)
    for dialect in PROVIDERS:
        parse(WHOLE, dialect)
    assert json.dumps(WHOLE) == before


def test_an_answer_can_be_sent_back_as_it_is() -> None:
    blocks = (ReasoningBlock(kind="thinking", text="hm", signature="c2ln", provider="anthropic"),)
    message = answer(completed("a", reasoning="hm", reasoning_blocks=blocks), opened())
    said = {"role": message["role"], "content": message["content"]}
    body = request_of(asked("anthropic", messages=[HI, said, HI]), "anthropic")
    assert body["messages"][1] == said


# --- empty values of another type -------------------------------------------------------------------------------------

EMPTY: list[Any] = [{}, [], "", 0, False]


def at(path: str, value: Any) -> dict[str, Any]:
    """A body with a value in a place: names and numbers, with dots between."""
    made = value
    for name in reversed(path.split(".")):
        made = [made] if name.isdigit() else {name: made}
    return {"model": "m", "max_tokens": 10, "messages": [HI], **made}


def in_block(kind: str, role: str, name: str, value: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [HI, {"role": role, "content": [{"type": kind, name: value}]}]}


@pytest.mark.parametrize("dialect", OTHERS)
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("stop_sequences", list),
        ("tools", list),
        *((name, dict) for name in ("tool_choice", "output_config", "output_format", "thinking", "metadata")),
        ("output_config.format", dict),
        ("output_config.effort", str),
        ("thinking.type", str),
        ("thinking.budget_tokens", int),
        ("metadata.user_id", str),
        ("tools.0.description", str),
        ("tools.0.input_schema", dict),
        ("tool_choice.type", str),
        ("tool_choice.disable_parallel_tool_use", bool),
    ],
)
def test_an_empty_value_of_another_type_is_not_taken_for_an_absent_one(
    dialect: Dialect, path: str, kind: type[Any]
) -> None:
    tools = {} if path.startswith("tools") else {"tools": [{"name": "f"}]}
    for value in (value for value in EMPTY if type(value) is not kind):
        with pytest.raises(RequestRefused) as refused:
            parse(tools | at(path, value), dialect)
        assert refused.value.problem.param == path.replace(".0", "[0]")


@pytest.mark.parametrize(
    ("block", "role", "name", "kind"),
    [
        ("tool_result", "user", "tool_use_id", str),
        ("tool_result", "user", "is_error", bool),
        *(("tool_use", "assistant", name, str) for name in ("id", "name")),
        ("tool_use", "assistant", "input", dict),
        *(("document", "user", name, str) for name in ("title", "context")),
        *((kind, "user", "source", dict) for kind in ("document", "image")),
        *(("search_result", "user", name, str) for name in ("title", "source")),
    ],
)
def test_nor_is_one_in_a_block(block: str, role: str, name: str, kind: type[Any]) -> None:
    for value in (value for value in EMPTY if type(value) is not kind):
        with pytest.raises(RequestRefused) as refused:
            parse(in_block(block, role, name, value), "openai-chat")
        assert refused.value.problem.param == f"messages[1].content[0].{name}"


@pytest.mark.parametrize(("kind", "name"), [("base64", "data"), ("base64", "media_type"), ("url", "url")])
def test_nor_is_one_in_a_source(kind: str, name: str) -> None:
    for value in (value for value in EMPTY if type(value) is not str):
        with pytest.raises(RequestRefused) as refused:
            parse(in_block("image", "user", "source", {"type": kind, "data": "QQ==", name: value}), "openai-chat")
        assert refused.value.problem.param == f"messages[1].content[0].source.{name}"


@pytest.mark.parametrize("field", ["output_config.format", "output_format"])
def test_nor_is_one_in_a_format(field: str) -> None:
    for value in (value for value in EMPTY if type(value) is not str):
        with pytest.raises(RequestRefused) as refused:
            parse(at(field, {"type": "json_schema", "schema": {}, "name": value}), "openai-chat")
        assert refused.value.problem.param == f"{field}.name"


@pytest.mark.parametrize("dialect", OTHERS)
def test_empty_values_that_clients_send_are_taken(dialect: Dialect) -> None:
    tool = {"name": "f", "description": "", "input_schema": {}}
    nulls = dict.fromkeys(("stop_sequences", "tool_choice", "output_config", "output_format", "thinking", "metadata"))
    call = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "c", "content": None, "is_error": None}
    said = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    none: dict[str, Any] = {"tools": [], "stop_sequences": [], "metadata": {}, "system": "", "output_config": {}}
    for fields in ({"tools": [tool], **nulls}, none, {"tools": None, "metadata": {"user_id": None}}):
        made = parse({"model": "m", "max_tokens": 10, "messages": [HI, *said], **fields}, dialect)
        assert [message["role"] for message in made.input] == ["user", "assistant", "tool"]
        assert made.dropped == ()


def test_a_format_that_no_other_provider_has_is_told_of() -> None:
    assert asked(output_config={"format": {"type": "grammar"}}).dropped == ("output_config.format",)
    assert asked(output_config={"format": {"type": "json_schema", "schema": {}}}).dropped == ()
