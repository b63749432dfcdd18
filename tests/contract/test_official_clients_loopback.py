"""The official clients read the answers of the loopback provider as they read those of the real servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import ollama
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types

from penstock.adapters.loopback.faults import ErrorFrame, ResetAfter, Status, TruncateAfter
from penstock.adapters.loopback.models import default_script
from penstock.adapters.loopback.script import Answer, Replies, Script, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.events import Usage
from tests.contract.official_clients import KEY, USER, OfficialClients, Reading, connected_clients

TEXT = "Grüße aus der Röhre: 水は低きに流れる 🌊, and\u2028a line separator."
REASONING = "Let me think: water runs – as always – downhill."
SIGNATURE = "c2lnbmF0dXJl"
CALLS = (ScriptedCall("look_up", '{"city": "Zürich", "deep": {"n": [1, 2]}}'), ScriptedCall("now"))
FULL = Answer(TEXT, reasoning=REASONING, signature=SIGNATURE, tool_calls=CALLS)
EXPECTED_CALLS = [("look_up", {"city": "Zürich", "deep": {"n": [1, 2]}}), ("now", {})]
FINISH = {"chat": "tool_calls", "responses": "completed", "messages": "tool_use", "ollama": "stop", "gemini": "STOP"}
FRAMINGS: list[Any] = ["chunked", "close", "length", "gzip"]
STATUSES = {
    status: Status(status, headers=(("x-ratelimit-remaining-requests", "0"),))
    for status in (400, 401, 403, 404, 413, 429, 500, 503, 529)
}

API = pytest.mark.parametrize("api", list(FINISH))

MODELS: dict[str, Replies] = {
    "full": FULL,
    "said": Answer(TEXT),
    "cut": Answer(TEXT, finish_reason="length"),
    "filtered": Answer(TEXT, finish_reason="content_filter"),
    "counted": Answer(TEXT, usage=Usage(input_tokens=7, output_tokens=9, total_tokens=16)),
    "refusing": Answer("", refusal="I will not."),
    "two": Answer("one two", choices=(Answer("three four five", tool_calls=CALLS[:1]),)),
    "told-late": Answer("a b c", resumptions=((TruncateAfter(1, clean=True),), ())),
    "broken-off": Answer("a b c d", faults=(ResetAfter(2),)),
    "broken": Answer("a b c d", faults=(ErrorFrame(2, message="It broke."),)),
    **{f"sent-{framing}": FULL.replace(framing=framing, split=7) for framing in FRAMINGS},
    **{f"status-{status}": fault for status, fault in STATUSES.items()},
}


@pytest.fixture(scope="module")
def clients() -> Iterator[OfficialClients]:
    script = default_script(1_000_000)
    with connected_clients(
        LoopbackProvider(Script(script.replies, {**script.models, **MODELS}), api_key=KEY)
    ) as clients:
        yield clients


# --- streams -------------------------------------------------------------------------------------------------------


@API
@pytest.mark.parametrize("model", ["full", *(f"sent-{framing}" for framing in FRAMINGS)])
def test_a_client_reads_all_of_a_stream_however_it_is_sent(clients: OfficialClients, api: str, model: str) -> None:
    reading = clients.read(api, model)

    assert reading.error is None
    assert reading.text == TEXT
    assert reading.reasoning in (REASONING, None)
    assert reading.tool_calls == EXPECTED_CALLS
    assert reading.finish_reason == FINISH[api]
    assert reading.signatures in ([SIGNATURE], None)


@API
def test_a_client_reads_the_usage_that_is_told(clients: OfficialClients, api: str) -> None:
    expected = {"input_tokens": 7, "output_tokens": 9, "total_tokens": 16}
    if api in ("messages", "ollama"):
        del expected["total_tokens"]  # they have no such count
    assert clients.read(api, "counted").usage == expected


@API
def test_a_client_reads_the_usage_that_is_counted(clients: OfficialClients, api: str) -> None:
    usage = clients.read(api, "full").usage
    assert usage["input_tokens"] == 3
    said, thought = len(FULL.pieces) + sum(len(call.fragments) for call in CALLS), len(FULL.reasoning_pieces)
    assert usage["output_tokens"] == (said if api == "gemini" else said + thought)
    assert usage.get("total_tokens", 3 + said + thought) == 3 + said + thought


@pytest.mark.parametrize(
    ("api", "cut", "filtered"),
    [
        ("chat", "length", "content_filter"),
        ("responses", "max_output_tokens", "content_filter"),
        ("messages", "max_tokens", "refusal"),
        ("ollama", "length", "stop"),
        ("gemini", "MAX_TOKENS", "SAFETY"),
    ],
)
def test_a_client_reads_why_it_ended(clients: OfficialClients, api: str, cut: str, filtered: str) -> None:
    assert clients.read(api, "cut").finish_reason == cut
    assert clients.read(api, "filtered").finish_reason == filtered


@API
def test_a_client_reads_a_refusal(clients: OfficialClients, api: str) -> None:
    reading = clients.read(api, "refusing")
    assert (reading.refusal if api in ("chat", "responses") else reading.text) == "I will not."
    assert reading.finish_reason == ("refusal" if api == "messages" else FINISH[api].replace("tool_calls", "stop"))


def test_a_client_reads_each_of_several_choices(clients: OfficialClients) -> None:
    with clients.openai.chat.completions.stream(model="two", messages=USER, n=2) as stream:
        first, second = stream.get_final_completion().choices
    assert (first.message.content, second.message.content) == ("one two", "three four five")
    assert (first.finish_reason, second.finish_reason) == ("stop", "tool_calls")
    [call] = second.message.tool_calls or []
    assert (call.function.name, json.loads(call.function.arguments)) == EXPECTED_CALLS[0]

    said = ["", ""]
    for document in clients.gemini.models.generate_content_stream(model="two", contents="?"):
        for candidate in document.candidates or ():
            for part in (candidate.content and candidate.content.parts) or ():
                said[candidate.index or 0] += part.text or ""
    assert said == ["one two", "three four five"]


# --- whole answers -------------------------------------------------------------------------------------------------


def whole_chat(clients: OfficialClients) -> Reading:
    [choice] = clients.openai.chat.completions.create(model="full", messages=USER).choices
    made: Any = choice.message.tool_calls or ()
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in made]
    return Reading(choice.message.content or "", tool_calls=calls, finish_reason=choice.finish_reason)


def whole_response(clients: OfficialClients) -> Reading:
    response = clients.openai.responses.create(model="full", input="?")
    calls = [(item.name, json.loads(item.arguments)) for item in response.output if item.type == "function_call"]
    return Reading(response.output_text, tool_calls=calls, finish_reason=response.status)


def whole_message(clients: OfficialClients) -> Reading:
    reading = Reading()
    clients._read_message(reading, clients.anthropic.messages.create(model="full", max_tokens=9, messages=USER))
    assert (reading.reasoning, reading.signatures) == (REASONING, [SIGNATURE])
    return reading


def whole_ollama(clients: OfficialClients) -> Reading:
    answer = clients.ollama.chat(model="full", messages=USER)
    assert answer.message.thinking == REASONING
    calls = [(call.function.name, dict(call.function.arguments)) for call in answer.message.tool_calls or ()]
    return Reading(answer.message.content or "", tool_calls=calls, finish_reason=answer.done_reason)


def whole_gemini(clients: OfficialClients) -> Reading:
    answer = clients.gemini.models.generate_content(model="full", contents="?")
    [candidate] = answer.candidates or []
    assert candidate.content is not None
    parts = candidate.content.parts or []
    assert parts[0].thought
    assert parts[0].text == REASONING
    calls = [(call.name or "", call.args) for call in answer.function_calls or ()]
    assert candidate.finish_reason is not None
    return Reading(parts[1].text or "", tool_calls=calls, finish_reason=candidate.finish_reason.value)


WHOLE: dict[str, Callable[[OfficialClients], Reading]] = {
    "chat": whole_chat,
    "responses": whole_response,
    "messages": whole_message,
    "ollama": whole_ollama,
    "gemini": whole_gemini,
}


@API
def test_a_client_reads_an_answer_that_is_not_streamed(clients: OfficialClients, api: str) -> None:
    reading = WHOLE[api](clients)
    assert (reading.text, reading.tool_calls, reading.finish_reason) == (TEXT, EXPECTED_CALLS, FINISH[api])


# --- errors --------------------------------------------------------------------------------------------------------

OPENAI_ERRORS: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    503: openai.InternalServerError,
}
ANTHROPIC_ERRORS: dict[int, tuple[type[Exception], str]] = {
    400: (anthropic.BadRequestError, "invalid_request_error"),
    401: (anthropic.AuthenticationError, "authentication_error"),
    403: (anthropic.PermissionDeniedError, "permission_error"),
    404: (anthropic.NotFoundError, "not_found_error"),
    413: (anthropic.APIStatusError, "request_too_large"),
    429: (anthropic.RateLimitError, "rate_limit_error"),
    500: (anthropic.InternalServerError, "api_error"),
    529: (anthropic.APIStatusError, "overloaded_error"),
}
GEMINI_ERRORS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("status", list(OPENAI_ERRORS))
def test_openais_client_raises_its_typed_errors(clients: OfficialClients, api: str, status: int) -> None:
    error = clients.read(api, f"status-{status}").error
    assert type(error) is OPENAI_ERRORS[status]
    assert error.status_code == status
    assert error.response.headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize("status", list(ANTHROPIC_ERRORS))
def test_anthropics_client_raises_its_typed_errors(clients: OfficialClients, status: int) -> None:
    error = clients.read("messages", f"status-{status}").error
    kind, name = ANTHROPIC_ERRORS[status]
    assert isinstance(error, kind)
    assert isinstance(error, anthropic.APIStatusError)
    assert error.status_code == status
    assert isinstance(error.body, dict)
    assert error.body["error"]["type"] == name


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_ollamas_client_raises_its_error(clients: OfficialClients, status: int) -> None:
    error = clients.read("ollama", f"status-{status}").error
    assert isinstance(error, ollama.ResponseError)
    assert error.status_code == status
    assert "{" not in error.error


@pytest.mark.parametrize("status", list(GEMINI_ERRORS))
def test_googles_client_raises_its_typed_errors(clients: OfficialClients, status: int) -> None:
    error = clients.read("gemini", f"status-{status}").error
    assert isinstance(error, genai_errors.ClientError if status < 500 else genai_errors.ServerError)
    assert (error.code, error.status) == (status, GEMINI_ERRORS[status])


@pytest.mark.parametrize(
    ("api", "kind"),
    [
        ("chat", openai.APIError),
        ("responses", openai.APIError),
        ("messages", anthropic.APIStatusError),
        ("ollama", ollama.ResponseError),
        ("gemini", genai_errors.ServerError),
    ],
)
def test_a_client_raises_at_an_error_in_the_middle(clients: OfficialClients, api: str, kind: type[Exception]) -> None:
    reading = clients.read(api, "broken")
    assert isinstance(reading.error, kind)
    assert "It broke." in str(reading.error)
    assert reading.text == "a b"


@API
def test_a_client_notices_a_connection_that_breaks_off(clients: OfficialClients, api: str) -> None:
    reading = clients.read(api, "broken-off")
    assert reading.error is not None
    assert reading.text == "a b"


@pytest.mark.parametrize("key", ["wrong", ""])
def test_a_wrong_key_is_refused_in_each_dialect(clients: OfficialClients, key: str) -> None:
    url = str(clients.openai.base_url).removesuffix("/v1/")
    openais = openai.OpenAI(api_key=key or "-", base_url=f"{url}/v1", max_retries=0)
    with openais, pytest.raises(openai.AuthenticationError):
        openais.models.list()
    anthropics = anthropic.Anthropic(api_key=key or "-", base_url=url, max_retries=0)
    with anthropics, pytest.raises(anthropic.AuthenticationError):
        anthropics.messages.create(model="said", max_tokens=1, messages=USER)
    ollamas = ollama.Client(host=url, headers={"Authorization": f"Bearer {key}"} if key else None)
    with ollamas, pytest.raises(ollama.ResponseError, match="unauthorized"):
        ollamas.chat(model="said", messages=USER)
    googles = genai.Client(api_key=key or "-", http_options=genai_types.HttpOptions(base_url=url))
    with googles, pytest.raises(genai_errors.ClientError, match="API key not valid"):
        googles.models.generate_content(model="said", contents="?")


# --- models --------------------------------------------------------------------------------------------------------


def test_each_client_lists_the_models_page_by_page(clients: OfficialClients) -> None:
    listed = sorted(model.id for model in clients.openai.models.list())
    assert {"echo", "fault-stall", "full", "loopback"} <= set(listed)

    assert [model.id for model in clients.anthropic.models.list(limit=7)] == listed
    page = clients.anthropic.models.list(limit=5, before_id=listed[20])
    assert [model.id for model in page.data] == listed[15:20]
    config = genai_types.ListModelsConfig(page_size=7, query_base=True)
    assert [model.name for model in clients.gemini.models.list(config=config)] == [f"models/{name}" for name in listed]
    assert [model.model for model in clients.ollama.list().models] == [f"{name}:latest" for name in listed]


def test_ollamas_client_can_use_a_model_by_the_name_in_the_list(clients: OfficialClients) -> None:
    assert clients.ollama.chat(model="said:latest", messages=USER).message.content == TEXT


# --- tools ---------------------------------------------------------------------------------------------------------

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL: Any = {"type": "function", "function": {"name": "forecast", "description": "?", "parameters": SCHEMA}}
TOLD = "The tool says: It is 21 °C."


def test_a_tool_is_called_and_its_result_told_in_chat(clients: OfficialClients) -> None:
    [choice] = clients.openai.chat.completions.create(model="tools", messages=USER, tools=[TOOL]).choices
    [call] = choice.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)["city"]) == ("forecast", "Zürich")
    asked: Any = choice.message.to_dict()
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "It is 21 °C."}
    history = [*USER, asked, result]
    done = clients.openai.chat.completions.create(model="tools", messages=history, tools=[TOOL])
    assert done.choices[0].message.content == TOLD


def test_a_tool_is_called_and_its_result_told_in_responses(clients: OfficialClients) -> None:
    tool: Any = {"type": "function", "name": "forecast", "parameters": SCHEMA, "strict": False}
    [call] = clients.openai.responses.create(model="tools", input=USER, tools=[tool]).output
    assert call.type == "function_call"
    assert call.name == "forecast"
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "It is 21 °C."}
    history: Any = [*USER, call.to_dict(), result]
    assert clients.openai.responses.create(model="tools", input=history, tools=[tool]).output_text == TOLD


def test_a_tool_is_called_and_its_result_told_in_messages(clients: OfficialClients) -> None:
    tool: Any = {"name": "forecast", "input_schema": SCHEMA}
    asked = clients.anthropic.messages.create(model="tools", max_tokens=9, messages=USER, tools=[tool])
    [call] = asked.content
    assert call.type == "tool_use"
    assert (call.name, asked.stop_reason) == ("forecast", "tool_use")
    for content in ("It is 21 °C.", [{"type": "text", "text": "It is 21 °C."}]):
        result: Any = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": content}]}
        history: Any = [*USER, {"role": "assistant", "content": [call.to_dict()]}, result]
        done = clients.anthropic.messages.create(model="tools", max_tokens=9, messages=history, tools=[tool])
        assert [block.text for block in done.content if block.type == "text"] == [TOLD]


def test_a_tool_is_called_and_its_result_told_in_ollama(clients: OfficialClients) -> None:
    asked = clients.ollama.chat(model="tools", messages=USER, tools=[TOOL])
    [call] = asked.message.tool_calls or []
    assert (call.function.name, call.function.arguments["city"]) == ("forecast", "Zürich")
    history: list[Any] = [*USER, asked.message, {"role": "tool", "tool_name": "forecast", "content": "It is 21 °C."}]
    assert clients.ollama.chat(model="tools", messages=history, tools=[TOOL]).message.content == TOLD


def test_a_tool_is_called_and_its_result_told_in_gemini(clients: OfficialClients) -> None:
    declared = genai_types.FunctionDeclaration(name="forecast", parameters_json_schema=SCHEMA)
    config = genai_types.GenerateContentConfig(tools=[genai_types.Tool(function_declarations=[declared])])
    question = genai_types.Content(role="user", parts=[genai_types.Part(text="?")])
    asked = clients.gemini.models.generate_content(model="tools", contents=[question], config=config)
    [call] = asked.function_calls or []
    assert call.name == "forecast"
    assert asked.candidates is not None
    reply = asked.candidates[0].content
    assert reply is not None
    part = genai_types.Part.from_function_response(name="forecast", response={"result": "It is 21 °C."})
    history: list[Any] = [question, reply, genai_types.Content(role="user", parts=[part])]
    assert clients.gemini.models.generate_content(model="tools", contents=history, config=config).text == TOLD


# --- answers that are gone on with ---------------------------------------------------------------------------------


def test_openais_client_goes_on_with_a_response_where_it_left_off(clients: OfficialClients) -> None:
    client = clients.openai.responses
    with client.create(model="told-late", input="?", background=True, stream=True) as stream:
        first = [event.to_dict() for event in stream]
    assert [event["sequence_number"] for event in first] == list(range(len(first)))
    response: Any = first[0]["response"]

    with client.retrieve(response["id"], stream=True, starting_after=3) as stream:
        second = [event.to_dict() for event in stream]
    assert first[4:5] == second[: len(first[4:5])]
    assert second == first[4 : 4 + len(second)]
    assert len(second) < len(first[4:])  # the script breaks off the first further connection

    seen: Any = second[-1]["sequence_number"]
    with client.retrieve(response["id"], stream=True, starting_after=seen) as stream:
        third = [event.to_dict() for event in stream]
    assert first == [*first[:4], *second, *third]

    assert client.retrieve(response["id"]).output_text == "a b c"
    with pytest.raises(openai.NotFoundError):
        client.retrieve("resp_unknown")
