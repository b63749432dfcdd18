"""Finish reasons by which a server reports that it did not finish the answer."""

from __future__ import annotations

from typing import Final, NamedTuple

from penstock.adapters.providers.shared.surrogates import replace_surrogates
from penstock.errors import ApiError

__all__ = ["ABORTS", "Abort", "abort_error"]

_LONGEST_WORD = 100


class Abort(NamedTuple):
    """What a word means, whether the same request may succeed later, and the servers that send it."""

    meaning: str
    retryable: bool
    origin: str


ABORTS: Final[dict[str, Abort]] = {
    "abort": Abort("the server aborted the request", True, "vLLM `FINISH_REASON_STRINGS`; SGLang `FINISH_ABORT`"),
    "aborted": Abort("the server aborted the request", True, "gateways in front of vLLM and DeepSeek"),
    "error": Abort(
        "the server failed", True, "vLLM `FINISH_REASON_STRINGS`; Mistral; OpenRouter; Cohere `ERROR`; AI gateways"
    ),
    "cancel": Abort("the server cancelled the request", True, "lllms and other local servers"),
    "cancelled": Abort("the server cancelled the request", True, "TensorRT-LLM"),
    "canceled": Abort("the server cancelled the request", True, "the American spelling of the one above"),
    "user_cancel": Abort("the server cancelled the request", True, "Cohere `USER_CANCEL`"),
    "timeout": Abort("the server ran out of time", True, "TensorRT-LLM; Cohere `TIMEOUT`; lllms"),
    "timed_out": Abort("the server ran out of time", True, "TensorRT-LLM's executor `kTIMED_OUT`"),
    "insufficient_system_resource": Abort("the server ran out of resources", True, "DeepSeek"),
    "network_error": Abort("the server lost its connection to the model", True, "Z.ai (GLM)"),
    "upstream_error": Abort("the gateway's provider failed", True, "LLM Gateway `getFinishReasonFromError`"),
    "gateway_error": Abort("the gateway failed", True, "LLM Gateway `getFinishReasonFromError`"),
    "client_error": Abort("the gateway refused the request", False, "LLM Gateway `getFinishReasonFromError`"),
    "failed": Abort("the server failed", True, "servers that convert from OpenAI's Responses API"),
}
"""By the word in lower case. The table in ``docs/providers.md`` repeats it; a test compares them."""


def abort_error(raw: str) -> ApiError | None:
    """Return the error that a finish reason stands for; None if it ends an answer.

    >>> str(abort_error("ABORT"))
    'HTTP 200 ABORT: the server aborted the request'
    """
    abort = ABORTS.get(raw.lower().removeprefix("finish_reason_"))
    if abort is None:
        return None
    return ApiError(200, abort.meaning, code=replace_surrogates(raw[:_LONGEST_WORD]), retryable=abort.retryable)
