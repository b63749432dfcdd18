"""A conversation that moves to another provider: what only the first one can read is not sent to the second."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.adapters.providers.catalogue import Catalogue
from penstock.adapters.providers.shared.blocks import count_foreign_blocks
from penstock.config.settings import Settings
from penstock.ports import ChatCall

PROVIDERS = ("openai", "openai-responses", "anthropic", "gemini", "ollama")


def history(maker: str) -> list[dict[str, Any]]:
    """A conversation with sealed blocks of every form, made by ``maker``."""
    sealed = [
        {"provider": maker, "data": {"type": name, "data": "SEALED", "signature": "SEALED"}, "at": 1, "calls": 0}
        for name in (
            "thinking",
            "redacted_thinking",
            "reasoning.encrypted",
            "reasoning",
            "web_search_tool_result",
            "new",
        )
    ]
    signed = [{"kind": kind, "text": "", "signature": "SEALED", "id": "r", "provider": maker} for kind in KINDS]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi.", "provider_blocks": sealed},
        {"role": "user", "content": "More"},
        {"role": "assistant", "content": None, "tool_calls": [call], "provider_blocks": sealed},
        {"role": "tool", "tool_call_id": "c", "content": "ok"},
        {"role": "assistant", "content": "Done.", "reasoning_blocks": signed},
        {"role": "user", "content": "Bye"},
    ]


KINDS = ("thinking", "redacted_thinking", "thought", "reasoning", "reasoning.encrypted")


@pytest.mark.parametrize("to", PROVIDERS)
@pytest.mark.parametrize("maker", PROVIDERS)
def test_only_the_provider_that_made_a_block_gets_it(maker: str, to: str) -> None:
    found = Catalogue(Settings(), {}).find(to, "m", None, "key")
    call = ChatCall(model=found.model, input=history(maker), provider=found.name)
    body = json.loads(found.provider.request(call).body)
    text = json.dumps(body)
    assert "provider_blocks" not in text
    assert "reasoning_blocks" not in text
    for said in ("Hello", "Hi.", "More", "Done.", "Bye", "ok"):
        assert json.dumps(said)[1:-1] in text
    if maker != to:
        assert "SEALED" not in text


@pytest.mark.parametrize("to", PROVIDERS)
@pytest.mark.parametrize("maker", ["gemini", "vertex", "openrouter"])
def test_only_the_provider_that_signed_a_call_gets_the_signature(maker: str, to: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": None, "tool_calls": [call | {"signature": "SEALED", "signed_by": maker}]},
        {"role": "tool", "tool_call_id": "c", "content": "ok"},
    ]
    found = Catalogue(Settings(), {}).find(to, "gemini-3-pro", None, "key")
    body = found.provider.request(ChatCall(model=found.model, input=messages, provider=found.name)).body
    assert (b"SEALED" in body) == (maker == to)
    assert (b"skip_thought_signature_validator" in body) == (to == "gemini" and maker != to)
    assert b"signed_by" not in body
    assert count_foreign_blocks(messages, found.name) == (maker != to)
