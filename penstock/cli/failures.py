"""Failures of a command: the exit code of each kind, and the line that explains it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from penstock.config.checks import near_miss
from penstock.config.providers import key_variables
from penstock.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    ConnectError,
    ContextLengthExceeded,
    OptionError,
    PenstockError,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    StoreError,
    StoreUnavailable,
    TeeError,
)

__all__ = ["EXIT_CODES", "CommandLineError", "check_known", "code_of", "explain"]

EXIT_CODES: Final[Mapping[int, str]] = {
    0: "success",
    1: "Penstock itself failed, or doctor found a problem",
    2: "the command line, a setting or a file is wrong",
    3: "the provider failed before any text of the answer, or stopped a batch",
    4: "the answer broke off, or prompts of a batch failed or were not asked",
    70: "a bug in Penstock",
    74: "standard output, or the file of --output, could not be written",
    130: "Ctrl-C",
    141: "the reader of standard output is gone",
    143: "SIGTERM",
}


class CommandLineError(PenstockError):
    """An argument of the command is wrong; the message is the whole explanation."""


def code_of(error: PenstockError, *, text_came: bool = False) -> int:
    """Return the exit code for ``error``; ``text_came``: some text of the answer has been printed."""
    if isinstance(error, CommandLineError | OptionError | StoreError):  # a store fails a command when it is opened
        return 2
    if isinstance(error, ProviderError):
        return 4 if text_came else 3
    return 74 if isinstance(error, TeeError) else 1


def check_known(kind: str, name: str, known: Iterable[str]) -> None:
    """Raise `CommandLineError` unless ``name`` is one of ``known``, with the nearest of them as a suggestion."""
    names = tuple(known)
    if name not in names:
        meant = near_miss(name.lower(), names)
        hint = f" (did you mean {meant!r}?)" if meant else ""
        raise CommandLineError(f"unknown {kind} {name!r}{hint}; known: {', '.join(names)}")


def explain(error: PenstockError, provider: str | None = None) -> str:
    """Return one line that says what failed and what to do about it.

    Args:
        error: what failed.
        provider: the name of the provider that was asked, where that is known.
    """
    if isinstance(error, OptionError) and (error.field, error.got) == ("api_key", None):
        return f"{str(error).removesuffix(' or pass api_key=.')}, or try --provider loopback, which needs no key"
    text = str(error)
    advice = _advice(error, provider)
    if not advice or _says(text, advice):
        return text
    return f"{text.removesuffix('.')}; {advice}"


def _says(text: str, advice: str) -> bool:
    """Whether the provider's own words are advice of this kind already."""
    if advice == _LATER:
        return re.search(r"\b(?:try|retry)\b.*\b(?:again|later|in|after)\b", text, re.IGNORECASE) is not None
    return advice in text


_LATER: Final = "try again later"
_TIMEOUT_ADVICE: Final = {
    "connect": "check the base URL and your network",
    "first_token": "the setting request.first_token_timeout allows more",
    "idle": "the setting request.idle_timeout allows more",
    "total": "--timeout allows more",
}


def _advice(error: PenstockError, provider: str | None) -> str:
    match error:
        case AuthenticationError():
            names = key_variables(provider or "")
            return f"check the key in {' or '.join([*names, ''])}the settings" if names else "check the provider's key"
        case ContextLengthExceeded():
            return "the prompt is too long for this model"
        case RateLimited():
            return _LATER if error.retryable else "check your plan with the provider"
        case BadRequestError(status=404):
            return "check --model and --base-url"
        case ConnectError():
            return "check --base-url, the proxy and your network"
        case ProviderTimeout(which=which):
            return _TIMEOUT_ADVICE[which]
        case ApiError(retryable=True):
            return _LATER
        case StoreUnavailable(store=store) if "://" in store:
            return "check --cluster, and whether that server runs"
    return ""
