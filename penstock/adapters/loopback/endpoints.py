"""Which response the loopback provider gives to which request. No I/O: a request in, a timeline out."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl, unquote

import msgspec

from penstock.adapters.loopback.dialects import (
    RESPONSES,
    Dialect,
    Query,
    Rejection,
    check_request,
    dialect_of,
    generation_target,
    reject_key,
    sent_key,
)
from penstock.adapters.loopback.encoder import AnswerContext
from penstock.adapters.loopback.ledger import Ledger, ReceivedRequest
from penstock.adapters.loopback.listings import list_models
from penstock.adapters.loopback.resumption import KeptResponses, ResumedEncoder
from penstock.adapters.loopback.script import Answer, Playback, Replay
from penstock.adapters.loopback.timeline import (
    TimelineStep,
    fault_timeline,
    replay_timeline,
    small_response,
    stream_timeline,
    whole_timeline,
)
from penstock.ports import Secret

__all__ = ["Endpoints"]

_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie"}
)

_Headers = Mapping[str, str]

_LISTS = {"/v1/models", "/v1beta/models", "/v1alpha/models", "/api/tags"}
_RESPONSE = "/v1/responses/"


class Endpoints:
    """Routes requests, checks them and gets their replies from the script. Used in the provider's thread only."""

    def __init__(self, playback: Playback, ledger: Ledger, api_key: Secret | None) -> None:
        self._playback = playback
        self._ledger = ledger
        self._api_key = api_key
        self._numbers = 0
        self._kept = KeptResponses()

    def respond(self, method: str, target: str, headers: _Headers, body: bytes) -> Iterator[TimelineStep]:
        """Return the timeline of the response to one complete request."""
        quoted, _, asked = target.partition("?")
        path, query = unquote(quoted), dict(parse_qsl(asked, keep_blank_values=True))
        if path == "/healthz":
            return (
                small_response(200, b'{"status":"ok"}')
                if method == "GET"
                else _not_allowed(dialect_of(path, {}, {}), "GET")
            )
        dialect = dialect_of(path, headers, query)
        request = self._record(method, path, query, headers, body)
        key = sent_key(dialect, headers, query)
        if self._api_key is not None and not hmac.compare_digest(key.encode(), self._api_key.reveal().encode()):
            return _refuse(dialect, reject_key(dialect, key))
        if generation_target(path, query) is not None:
            return self._generate(dialect, request) if method == "POST" else _not_allowed(dialect, "POST")
        if path not in _LISTS and path != "/api/version" and not path.startswith(_RESPONSE):
            message = f"Unknown request URL: {method} {path}."
            return _refuse(dialect, Rejection(status=404, message=message, code="unknown_url"))
        if method != "GET":
            return _not_allowed(dialect, "GET")
        if path.startswith(_RESPONSE):
            return self._response(path.removeprefix(_RESPONSE), query)
        if path == "/api/version":
            return small_response(200, b'{"version":"0.12.6"}')
        names = sorted({"loopback", *self._playback.script.models})
        listed = list_models(dialect, names, query)
        return _refuse(dialect, listed) if isinstance(listed, Rejection) else small_response(200, listed)

    def refuse(self, target: str, headers: _Headers, status: int, message: str) -> Iterator[TimelineStep]:
        """Return the timeline of an error response; the connection is closed after it."""
        path, _, asked = target.partition("?")
        dialect = dialect_of(path, headers, dict(parse_qsl(asked)))
        return _refuse(dialect, Rejection(status=status, message=message), (("connection", "close"),))

    def _record(self, method: str, path: str, query: Query, headers: _Headers, body: bytes) -> ReceivedRequest:
        self._numbers += 1
        try:
            parsed = msgspec.json.decode(body) if body else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            parsed = None
        asked = generation_target(path, query)
        model = asked.model if asked is not None else None
        if model is None and isinstance(parsed, dict):
            model = parsed.get("model")
        request = ReceivedRequest(
            number=self._numbers,
            method=method,
            path=path,
            model=model if isinstance(model, str) else None,
            body=parsed,
            headers={name: "***" if name in _SECRET_HEADERS else value for name, value in headers.items()},
        )
        self._ledger.record(request)
        return request

    def _generate(self, dialect: Dialect, request: ReceivedRequest) -> Iterator[TimelineStep]:
        refusal = check_request(dialect, request)
        if refusal is not None:
            return _refuse(dialect, refusal)
        try:
            reply = self._playback.reply(request)
        except Exception as error:  # the script is the user's code; an error in it must not end the server
            self._ledger.count(script_errors=1)
            message = f"the script failed: {type(error).__name__}: {error}"
            return _refuse(dialect, Rejection(status=500, message=message, code="script_error"))
        if isinstance(reply, Replay):
            return replay_timeline(reply)
        if not isinstance(reply, Answer):
            return fault_timeline(reply, dialect.encode_error)
        context = _context(request)
        if reply.choices and not dialect.has_choices:
            reply = reply.replace(choices=())
        if dialect is RESPONSES and context.background:
            self._kept.keep(reply, context)
        return _answer(dialect, reply, context, stream=request.stream)

    def _response(self, response_id: str, query: Query) -> Iterator[TimelineStep]:
        """Return the timeline of a kept response: the rest of its stream, or all of it."""
        after = query.get("starting_after", "-1")
        if not after.removeprefix("-").isdecimal():
            refusal = Rejection(status=400, message="Invalid type for 'starting_after'.", param="starting_after")
            return _refuse(RESPONSES, refusal)
        resumed = self._kept.resume(response_id)
        if resumed is None:
            message = f"Response with id '{response_id}' not found."
            return _refuse(RESPONSES, Rejection(status=404, message=message, param="id"))
        answer, context = resumed
        if query.get("stream") != "true":
            return whole_timeline(answer, ResumedEncoder(answer, context, -1))
        return stream_timeline(answer, lambda: ResumedEncoder(answer, context, int(after)))


def _answer(dialect: Dialect, answer: Answer, context: AnswerContext, *, stream: bool) -> Iterator[TimelineStep]:
    if stream:
        return stream_timeline(answer, lambda: dialect.make_encoder(answer, context))
    return whole_timeline(answer, dialect.make_encoder(answer, context), dialect.encode_error)


def _context(request: ReceivedRequest) -> AnswerContext:
    options = request.fields.get("stream_options")
    return AnswerContext(
        number=request.number,
        model=request.model or "",
        created=int(time.time()),
        input_tokens=request.count_words(),
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        background=request.fields.get("background") is True,
        top_logprobs=request.top_logprobs,
    )


def _refuse(dialect: Dialect, refusal: Rejection, headers: tuple[tuple[str, str], ...] = ()) -> Iterator[TimelineStep]:
    body = dialect.encode_error(refusal.status, refusal.message, refusal.code, refusal.param)
    return small_response(refusal.status, body, headers)


def _not_allowed(dialect: Dialect, allowed: str) -> Iterator[TimelineStep]:
    message = f"Method not allowed. This URL accepts {allowed}."
    return _refuse(dialect, Rejection(status=405, message=message, code="method_not_allowed"), (("allow", allowed),))
