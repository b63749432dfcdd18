"""The providers' own clients, each reading one streamed answer; each gives the number of characters it got.

Each gives its events as they come, in the plainest way it has: helpers that put a whole message together again after
every event would be measured along. They are found by name, since only `make bench` installs them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

__all__ = ["NAMES", "PEERS", "open_ai_chunks", "root_of"]

_QUESTION = "Say something."
_MESSAGES = [{"role": "user", "content": _QUESTION}]
_TIMEOUT_S = 60
_KEY = "benchmark"


def root_of(url: str) -> str:
    """The provider's URL without OpenAI's ``/v1``: to the others it is part of the path."""
    return url.removesuffix("/v1")


def open_ai_chunks(url: str) -> Callable[..., Any]:
    """openai-python's chunks of a model's answer."""
    client = _open_ai(url)

    def chunks(model: str, **parameters: Any) -> Any:
        return client.chat.completions.create(**{"model": model, "messages": _MESSAGES, "stream": True} | parameters)

    return chunks


def _open_ai(url: str) -> Any:
    return importlib.import_module("openai").OpenAI(api_key=_KEY, base_url=url, max_retries=0, timeout=_TIMEOUT_S)


def open_ai(url: str) -> Callable[[str], int]:
    """openai-python, chat completions."""
    chunks = open_ai_chunks(url)

    def read(model: str) -> int:
        length = 0
        for chunk in chunks(model):
            if chunk.choices:
                length += len(chunk.choices[0].delta.content or "")
        return length

    return read


def open_ai_responses(url: str) -> Callable[[str], int]:
    """openai-python, the Responses API."""
    client = _open_ai(url)

    def read(model: str) -> int:
        length = 0
        for event in client.responses.create(model=model, input=_QUESTION, stream=True):
            if event.type == "response.output_text.delta":
                length += len(event.delta)
        return length

    return read


def anthropic(url: str) -> Callable[[str], int]:
    """anthropic, the Messages API."""
    module = importlib.import_module("anthropic")
    client = module.Anthropic(api_key=_KEY, base_url=root_of(url), max_retries=0, timeout=_TIMEOUT_S)

    def read(model: str) -> int:
        length = 0
        for event in client.messages.create(model=model, max_tokens=1000, messages=_MESSAGES, stream=True):
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                length += len(event.delta.text)
        return length

    return read


def gemini(url: str) -> Callable[[str], int]:
    """google-genai."""
    options = {"base_url": root_of(url), "timeout": _TIMEOUT_S * 1000}
    client = importlib.import_module("google.genai").Client(api_key=_KEY, http_options=options)

    def read(model: str) -> int:
        length = 0
        for document in client.models.generate_content_stream(model=model, contents=_QUESTION):
            candidate = (document.candidates or [None])[0]
            if candidate is not None and candidate.content is not None:
                length += sum(len(part.text or "") for part in candidate.content.parts or ())
        return length

    return read


def ollama(url: str) -> Callable[[str], int]:
    """ollama-python."""
    client = importlib.import_module("ollama").Client(host=root_of(url), timeout=_TIMEOUT_S)

    def read(model: str) -> int:
        length = 0
        for line in client.chat(model=model, messages=_MESSAGES, stream=True):
            length += len(line.message.content or "")
        return length

    return read


PEERS: dict[str, Callable[[str], Callable[[str], int]]] = {
    "openai": open_ai,
    "openai-responses": open_ai_responses,
    "anthropic": anthropic,
    "gemini": gemini,
    "ollama": ollama,
}
"""By our provider's name: given the provider's URL, what reads a model's answer."""

NAMES = {
    "openai": "openai-python",
    "openai-responses": "openai-python",
    "anthropic": "anthropic-python",
    "gemini": "google-genai",
    "ollama": "ollama-python",
}
"""What they are called."""
