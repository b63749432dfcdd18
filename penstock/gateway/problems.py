"""What goes wrong, in the terms of an HTTP status and of OpenAI's error types; each protocol gives it its own form."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from penstock.config.checks import Shown
from penstock.errors import (
    AgentBusy,
    AgentExists,
    ApiError,
    AuthenticationError,
    BadRequestError,
    BufferFull,
    CallTimeout,
    CircuitOpen,
    ConnectError,
    ContentFilterError,
    ContextLengthExceeded,
    Fenced,
    IncompleteStream,
    LocalError,
    MergeError,
    NoOwner,
    OptionError,
    PenstockError,
    ProtocolError,
    ProviderBusy,
    ProviderError,
    ProviderTimeout,
    RaceError,
    RateLimited,
    RunawayAnswer,
    RunsElsewhere,
    SourceError,
    StoreError,
    StreamCancelledError,
    StreamClosed,
    StreamExists,
    StreamInterrupted,
    StreamNotFound,
    StreamPoisoned,
    StreamTimeout,
    SubscriberTooSlow,
    SystemStopped,
    TeeError,
    TransformError,
)

__all__ = ["INTERNAL", "MOVED", "UNSHOWN", "Problem", "RequestRefused", "problem_of", "shown_name", "type_name"]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request, or a stream, has failed.

    Attributes:
        status: the HTTP status, if no byte of the answer has been sent.
        type: ``invalid_request_error``, ``authentication_error``, ``permission_error``, ``not_found_error``,
            ``rate_limit_error`` or ``server_error``.
        code: one word for programs.
        message: a sentence for people, without keys and token text.
        param: the field of the request that is wrong.
        retry_after: seconds after which the same request may succeed.
        first_seq: if events are no longer kept one by one, the first that is.
    """

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    retry_after: float | None = None
    first_seq: int | None = None


_TYPES: Final = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
_NAME: Final = re.compile(r"[A-Za-z_][\w.\[\]-]{0,63}", re.ASCII)


def type_name(value: object) -> str:
    """What came, without its content.

    >>> type_name([]), type_name(None), type_name("")
    ('a list', 'null', 'an empty text')
    """
    return "an empty text" if value == "" else _TYPES.get(type(value), "a number")


def shown_name(name: str) -> str:
    """The name of a field as an error may show it; one that is no plain word may be content.

    >>> shown_name("top_p"), shown_name("a secret")
    ('top_p', '…')
    """
    return name if _NAME.fullmatch(name) else "…"


INTERNAL: Final = Problem(
    status=500, type="server_error", code="internal_error", message="The server has failed to handle the request."
)
"""A fault of the gateway's own."""
UNSHOWN: Final = Problem(
    status=500, type="server_error", code="internal_error", message="The stream cannot be shown in this protocol."
)
"""A fault of the gateway's own that only concerns a stream in one protocol."""


MOVED: Final = Problem(
    status=503,
    type="server_error",
    code="moved",
    message="Another server has the stream now. Connect again; it goes on after the cursor.",
    retry_after=0.5,
)
"""Why a reader's connection ends while its stream goes on: the stream runs on another node."""


NO_PROVIDER_KEY: Final = Problem(
    status=503,
    type="server_error",
    code="provider_key_missing",
    message="The gateway has no API key for this provider. Add it to the gateway's settings.",
)
"""A model was asked for whose provider needs a key that the gateway's settings lack: no fault of the request."""


class RequestRefused(PenstockError):
    """A request that the gateway refuses. ``problem`` says why."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.message)

    @classmethod
    def bad_request(cls, message: str, param: str | None = None, code: str = "invalid_request") -> RequestRefused:
        """A request with a wrong body or wrong parameters (400)."""
        return cls(Problem(status=400, type="invalid_request_error", code=code, message=message, param=param))

    @classmethod
    def unauthenticated(cls, message: str) -> RequestRefused:
        """A request without a valid key (401)."""
        return cls(Problem(status=401, type="authentication_error", code="invalid_api_key", message=message))

    @classmethod
    def not_found(cls, message: str, code: str = "not_found") -> RequestRefused:
        """A request for what does not exist (404)."""
        return cls(Problem(status=404, type="not_found_error", code=code, message=message))


_PROBLEMS: tuple[tuple[type[PenstockError], int, str, str], ...] = (
    (ContextLengthExceeded, 400, "invalid_request_error", "context_length_exceeded"),
    (ContentFilterError, 400, "invalid_request_error", "content_filter"),
    (RateLimited, 429, "rate_limit_error", "rate_limit_exceeded"),
    (ProviderBusy, 429, "rate_limit_error", "provider_busy"),
    (AgentBusy, 429, "rate_limit_error", "agent_busy"),
    (BufferFull, 429, "rate_limit_error", "buffer_full"),
    (AuthenticationError, 502, "server_error", "provider_authentication"),
    (CircuitOpen, 503, "server_error", "provider_unavailable"),
    (ConnectError, 502, "server_error", "provider_unavailable"),
    (ProviderTimeout, 504, "server_error", "provider_timeout"),
    (IncompleteStream, 502, "server_error", "stream_interrupted"),
    (StreamCancelledError, 499, "server_error", "stream_cancelled"),
    (OptionError, 400, "invalid_request_error", "invalid_request"),
    (NoOwner, 503, "server_error", "no_owner"),
    (RunsElsewhere, 409, "invalid_request_error", "runs_elsewhere"),
    (Fenced, 503, "server_error", "moved"),
    (StreamInterrupted, 502, "server_error", "stream_interrupted"),
    (StoreError, 503, "server_error", "store_unavailable"),
    (StreamNotFound, 404, "not_found_error", "stream_not_found"),
    (StreamClosed, 409, "invalid_request_error", "stream_ended"),
    (StreamExists, 409, "invalid_request_error", "stream_exists"),
    (AgentExists, 409, "invalid_request_error", "agent_exists"),
    (SystemStopped, 503, "server_error", "stopped"),
    (CallTimeout, 503, "server_error", "busy"),
    (ProviderError, 502, "server_error", "provider_error"),
    (StreamTimeout, 504, "server_error", "stream_timeout"),
    (MergeError, 502, "server_error", "inputs_failed"),
    (RaceError, 502, "server_error", "attempts_failed"),
    (RunawayAnswer, 502, "server_error", "runaway_answer"),
    (SourceError, 502, "server_error", "source_failed"),
    (TransformError, 500, "server_error", "transform_failed"),
    (TeeError, 500, "server_error", "copy_failed"),
)
"""The first class that fits counts. The server's own key being wrong is no fault of the client: 502."""


_SENTENCES: Final[dict[type[PenstockError], str]] = {
    NoOwner: "No server runs the stream now. Try again.",
    RunsElsewhere: "Another server runs the stream, and this is possible only there.",
    Fenced: "Another server has the stream now. Connect again; it goes on after the cursor.",
    StreamInterrupted: "The server that ran the stream has ended.",
    StreamPoisoned: "The stream was given up, as several servers that ran it have ended.",
    StreamNotFound: "There is no stream with this id, or it ended too long ago.",
    StreamExists: "There is a stream with this id already; choose another one.",
    StreamClosed: "The stream is closed: it has ended or is ending.",
    StreamCancelledError: "The stream was cancelled.",
    SubscriberTooSlow: "The reader was too slow. It may go on after its cursor.",
    AgentExists: "There is an agent with this name already; stop it first, or choose another name.",
    AgentBusy: "The agent is busy, and its queue is full.",
    SystemStopped: "The system is not running.",
    CallTimeout: "The server has not done it in time.",
    AuthenticationError: "The provider has refused the server's API key.",
    ConnectError: "The provider cannot be reached.",
    LocalError: "The server cannot make a request to the provider now.",
    ProviderBusy: "The limits that are set for the provider gave the request no turn in time.",
    CircuitOpen: "The provider has failed too often, and is not asked for a while.",
    ProtocolError: "The provider has sent what its protocol does not allow.",
    IncompleteStream: "The provider's stream stopped before its end.",
    StreamTimeout: "The answer took longer than its time limit.",
    MergeError: "Some of the streams that this one is made from have failed.",
    RaceError: "All attempts at the answer have failed.",
    RunawayAnswer: "The answer repeated itself without end, and was ended.",
    SourceError: "What feeds the stream has failed.",
    TransformError: "A function that changes the stream has failed.",
    TeeError: "The copy of the stream could not be written.",
}
"""In place of messages that repeat an id, a name or a reason, which another client may have chosen, or that name the
server's own hosts and keys. The other errors of providers have the provider's own sentence, with stars for keys."""


def _sentence(error: PenstockError) -> str:
    """The error's message, without values that may be a client's."""
    if isinstance(error, OptionError):
        return " ".join(_about_option(one) for one in (error, *error.others))
    if isinstance(error, BufferFull):
        return f"The stream's buffer has no room for all tokens. The first {error.accepted} were taken."
    if isinstance(error, StoreError):  # its message names the server
        return "The store of the streams does not work now. Try again."
    return _SENTENCES.get(type(error)) or str(error)


def _about_option(error: OptionError) -> str:
    got, field = error.got, ".".join(shown_name(each) for each in error.field.split("."))
    if error.problem is not None and not (isinstance(got, str) and got and got in error.problem):
        return f"{field}: {error.problem}."
    what = got if isinstance(got, Shown) else type_name(got)
    return f"{field}: got {what}, allowed: {error.allowed}."


def problem_of(error: PenstockError) -> Problem:
    """Describe an error of Penstock's, for a client.

    >>> problem_of(OptionError("n", 0, "1 or more")).param
    'n'
    """
    if isinstance(error, RequestRefused):
        return error.problem
    if isinstance(error, OptionError) and (error.field, error.got) == ("api_key", None):
        return NO_PROVIDER_KEY
    retry_after = getattr(error, "retry_after", None)
    if type(error) is BadRequestError or (type(error) is ApiError and error.status in (404, 413, 422)):
        assert isinstance(error, ApiError)
        status, kind, code = error.status, "invalid_request_error", error.code or "invalid_request"
        if status == 404:
            kind, code = "not_found_error", error.code or "model_not_found"
        return Problem(status=status if 400 <= status < 500 else 400, type=kind, code=code, message=str(error))
    for known, status, kind, code in _PROBLEMS:
        if isinstance(error, known):
            param = shown_name(error.field) if isinstance(error, OptionError) else None
            return Problem(
                status=status, type=kind, code=code, message=_sentence(error), param=param, retry_after=retry_after
            )
    return Problem(status=500, type="server_error", code="internal_error", message=type(error).__name__)
