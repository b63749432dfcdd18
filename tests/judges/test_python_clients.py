"""`openai` and `anthropic` for Python: what tests/integration/gateway does not try with them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from penstock.testing import eventually
from tests.integration.gateway.serving import Served
from tests.judges.marks import thorough
from tests.judges.real_gateway import EVERY_TOKEN, FLOOD_TEXT, HI, RESTART, WORDS, nothing_runs


@pytest.fixture
def gpt(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="x", max_retries=0) as made:
        yield made


@pytest.fixture
def claude(served: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=served.url, api_key="x", max_retries=0) as made:
        yield made


def at(**more: Any) -> dict[str, Any]:
    return {"penstock": {"provider": "openai", "options": EVERY_TOKEN, **more}}


def chat(gpt: openai.OpenAI, model: str, more: Any) -> Any:
    return gpt.chat.completions.create(model=model, messages=HI, stream=True, extra_body=more)


def messages(claude: anthropic.Anthropic, model: str, more: Any) -> Any:
    return claude.messages.create(model=model, max_tokens=9, messages=HI, stream=True, extra_body=more)


def text_of(events: Any) -> str:
    """The text that a stream of either client has from here on."""
    found = []
    for event in events:
        if isinstance(event, openai.types.chat.ChatCompletionChunk):
            found += [choice.delta.content or "" for choice in event.choices]
        elif event.type == "content_block_delta" and event.delta.type == "text_delta":
            found.append(event.delta.text)
    return "".join(found)


CREATE: Any = {"openai": chat, "anthropic": messages}
each_client = pytest.mark.parametrize("name", ["openai", "anthropic"])


@pytest.fixture
def clients(gpt: openai.OpenAI, claude: anthropic.Anthropic) -> dict[str, Any]:
    return {"openai": gpt, "anthropic": claude}


@each_client
def test_the_servers_agent_runs_its_tools_in_rounds(clients: dict[str, Any], name: str) -> None:
    assert text_of(CREATE[name](clients[name], "helper", {})).endswith("Cold and warm.")


@each_client
def test_a_call_that_needs_approval_is_denied_at_once(served: Served, clients: dict[str, Any], name: str) -> None:
    assert text_of(CREATE[name](clients[name], "careful", {})).endswith("Done.")
    sent = served.provider.requests[-1].body
    assert sent is not None
    assert "no way to ask" in str(sent["messages"][-1]["content"])


@each_client
def test_a_client_that_leaves_ends_the_providers_call(served: Served, clients: dict[str, Any], name: str) -> None:
    with CREATE[name](clients[name], "endless", at()) as stream:
        for _ in range(4):
            next(stream)
    nothing_runs(served)
    served.provider.wait_for(lambda counts: counts.client_disconnects == 1)


@each_client
def test_an_answer_that_begins_again_is_an_error(clients: dict[str, Any], name: str) -> None:
    seen = []
    with pytest.raises((openai.APIError, anthropic.APIError)):
        seen.extend(CREATE[name](clients[name], "resets", at(request_options=RESTART)))
    assert text_of(seen).startswith("void")
    assert "Good" not in text_of(seen)


@thorough
@each_client
def test_a_client_that_stops_reading_gets_the_rest(served: Served, clients: dict[str, Any], name: str) -> None:
    stream = CREATE[name](clients[name], "floods", at())
    first = [next(stream) for _ in range(4)]
    served.finish(stream.response.headers["x-penstock-stream-id"])
    assert text_of(first) + text_of(stream) == FLOOD_TEXT


# The client opens its socket in a way that `websockets` has deprecated.
@pytest.mark.filterwarnings("ignore:connect\\(\\) must be used as a context manager:DeprecationWarning")
def test_openais_client_responds_over_a_web_socket(served: Served) -> None:
    async def main() -> tuple[list[str], str]:
        types: list[str] = []
        client = openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="x", max_retries=0)
        async with client, client.responses.connect() as connection:
            await connection.response.create(model="m", input="Hi")
            async for event in connection:
                types.append(event.type)
                if event.type == "response.completed":
                    return types, event.response.output_text
        raise AssertionError(types)

    types, text = asyncio.run(main())
    assert (types[0], text) == ("response.created", WORDS)
    eventually(lambda: not served.gateway.readers)
