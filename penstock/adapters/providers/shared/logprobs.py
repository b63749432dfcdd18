"""Probabilities of tokens, in the form in which OpenAI's dialects and Ollama send them."""

from __future__ import annotations

from collections.abc import Callable

from penstock.adapters.providers.shared.surrogates import replace_surrogates
from penstock.events import TokenLogprob

__all__ = ["token_logprobs"]


def token_logprobs(items: object, skip: Callable[[str, object], None]) -> tuple[TokenLogprob, ...]:
    """Read a list of tokens with their logarithms. ``skip`` gets what is none."""
    if not isinstance(items, (list, tuple)):
        skip("logprobs", items)
        return ()
    tokens: list[TokenLogprob] = []
    for item in items:
        pair = _pair(item)
        if pair is None:
            skip("logprobs", item)
            continue
        others = item.get("top_logprobs")
        top = [found for other in others if (found := _pair(other))] if isinstance(others, list) else []
        tokens.append(TokenLogprob(token=pair[0], logprob=pair[1], top=tuple(top)))
    return tuple(tokens)


def _pair(item: object) -> tuple[str, float] | None:
    """A token and its logarithm; a JSON number that is no logarithm (NaN, infinite) is none."""
    if not isinstance(item, dict) or not isinstance(item.get("token"), str):
        return None
    value = item.get("logprob")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e300 < value < 1e300:
        return None
    return replace_surrogates(item["token"]), float(value)
