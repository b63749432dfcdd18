"""Counts of tokens: each protocol has them as its own provider counts, whichever provider answered."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.cli.batch_forms import result_line
from penstock.events import StreamCompleted, Usage
from penstock.gateway.answers import anthropic, chat, responses
from penstock.gateway.channels import _tokens_of
from penstock.gateway.projections.counts import token_counts
from penstock.ports.batch import BatchResult
from tests.unit.gateway.chat_made import opened

USAGES = {
    "anthropic": Usage(input_tokens=100, output_tokens=20, cached_tokens=800, cache_write_tokens=50),
    "gemini": Usage(
        input_tokens=900, output_tokens=15, cached_tokens=800, cache_write_tokens=50, reasoning_tokens=5,
        tool_input_tokens=50,
    ),
    "openai": Usage(input_tokens=950, output_tokens=20, cached_tokens=800, cache_write_tokens=50, reasoning_tokens=5),
}  # fmt: skip


@pytest.fixture(params=list(USAGES))
def end(request: pytest.FixtureRequest) -> StreamCompleted:
    """An answer for which 950 tokens were read, 850 of them with a cache, and 20 were written."""
    return StreamCompleted(stream_id="s", seq=1, text="Hi", usage=USAGES[request.param], provider=request.param)


def test_openais_protocols_include_what_others_count_apart(end: StreamCompleted) -> None:
    usage = chat.answer(end, opened())["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (950, 20, 970)
    usage = responses.answer(end, opened())["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (950, 20, 970)
    assert usage["input_tokens_details"]["cached_tokens"] == 800


def test_anthropics_protocol_counts_the_cache_beside_the_input(end: StreamCompleted) -> None:
    usage = anthropic.answer(end, opened())["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (100, 800, 20)


def test_browsers_protocols_a_keys_limit_and_batches_count_all(end: StreamCompleted) -> None:
    assert {"inputTokens": 950, "outputTokens": 20, "totalTokens": 970}.items() <= token_counts(end).items()
    assert _tokens_of(end) == 970
    result: Any = BatchResult(
        id=1, number=1, status="completed", text="Hi", finish_reason="stop", usage=end.usage, provider=end.provider,
        end=end,
    )  # fmt: skip
    usage = result_line(result, "openai")["response"]["body"]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (950, 20, 970)
