"""The official clients of OpenAI and Anthropic, against a gateway with every provider behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from penstock.adapters.loopback.faults import ErrorFrame, Status, TruncateAfter
from penstock.adapters.loopback.script import Answer, Script, ScriptedCall
from penstock.testing import eventually
from tests.integration.gateway.serving import Served, events_of, gateway

WORDS = "one two three four five six seven eight"
HI: Any = [{"role": "user", "content": "Hi"}]
PROVIDERS = ("openai", "openai-responses", "anthropic", "gemini", "ollama")


@pytest.fixture
def server() -> Iterator[Served]:
    models: Any = {
        "thinks": Answer("Four.", reasoning="2 + 2 is", signature="c2ln"),
        "calls": Answer("Looking.", tool_calls=(ScriptedCall("add", '{"a": 1, "b": 2}', id="c1"),)),
        "long": Answer(WORDS, finish_reason="length"),
        "busy": Status(429, retry_after=1, message="slow down"),
        "cut": Answer(WORDS, faults=(TruncateAfter(3),)),
        "breaks": Answer(WORDS, faults=(ErrorFrame(3),)),
        "endless": Answer(tokens=("word ",), repeat=100_000, pace=0.01),
        "late": Answer("late", first_token_delay=60),
    }
    with gateway(Script(Answer(WORDS, pace=0.003), models=models), heartbeat=0.05) as client:
        yield client


@pytest.fixture
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as made:
        yield made


@pytest.fixture
def claude(server: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="x", max_retries=0) as made:
        yield made


def at(provider: str) -> Any:
    return {"penstock": {"provider": provider}}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_openais_client_streams_from_every_provider(client: openai.OpenAI, provider: str) -> None:
    stream = client.chat.completions.create(
        model="m", messages=HI, stream=True, stream_options={"include_usage": True}, extra_body=at(provider)
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == WORDS
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("provider", PROVIDERS)
def test_openais_client_gets_whole_answers_and_calls(client: openai.OpenAI, provider: str) -> None:
    whole = client.chat.completions.create(model="m", messages=HI, extra_body=at(provider))
    assert whole.choices[0].message.content == WORDS
    calls = client.chat.completions.create(model="calls", messages=HI, extra_body=at(provider))
    assert calls.choices[0].finish_reason == "tool_calls"
    (call,) = calls.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, __import__("json").loads(call.function.arguments)) == ("add", {"a": 1, "b": 2})


@pytest.mark.parametrize("provider", PROVIDERS)
def test_anthropics_client_streams_from_every_provider(claude: anthropic.Anthropic, provider: str) -> None:
    with claude.messages.stream(model="m", max_tokens=100, messages=HI, extra_body=at(provider)) as stream:
        assert "".join(stream.text_stream) == WORDS
        message = stream.get_final_message()
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 8
    with claude.messages.stream(model="calls", max_tokens=100, messages=HI, extra_body=at(provider)) as stream:
        message = stream.get_final_message()
    assert message.stop_reason == "tool_use"
    assert [block.input for block in message.content if block.type == "tool_use"] == [{"a": 1, "b": 2}]
    whole = claude.messages.create(model="m", max_tokens=100, messages=HI, extra_body=at(provider))
    assert [block.text for block in whole.content if block.type == "text"] == [WORDS]


def test_signed_thinking_goes_out_and_comes_back(server: Served, claude: anthropic.Anthropic) -> None:
    more = at("anthropic")
    with claude.messages.stream(model="thinks", max_tokens=100, messages=HI, extra_body=more) as stream:
        message = stream.get_final_message()
    thought = message.content[0]
    assert thought.type == "thinking"
    assert (thought.thinking, thought.signature) == ("2 + 2 is", "c2ln")
    again: Any = [*HI, {"role": "assistant", "content": message.content}, {"role": "user", "content": "And?"}]
    claude.messages.create(model="m", max_tokens=100, messages=again, extra_body=more)
    sent = server.provider.requests[-1].body
    assert sent is not None
    assert sent["messages"][1]["content"][0] == {"type": "thinking", "thinking": "2 + 2 is", "signature": "c2ln"}


def test_an_error_before_the_first_token_has_its_status_and_shape(
    client: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    for streamed in (True, False):
        with pytest.raises(openai.RateLimitError) as limited:
            client.chat.completions.create(model="busy", messages=HI, stream=streamed, extra_body=at("openai"))
        assert limited.value.response.headers["retry-after"] == "1"
        assert limited.value.type == "rate_limit_error"
        with pytest.raises(anthropic.RateLimitError) as busy:
            claude.messages.create(model="busy", max_tokens=9, messages=HI, stream=streamed, extra_body=at("anthropic"))
        assert busy.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index]
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model="m", messages=5)  # type: ignore[call-overload]
    with pytest.raises(anthropic.BadRequestError, match="model"):
        claude.messages.create(model="", max_tokens=9, messages=HI)


@pytest.mark.parametrize("model", ["cut", "breaks"])
def test_an_answer_that_breaks_off_never_ends_like_a_complete_one(
    server: Served, client: openai.OpenAI, claude: anthropic.Anthropic, model: str
) -> None:
    stream: Any = client.chat.completions.create(model=model, messages=HI, stream=True, extra_body=at("openai"))
    pieces: list[str] = []
    with pytest.raises(openai.APIError) as broken:
        pieces.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert (said := "".join(pieces))
    assert WORDS.startswith(said)
    assert broken.value.code
    body = {"model": model, "messages": HI, "stream": True, **at("openai")}
    assert "[DONE]" not in server.post("/v1/chat/completions", body).text
    with pytest.raises(anthropic.APIError):
        list(claude.messages.create(model=model, max_tokens=9, messages=HI, stream=True, extra_body=at("openai")))
    assert "message_stop" not in server.post("/v1/messages", {**body, "max_tokens": 9}).text


@pytest.mark.parametrize("model", ["endless", "late"])
@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_leaves_ends_the_call_on_every_route(server: Served, model: str, streamed: bool) -> None:
    async def leave(call: Any) -> None:
        task = asyncio.ensure_future(call)
        await asyncio.to_thread(eventually, lambda: server.gateway.readers)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def read(stream: Any) -> None:
        async for _ in await stream:
            pass

    async def main() -> None:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
            more = at("openai")
            call: Any = client.chat.completions.create(model=model, messages=HI, stream=streamed, extra_body=more)
            await leave(read(call) if streamed else call)

    asyncio.run(main())
    eventually(lambda: not server.gateway.readers)
    eventually(lambda: all(info.state == "ended" for info in server.system.get_active_streams()))


def test_a_stream_opened_in_one_protocol_is_read_in_the_others(server: Served) -> None:
    stream_id = server.open()
    server.finish(stream_id)
    chat = server.get(f"/v1/streams/{stream_id}/events?as=openai").text
    chunks = [data for _, _, data in events_of(chat)]
    assert chunks[-1] == "[DONE]"
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks[:-1] if one["choices"]) == WORDS
    messages = [data for _, _, data in events_of(server.get(f"/v1/streams/{stream_id}/events?as=anthropic").text)]
    assert "".join(one["delta"].get("text", "") for one in messages if one["type"] == "content_block_delta") == WORDS
    assert server.get(f"/v1/streams/{stream_id}/events?as=telegraph").status_code == 400


def test_a_chat_that_is_numbered_is_resumed_by_the_native_route(server: Served) -> None:
    body = {"model": "m", "messages": HI, "stream": True, **at("openai")}
    answer = server.post("/v1/chat/completions?events=numbered", body)
    ids = [id for id, _, _ in events_of(answer.text) if id]
    stream_id = answer.headers["x-penstock-stream-id"]
    rest = server.get(f"/v1/streams/{stream_id}/events?as=openai&events=numbered", headers={"last-event-id": ids[0]})
    assert [id for id, _, _ in events_of(rest.text) if id][-1] == ids[-1]
    assert len(rest.text) < len(answer.text)


def test_the_clients_own_options_are_the_models_business(server: Served, client: openai.OpenAI) -> None:
    client.chat.completions.create(model="m", messages=HI, extra_body={**at("openai"), "timeout": 3, "top_k": 5})
    sent = server.provider.requests[-1].body
    assert sent is not None
    assert (sent["timeout"], sent["top_k"]) == (3, 5)
    assert "penstock" not in sent


@pytest.mark.parametrize(
    ("provider", "name"),
    [("openai-responses", "max_output_tokens"), ("anthropic", "max_tokens"), ("openai", "max_completion_tokens")],
)
def test_of_both_names_of_the_longest_answer_the_newer_one_counts(
    server: Served, client: openai.OpenAI, provider: str, name: str
) -> None:
    more = at(provider)
    client.chat.completions.create(model="m", messages=HI, max_tokens=7, max_completion_tokens=5, extra_body=more)
    assert server.provider.requests[-1].fields[name] == 5


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_the_time_of_the_provider_is_not_the_gateways(path: str) -> None:
    given = {"input": "Hi"} if path == "/v1/responses" else {"messages": [{"role": "user", "content": "Hi"}]}
    with gateway(Answer("Hi.", first_token_delay=0.2)) as served:
        answer = served.post(path, {"model": "m", "max_tokens": 100, **given})
        provider = float(answer.headers["server-timing"].rpartition("provider;dur=")[2])
        assert provider >= 200 - 50  # milliseconds; less what the clocks differ by
