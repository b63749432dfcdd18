"""What the loopback provider answers at which address. No I/O: a request in, a score out."""

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
    Refusal,
    complaint,
    dialect_of,
    generating,
    sent_key,
    unauthorized,
)
from penstock.adapters.loopback.ledger import Ledger, ReceivedRequest
from penstock.adapters.loopback.listings import list_models
from penstock.adapters.loopback.resumption import KeptResponses, ResumedWire
from penstock.adapters.loopback.score import Act, plain, score_fault, score_replay, score_stream, score_whole
from penstock.adapters.loopback.script import Answer, Playback, Replay
from penstock.adapters.loopback.wire import Exchange
from penstock.ports import Secret

__all__ = ["Endpoints"]

_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie"}
)

_Headers = Mapping[str, str]

_LISTS = {"/v1/models", "/v1beta/models", "/v1alpha/models", "/api/tags"}
_RESPONSE = "/v1/responses/"


class Endpoints:
    """Routes requests, checks them, asks the script. Lives in the provider's thread."""

    def __init__(self, playback: Playback, ledger: Ledger, api_key: Secret | None) -> None:
        self._playback = playback
        self._ledger = ledger
        self._api_key = api_key
        self._numbers = 0
        self._kept = KeptResponses()

    def respond(self, method: str, target: str, headers: _Headers, body: bytes) -> Iterator[Act]:
        """Give what is to be done for one request that came whole."""
        quoted, _, asked = target.partition("?")
        path, query = unquote(quoted), dict(parse_qsl(asked, keep_blank_values=True))
        if path == "/healthz":
            return plain(200, b'{"status":"ok"}') if method == "GET" else _not_allowed(dialect_of(path, {}, {}), "GET")
        dialect = dialect_of(path, headers, query)
        request = self._record(method, path, query, headers, body)
        key = sent_key(dialect, headers, query)
        if self._api_key is not None and not hmac.compare_digest(key.encode(), self._api_key.reveal().encode()):
            return _refuse(dialect, unauthorized(dialect, key))
        if generating(path, query) is not None:
            return self._generate(dialect, request) if method == "POST" else _not_allowed(dialect, "POST")
        if path not in _LISTS and path != "/api/version" and not path.startswith(_RESPONSE):
            message = f"Unknown request URL: {method} {path}."
            return _refuse(dialect, Refusal(status=404, message=message, code="unknown_url"))
        if method != "GET":
            return _not_allowed(dialect, "GET")
        if path.startswith(_RESPONSE):
            return self._response(path.removeprefix(_RESPONSE), query)
        if path == "/api/version":
            return plain(200, b'{"version":"0.12.6"}')
        names = sorted({"loopback", *self._playback.script.models})
        listed = list_models(dialect, names, query)
        return _refuse(dialect, listed) if isinstance(listed, Refusal) else plain(200, listed)

    def refuse(self, target: str, headers: _Headers, status: int, message: str) -> Iterator[Act]:
        """Give what is to be done for a request that is not to be served; the connection is closed then."""
        path, _, asked = target.partition("?")
        dialect = dialect_of(path, headers, dict(parse_qsl(asked)))
        return _refuse(dialect, Refusal(status=status, message=message), (("connection", "close"),))

    def _record(self, method: str, path: str, query: Query, headers: _Headers, body: bytes) -> ReceivedRequest:
        self._numbers += 1
        try:
            parsed = msgspec.json.decode(body) if body else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            parsed = None
        asked = generating(path, query)
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

    def _generate(self, dialect: Dialect, request: ReceivedRequest) -> Iterator[Act]:
        refusal = complaint(dialect, request)
        if refusal is not None:
            return _refuse(dialect, refusal)
        try:
            reply = self._playback.reply(request)
        except Exception as error:  # the script is the user's code; a broken one must not take the server with it
            self._ledger.count(script_errors=1)
            message = f"the script failed: {type(error).__name__}: {error}"
            return _refuse(dialect, Refusal(status=500, message=message, code="script_error"))
        if isinstance(reply, Replay):
            return score_replay(reply)
        if not isinstance(reply, Answer):
            return score_fault(reply, dialect.encode_error)
        exchange = _exchange(request)
        if reply.choices and not dialect.has_choices:
            reply = reply.replace(choices=())
        if dialect is RESPONSES and exchange.background:
            self._kept.keep(reply, exchange)
        return _answer(dialect, reply, exchange, stream=request.stream)

    def _response(self, response_id: str, query: Query) -> Iterator[Act]:
        """A response that was kept: the rest of its stream, or all of it."""
        after = query.get("starting_after", "-1")
        if not after.removeprefix("-").isdecimal():
            refusal = Refusal(status=400, message="Invalid type for 'starting_after'.", param="starting_after")
            return _refuse(RESPONSES, refusal)
        resumed = self._kept.resume(response_id)
        if resumed is None:
            message = f"Response with id '{response_id}' not found."
            return _refuse(RESPONSES, Refusal(status=404, message=message, param="id"))
        answer, exchange = resumed
        if query.get("stream") != "true":
            return score_whole(answer, ResumedWire(answer, exchange, -1))
        return score_stream(answer, lambda: ResumedWire(answer, exchange, int(after)))


def _answer(dialect: Dialect, answer: Answer, exchange: Exchange, *, stream: bool) -> Iterator[Act]:
    if stream:
        return score_stream(answer, lambda: dialect.make_wire(answer, exchange))
    return score_whole(answer, dialect.make_wire(answer, exchange), dialect.encode_error)


def _exchange(request: ReceivedRequest) -> Exchange:
    options = request.fields.get("stream_options")
    return Exchange(
        number=request.number,
        model=request.model or "",
        created=int(time.time()),
        input_tokens=request.count_words(),
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        background=request.fields.get("background") is True,
    )


def _refuse(dialect: Dialect, refusal: Refusal, headers: tuple[tuple[str, str], ...] = ()) -> Iterator[Act]:
    body = dialect.encode_error(refusal.status, refusal.message, refusal.code, refusal.param)
    return plain(refusal.status, body, headers)


def _not_allowed(dialect: Dialect, allowed: str) -> Iterator[Act]:
    message = f"Not allowed to do this at this URL; it takes {allowed}."
    return _refuse(dialect, Refusal(status=405, message=message, code="method_not_allowed"), (("allow", allowed),))
