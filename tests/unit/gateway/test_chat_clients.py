"""OpenAI's own client for Python reads the frames and the errors, over a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion

from penstock.events import (
    Choice,
    Citation,
    Event,
    Logprobs,
    MediaPart,
    ReasoningBlockClosed,
    TokenLogprob,
    ToolCallCompleted,
    Usage,
)
from penstock.gateway.answers.chat import answer
from penstock.gateway.problems import Problem
from penstock.gateway.projections.chat import ChatProjection, error_body
from penstock.gateway.projections.frames import encode
from tests.unit.gateway.chat_made import call, calling, completed, failed, fed, opened, reset, token
from tests.unit.gateway.chat_served import served, with_heartbeats

REQUEST: dict[str, Any] = {"stream_options": {"include_usage": True}}
USER: Any = [{"role": "user", "content": "Hi"}]
VARIANTS = pytest.mark.parametrize("variant", [{}, {"events": "numbered"}])


def frames_of(*events: Event, variant: dict[str, str] | None = None) -> list[bytes]:
    projection = ChatProjection(opened(REQUEST, **(variant or {})))
    return with_heartbeats([frame.data for frame in fed(projection, *events)], ChatProjection.heartbeat)


def chunks_of(*events: Event, variant: dict[str, str] | None = None) -> list[Any]:
    """The chunks as the client gives them."""
    with (
        served(frames_of(*events, variant=variant)) as url,
        openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client,
        client.chat.completions.create(model="m", messages=USER, stream=True) as stream,
    ):
        return list(stream)


def helped(*events: Event) -> Any:
    """The completion that the client's helper puts together."""
    with (
        served(frames_of(*events)) as url,
        openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client,
        client.chat.completions.stream(model="m", messages=USER) as stream,
    ):
        return stream.get_final_completion()


@VARIANTS
def test_text_reasoning_and_usage(variant: dict[str, str]) -> None:
    usage = Usage(input_tokens=3, output_tokens=2, cached_tokens=1, reasoning_tokens=1)
    events: list[Event] = [
        token("hm", "reasoning"),
        token("Hel"),
        token("lo"),
        completed("Hello", reasoning="hm", usage=usage),
    ]
    chunks = chunks_of(*events, variant=variant)
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "Hello"
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "hm"
    assert deltas[0].role == "assistant"
    assert [chunk.usage is not None for chunk in chunks] == [False] * 5 + [True]
    told = chunks[-1].usage
    assert (told.prompt_tokens, told.completion_tokens, told.total_tokens) == (3, 2, 5)
    assert (told.prompt_tokens_details.cached_tokens, told.completion_tokens_details.reasoning_tokens) == (1, 1)
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


def test_the_asynchronous_client_reads_the_same() -> None:
    async def read(url: str) -> str:
        async with openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client:
            stream = await client.chat.completions.create(model="m", messages=USER, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    with served(frames_of(token("Hel"), token("lo"), completed("Hello"))) as url:
        assert asyncio.run(read(url)) == "Hello"


def test_the_helper_puts_everything_together() -> None:
    one, two = call(), call("g", "", id="call_2", signature="c2ln")
    logprob = TokenLogprob(token="a", logprob=-0.5, top=(("a", -0.5),))
    block = ReasoningBlockClosed(index=0, kind="thinking", signature="c2ln", provider="anthropic")
    events = [
        token("hm", "reasoning"),
        block,
        block,
        token("a"),
        Logprobs(tokens=(logprob,)),
        Citation(kind="url", url="https://a.example/", title="A", start=0, end=1),
        Citation(kind="url", url="https://b.example/"),
        MediaPart(kind="image", data="QQ=="),
        MediaPart(kind="image", data="QUI="),
        *calling(one, 0),
        *calling(two, 1),
        ToolCallCompleted(index=0, call=one),
        ToolCallCompleted(index=1, call=two),
    ]
    choice = Choice(index=1, text="b", finish_reason="stop", raw_finish_reason="stop")
    end = completed("a", reasoning="hm", tool_calls=(one, two), finish_reason="tool_calls", choices=(choice,))
    whole = helped(*events, end)
    message = whole.choices[0].message
    assert message.content == "a"
    assert [(each.id, each.function.name, each.function.arguments) for each in message.tool_calls] == [
        ("call_1", "f", '{"x":1}'),
        ("call_2", "g", "{}"),
    ]
    assert whole.choices[0].finish_reason == "tool_calls"
    assert [each.token for each in whole.choices[0].logprobs.content] == ["a"]
    assert [each.url_citation.url for each in message.annotations] == ["https://a.example/", "https://b.example/"]
    assert len(message.images) == len(message.reasoning_details) == 2
    assert (whole.choices[1].message.content, whole.choices[1].finish_reason) == ("b", "stop")


def test_a_refusal() -> None:
    events = token("I will ", "refusal"), token("not.", "refusal")
    message = helped(*events, completed(refusal="I will not.", finish_reason="refusal")).choices[0].message
    assert message.refusal == "I will not."
    assert not message.content


@VARIANTS
@pytest.mark.parametrize(
    ("ending", "code"), [(failed("a"), "stream_interrupted"), (reset(), "stream_restarted")], ids=["failed", "reset"]
)
def test_an_error_amid_the_answer_is_raised(ending: Event, code: str, variant: dict[str, str]) -> None:
    with pytest.raises(openai.APIError) as raised:
        chunks_of(token("a"), ending, variant=variant)
    assert (raised.value.code, raised.value.type) == (code, "server_error")


def test_an_error_before_the_answer_is_a_response() -> None:
    problem = Problem(
        status=404, type="not_found_error", code="model_not_found", message="no such model", param="model"
    )
    with (
        served([], status=b"404 Not Found", body=encode(error_body(problem))) as url,
        openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client,
        pytest.raises(openai.NotFoundError) as raised,
    ):
        client.chat.completions.create(model="m", messages=USER, stream=True)
    error = raised.value
    assert (error.code, error.type, error.param) == ("model_not_found", "not_found_error", "model")
    assert "no such model" in error.message


def test_a_whole_answer() -> None:
    end = completed(
        "Hi", tool_calls=(call(),), finish_reason="tool_calls", usage=Usage(input_tokens=1, output_tokens=2)
    )
    with (
        served([], status=b"200 OK", body=encode(answer(end, opened()))) as url,
        openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client,
    ):
        whole: ChatCompletion = client.chat.completions.create(model="m", messages=USER)
    assert whole.choices[0].message.content == "Hi"
    assert whole.choices[0].message.tool_calls is not None
    assert whole.usage is not None
    assert whole.usage.total_tokens == 3
