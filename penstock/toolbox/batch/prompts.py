"""The prompts of a batch, in the forms in which users write them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from penstock.config.checks import Shown, near_miss, type_of
from penstock.errors import OptionError
from penstock.ports.batch import BatchPrompt, Identifier, PromptForm
from penstock.ports.messages import check_items, check_messages

__all__ = ["check_identifier", "read_prompt"]

_OWN: Final = ("id", "prompt", "messages", "system", "model", "params", "metadata")
_OPENAI: Final = ("custom_id", "method", "url", "body")
_CHAT_URL: Final = "/v1/chat/completions"
_RESPONSES_URL: Final = "/v1/responses"
_NOT_PARAMETERS: Final = frozenset(
    {
        *("self", "input", "messages", "model", "options", "provider", "base_url", "api_key", "metadata", "stream_id"),
        *("on_orphan", "restart", "request_options", "fallback", "token_buffer_size", "token_batch_size"),
        *("token_flush_interval", "stream"),
    }
)
_LONGEST_ID: Final = 512


def read_prompt(form: PromptForm) -> BatchPrompt:
    """Take a prompt in any of its forms.

    Raises:
        OptionError: it has none of them; the message names the field, and quotes no text of the prompt.

    >>> read_prompt({"id": "q1", "prompt": "Why?"}).input
    'Why?'
    >>> read_prompt({"id": 1, "promt": "Why?"})
    Traceback (most recent call last):
    penstock.errors.OptionError: promt: unknown field (did you mean 'prompt'?)
    """
    if isinstance(form, BatchPrompt):
        return form
    if isinstance(form, str):
        return BatchPrompt(input=_text("prompt", form))
    if isinstance(form, Mapping):
        return _openai_prompt(form) if "custom_id" in form or "body" in form else _own_prompt(form)
    check_messages(form)
    return BatchPrompt(input=form)


def _own_prompt(form: Mapping[str, Any]) -> BatchPrompt:
    _check_names(form, _OWN)
    prompt, messages, system = form.get("prompt"), form.get("messages"), form.get("system")
    if (prompt is None) == (messages is None):
        problem = "prompt and messages are both there; give one" if prompt is not None else "there is no prompt"
        raise OptionError("prompt", Shown("the line"), "a prompt or messages", problem=problem)
    if messages is None:
        messages = _text("prompt", prompt)
    else:
        check_messages(messages)
    if system is not None:
        rest = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        messages = [{"role": "system", "content": _text("system", system)}, *rest]
    return BatchPrompt(
        id=check_identifier("id", form.get("id")),
        input=messages,
        model=_model(form.get("model")),
        parameters=_parameters(form.get("params") or {}),
        metadata=_mapping("metadata", form.get("metadata") or {}),
    )


def _openai_prompt(form: Mapping[str, Any]) -> BatchPrompt:
    """Take a line of OpenAI's Batch API; the model is required there, here it is not."""
    _check_names(form, _OPENAI)
    url, method = form.get("url", _CHAT_URL), form.get("method", "POST")
    if url not in (_CHAT_URL, _RESPONSES_URL):
        raise OptionError("url", url, f"{_CHAT_URL} or {_RESPONSES_URL}")
    if method != "POST":
        raise OptionError("method", method, "POST")
    body = dict(_mapping("body", form.get("body")))
    name = "input" if url == _RESPONSES_URL else "messages"
    content = body.pop(name, None)
    if url == _RESPONSES_URL:
        check_items(content, "body.input")
    else:
        check_messages(content, "body.messages")
    model = _model(body.pop("model", None))
    body.pop("stream", None)  # every call is a stream
    body.pop("stream_options", None)
    metadata = body.pop("metadata", None)
    return BatchPrompt(
        id=check_identifier("custom_id", form.get("custom_id")),
        input=content,
        model=model,
        parameters=_parameters(body),
        metadata=_mapping("body.metadata", metadata or {}),
        responses=url == _RESPONSES_URL,
    )


def _check_names(form: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in form:
        if name not in known:
            shown = str(name)
            meant = near_miss(shown, known)
            hint = f" (did you mean {meant!r}?)" if meant else f"; known: {', '.join(known)}"
            raise OptionError(shown[:40], Shown("it"), "", problem=f"unknown field{hint}")


def check_identifier(field: str, value: object) -> Identifier | None:
    """Return a prompt's id.

    Raises:
        OptionError: it is neither a string of 1 to 512 characters nor an integer of at most 64 bits.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise OptionError(field, type_of(value), "a string or an integer")
    if isinstance(value, str) and not 0 < len(value) <= _LONGEST_ID:
        raise OptionError(field, Shown(f"{len(value)} characters"), f"1 to {_LONGEST_ID} characters")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise OptionError(field, Shown("a larger number"), "an integer of 64 bits")
    return value


def _text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise OptionError(field, type_of(value), "a text")
    if not value.strip():
        raise OptionError(field, Shown("an empty text"), "a text")
    return value


def _model(value: object) -> str | None:
    return None if value is None else _text("model", value)


def _mapping(field: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise OptionError(field, type_of(value), "an object")
    return value


def _parameters(value: object) -> Mapping[str, Any]:
    parameters = _mapping("params", value)
    for name in parameters:
        if name in _NOT_PARAMETERS:
            raise OptionError(f"params.{name}", Shown("it"), "", problem="is not a parameter of a request")
    return parameters
