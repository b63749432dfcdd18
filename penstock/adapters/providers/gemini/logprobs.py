"""The probabilities of an answer's tokens."""

from __future__ import annotations

from typing import Any

from penstock.adapters.providers.gemini.metadata import Skip
from penstock.adapters.providers.shared.surrogates import replace_surrogates
from penstock.events import Logprobs, TokenLogprob
from penstock.ports import Delta, EventDelta

__all__ = ["read_logprobs"]


def read_logprobs(given: object, skip: Skip, out: list[Delta]) -> None:
    """Append a candidate's ``logprobsResult``: each chosen token, with the likeliest ones at its place."""
    result = given if isinstance(given, dict) else {}
    chosen, likeliest = (_items(result, name, skip, out) for name in ("chosenCandidates", "topCandidates"))
    if given is not result:
        skip("logprobsResult", given, out)
    tokens: list[TokenLogprob] = []
    for place, item in enumerate(chosen):
        pair = _pair(item)
        if pair is None:
            skip("logprobsResult", item, out)
            continue
        others = likeliest[place].get("candidates") if place < len(likeliest) else None
        top = [found for other in others if (found := _pair(other))] if isinstance(others, list) else ()
        tokens.append(TokenLogprob(token=pair[0], logprob=pair[1], top=tuple(top)))
    if tokens:
        out.append(EventDelta(Logprobs(tokens=tuple(tokens))))


def _items(result: dict[str, Any], name: str, skip: Skip, out: list[Delta]) -> list[dict[str, Any]]:
    """The objects of a list. Others become empty ones: the lists belong together by their places."""
    items = result.get(name)
    if isinstance(items, list):
        return [item if isinstance(item, dict) else {} for item in items]
    if items is not None:
        skip("logprobsResult", items, out)
    return []


def _pair(item: object) -> tuple[str, float] | None:
    """A token and its logarithm. A missing one is 0: Google leaves out zeros; so is a missing text of a token."""
    if not isinstance(item, dict):
        return None
    token, value = item.get("token", "" if "tokenId" in item else None), item.get("logProbability", 0.0)
    if not isinstance(token, str) or isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return (replace_surrogates(token), float(value)) if -1e300 < value < 1e300 else None
