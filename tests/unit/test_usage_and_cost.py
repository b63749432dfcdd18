"""Usage beyond plain counts: where it is read from, what it costs, how it is summed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.actors.call.usage import count_characters
from penstock.actors.stream.outcome import Outcome, add_costs, add_usages, all_rounds
from penstock.adapters.providers.anthropic.decoder import MessagesDecoder
from penstock.adapters.providers.gemini.decoder import GeminiDecoder
from penstock.adapters.providers.shared.json_values import to_usage
from penstock.config.prices import Price, PriceTable, Rates
from penstock.errors import OptionError
from penstock.events import Cost, Usage
from penstock.ports import UsageDelta

RATES = Rates(
    1, 0.5, 2, 4, cache_write_1h=3, tool_input=5, audio_input=6, image_input=7, audio_output=8, image_output=9
)
PLAIN = Rates(1, 0.5, 2, 4)


def last_usage(decoder: Any, body: dict[str, Any]) -> Usage:
    deltas = decoder.feed(b"data: " + json.dumps(body).encode() + b"\n\n")
    found: Usage = [delta.usage for delta in deltas if isinstance(delta, UsageDelta)][-1]
    return found


@pytest.mark.parametrize(
    ("usage", "field", "value"),
    [
        ({"reasoning_tokens": 3}, "reasoning_tokens", 3),
        ({"reasoning_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 0}}, "reasoning_tokens", 0),
        ({"cached_tokens": 3}, "cached_tokens", 3),
        ({"num_cached_tokens": 3}, "cached_tokens", 3),
        ({"cache_read_input_tokens": 3}, "cached_tokens", 3),
        ({"prompt_cache_hit_tokens": 0, "cached_tokens": 3}, "cached_tokens", 0),
        ({"cached_tokens": 3, "prompt_tokens_details": {"cached_tokens": 0}}, "cached_tokens", 0),
        ({"cached_tokens": 3, "prompt_tokens_details": {"cached_tokens": None}}, "cached_tokens", 3),
        ({"cache_creation_input_tokens": 3}, "cache_write_tokens", 3),
        ({"prompt_tokens_details": {"audio_tokens": 0}}, "audio_input_tokens", 0),
        ({"completion_tokens_details": {"image_tokens": 4}}, "image_output_tokens", 4),
        ({"cost_in_usd_ticks": 5_000_000_000}, "reported_cost", 0.5),
        ({"cost": {"total_cost": 0.25}}, "reported_cost", 0.25),
        ({"cost": 0}, "reported_cost", 0.0),
        ({"cost": 0.25, "cost_details": {"upstream_inference_cost": 1}}, "reported_cost", 0.25),
        ({"cost": 0.25, "is_byok": True, "cost_details": {"upstream_inference_cost": 1}}, "reported_cost", 1.25),
        ({"num_sources_used": 0}, "server_tool_requests", {"sources": 0}),
        ({"server_side_tool_usage_details": {"x_search_calls": 2}}, "server_tool_requests", {"x_search": 2}),
    ],
)
def test_chat_usage_is_read_from_where_the_provider_puts_it(usage: dict[str, Any], field: str, value: Any) -> None:
    told = to_usage(usage, "prompt", "completion")
    assert told == Usage(**{field: value})


@pytest.mark.parametrize("cost", [True, -1, float("nan"), float("inf"), "1", {"total_cost": None}])
def test_a_cost_that_is_no_amount_is_not_reported(cost: object) -> None:
    assert to_usage({"cost": cost}, "prompt", "completion") is None


def test_a_tier_beside_the_usage_is_that_of_the_usage() -> None:
    assert to_usage({"total_tokens": 1}, "prompt", "completion", "flex") == Usage(total_tokens=1, service_tier="flex")
    assert to_usage({}, "prompt", "completion", "flex") is None


def test_gemini_counts_results_of_its_tools_on_both_paths() -> None:
    counts = {"promptTokenCount": 3, "toolUsePromptTokenCount": 0, "serviceTier": "flex",
              "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 2}, None]}  # fmt: skip
    first = {"candidates": [{"content": {"parts": [{"text": "a"}]}}]}
    told = Usage(input_tokens=3, tool_input_tokens=0, audio_input_tokens=2, service_tier="flex")
    assert last_usage(GeminiDecoder(9999), first | {"usageMetadata": counts}) == told
    later = {"promptTokenCount": 3, "candidatesTokenCount": 5, "toolUsePromptTokenCount": 7}
    decoder = GeminiDecoder(9999)
    last_usage(decoder, first | {"usageMetadata": counts})
    assert last_usage(decoder, first | {"usageMetadata": later}) == Usage(
        input_tokens=3, output_tokens=5, tool_input_tokens=7, audio_input_tokens=2, service_tier="flex"
    )
    decoder = GeminiDecoder(9999)
    decoder.feed(b'data: {"candidates": []}\n\n')
    assert last_usage(decoder, first | {"usageMetadata": counts}) == Usage(input_tokens=3, tool_input_tokens=0)
    ended = {"candidates": [first["candidates"][0] | {"finishReason": "STOP"}], "usageMetadata": counts}
    assert last_usage(decoder, ended) == told


def test_anthropic_tells_lifetimes_tools_and_tier() -> None:
    usage = {"input_tokens": 1, "cache_creation": {"ephemeral_1h_input_tokens": 0}, "service_tier": "priority",
             "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0}}  # fmt: skip
    assert last_usage(MessagesDecoder(9999), {"type": "message_start", "message": {"usage": usage}}) == Usage(
        input_tokens=1, cache_write_1h_tokens=0, service_tier="priority",
        server_tool_requests={"web_search": 2, "web_fetch": 0},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("counts", "own", "plain"),
    [
        ({"cache_write_tokens": 5, "cache_write_1h_tokens": 2}, 12, 10),
        ({"tool_input_tokens": 2}, 10, 2),
        ({"input_tokens": 5, "audio_input_tokens": 2, "image_input_tokens": 1}, 21, 5),
        ({"output_tokens": 5, "audio_output_tokens": 2, "image_output_tokens": 1}, 33, 20),
        ({"input_tokens": 1, "audio_input_tokens": 9}, 6, 1),
        ({"input_tokens": 4, "service_tier": "flex"}, 2, 4),
        ({"server_tool_requests": {"web_search": 1}}, 10_000, 0),
    ],
)
def test_a_part_costs_its_own_rate_else_the_cost_is_an_estimate(counts: dict[str, Any], own: int, plain: int) -> None:
    known = Price(RATES, tiers={"flex": 0.5}, fees={"web_search": 10})
    assert known.cost(Usage(**counts), False) == Cost(amount=own / 1e6)
    assert Price(PLAIN).cost(Usage(**counts), False) == Cost(amount=plain / 1e6, is_estimate=True)


@pytest.mark.parametrize(
    "counts", [{"audio_input_tokens": 0}, {"tool_input_tokens": 0}, {"server_tool_requests": {"x": 0}},
               {"cache_write_1h_tokens": 0}, {"service_tier": "default"}, {"service_tier": "STANDARD"}]
)  # fmt: skip
def test_a_count_of_0_and_the_ordinary_tier_need_no_rate(counts: dict[str, Any]) -> None:
    assert Price(PLAIN).cost(Usage(**counts), False) == Cost(amount=0)


def test_sums_have_the_tools_by_name_and_the_costs_that_all_reported() -> None:
    one = Usage(server_tool_requests={"a": 1}, service_tier="x", reported_cost=0.5)
    two = Usage(server_tool_requests={"a": 2, "b": 0}, service_tier="y", reported_cost=0.0)
    assert add_usages([one, two]) == Usage(server_tool_requests={"a": 3, "b": 0}, service_tier="y", reported_cost=0.5)
    ours = Cost(amount=1, reported=2)
    theirs = Cost(amount=3, reported=3, source="provider")
    assert add_costs([ours, theirs]) == Cost(amount=4, reported=5)
    assert add_costs([theirs, theirs]) == Cost(amount=6, reported=6, source="provider")
    assert add_costs([ours, Cost(amount=1)]) == Cost(amount=2)


def test_a_part_that_is_not_known_makes_a_sum_an_estimate_and_what_was_reported_unknown() -> None:
    usage, cost = Usage(input_tokens=1, reported_cost=0.5), Cost(amount=1, reported=2, source="provider")
    assert add_usages([usage, Usage(input_tokens=2)]) == Usage(input_tokens=3)
    assert add_usages([usage, None], none_is_unknown=True) == Usage(input_tokens=1)
    assert add_usages([None, usage]) == usage
    unknown = Cost(amount=1, is_estimate=True, source="provider")
    assert add_costs([cost, None], none_is_unknown=True) == unknown
    assert add_costs([None, cost]) == cost
    total = all_rounds([Outcome(usage=usage, cost=cost), Outcome()])
    assert (total.usage, total.cost) == (Usage(input_tokens=1), unknown)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[x]\nfees = 3\n[x.models]", "prices: x.fees"),
        ("[x]\nfees = {web = -1}\n[x.models]", "prices: x.fees.web"),
        ("[x.models]\nm = {input = 1, output = 1, tiers = {flex = 101}}", "prices: x.models.m.tiers.flex"),
        ("[x.models]\nm = {input = 1, output = 1, audio_input = '1'}", "prices: x.models.m.audio_input"),
    ],
)
def test_a_broken_rate_is_named(text: str, field: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(OptionError) as caught:
        PriceTable.load(path)
    assert caught.value.field == field


def test_what_is_sealed_does_not_count_as_text() -> None:
    sealed = {"provider": "p", "data": {"type": "t", "content": [{"encrypted_content": "E" * 1_000_000}]}}
    thought = {"kind": "thinking", "text": "hm", "signature": "E" * 1_000_000}
    call = {"id": "c", "function": {"name": "f", "arguments": "{}"}, "signature": "E" * 1_000_000}
    plain = {"role": "assistant", "content": "ok", "tool_calls": [{**call, "signature": ""}]}
    full = {**plain, "tool_calls": [call], "provider_blocks": [sealed], "reasoning_blocks": [thought]}
    item = {"type": "reasoning", "id": "rs_1", "encrypted_content": "E" * 1_000_000}
    assert count_characters([full]) == count_characters([plain])
    assert count_characters([item]) == len("reasoningrs_1")
