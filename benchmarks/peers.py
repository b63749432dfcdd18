"""The official clients of the providers, each reading one streamed answer; each returns the number of characters.

Each is used by its plain iterator. Its helper would accumulate the whole message after every event, and that would be
measured too. The clients are imported by name, because only `make bench` installs them.
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
    """Return the provider's URL without OpenAI's ``/v1``; for the other APIs the version is part of the path."""
    return url.removesuffix("/v1")


def open_ai_chunks(url: str) -> Callable[..., Any]:
    """Return a function that yields the chunks of an answer, read by openai-python."""
    client = _open_ai(url)

    def chunks(model: str, **parameters: Any) -> Any:
        return client.chat.completions.create(**{"model": model, "messages": _MESSAGES, "stream": True} | parameters)

    return chunks


def _open_ai(url: str) -> Any:
    return importlib.import_module("openai").OpenAI(api_key=_KEY, base_url=url, max_retries=0, timeout=_TIMEOUT_S)


def open_ai(url: str) -> Callable[[str], int]:
    """Read by openai-python, chat completions."""
    chunks = open_ai_chunks(url)

    def read(model: str) -> int:
        length = 0
        for chunk in chunks(model):
            if chunk.choices:
                length += len(chunk.choices[0].delta.content or "")
        return length

    return read


def open_ai_responses(url: str) -> Callable[[str], int]:
    """Read by openai-python, the Responses API."""
    client = _open_ai(url)

    def read(model: str) -> int:
        length = 0
        for event in client.responses.create(model=model, input=_QUESTION, stream=True):
            if event.type == "response.output_text.delta":
                length += len(event.delta)
        return length

    return read


def anthropic(url: str) -> Callable[[str], int]:
    """Read by anthropic-python, the Messages API."""
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
    """Read by google-genai."""
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
    """Read by ollama-python."""
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
"""For each provider name of Penstock: given a URL, a function that reads the answer of a model."""

NAMES = {
    "openai": "openai-python",
    "openai-responses": "openai-python",
    "anthropic": "anthropic-python",
    "gemini": "google-genai",
    "ollama": "ollama-python",
}
"""The names of the peers, by provider."""
