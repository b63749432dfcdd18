"""What the loopback provider answers at which address. No I/O: a request in, a score out."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from penstock.adapters.loopback.chat_wire import ChatWire
from penstock.adapters.loopback.ledger import Ledger, ReceivedRequest
from penstock.adapters.loopback.responses_wire import ResponsesWire
from penstock.adapters.loopback.score import Act, plain, score_fault, score_replay, score_stream, score_whole
from penstock.adapters.loopback.script import Answer, Playback, Replay
from penstock.adapters.loopback.wire import Exchange, Wire, encode_error
from penstock.ports import Secret

__all__ = ["Endpoints"]

_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"})

_Headers = Mapping[str, str]


class _MakeWire(Protocol):
    def __call__(self, answer: Answer, exchange: Exchange) -> Wire: ...


_GENERATING: dict[str, tuple[_MakeWire, str]] = {
    "/v1/chat/completions": (ChatWire, "messages"),
    "/v1/responses": (ResponsesWire, "input"),
}
"""Path to dialect, and the field that must be there."""


class Endpoints:
    """Routes requests, checks them, asks the script. Lives in the provider's thread."""

    def __init__(self, playback: Playback, ledger: Ledger, api_key: Secret | None) -> None:
        self._playback = playback
        self._ledger = ledger
        self._api_key = api_key
        self._numbers = 0

    def respond(self, method: str, target: str, headers: _Headers, body: bytes) -> Iterator[Act]:
        """Give what is to be done for one request that came whole."""
        path = target.partition("?")[0]
        if path == "/healthz":
            return plain(200, b'{"status":"ok"}') if method == "GET" else _not_allowed("GET")
        request = self._record(method, path, headers, body)
        if not self._authorized(headers):
            return plain(401, encode_error(401))
        if path in _GENERATING:
            return self._generate(request) if method == "POST" else _not_allowed("POST")
        if path == "/v1/models":
            return plain(200, self._models()) if method == "GET" else _not_allowed("GET")
        return plain(404, encode_error(404, f"Unknown request URL: {method} {path}.", "unknown_url"))

    def _record(self, method: str, path: str, headers: _Headers, body: bytes) -> ReceivedRequest:
        self._numbers += 1
        try:
            parsed = msgspec.json.decode(body) if body else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            parsed = None
        model = parsed.get("model") if isinstance(parsed, dict) else None
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

    def _authorized(self, headers: _Headers) -> bool:
        if self._api_key is None:
            return True
        expected = f"Bearer {self._api_key.reveal()}"
        return hmac.compare_digest(headers.get("authorization", "").encode(), expected.encode())

    def _generate(self, request: ReceivedRequest) -> Iterator[Act]:
        make_wire, needed = _GENERATING[request.path]
        complaint = _complaint(request, needed)
        if complaint is not None:
            return complaint
        try:
            reply = self._playback.reply(request)
        except Exception as error:  # the script is the user's code; a broken one must not take the server with it
            self._ledger.count(script_errors=1)
            return plain(500, encode_error(500, f"the script failed: {type(error).__name__}: {error}", "script_error"))
        if isinstance(reply, Replay):
            return score_replay(reply)
        if not isinstance(reply, Answer):
            return score_fault(reply)
        exchange = _exchange(request)
        if request.stream:
            return score_stream(reply, _bound(make_wire, reply, exchange))
        return score_whole(reply, make_wire(reply, exchange))

    def _models(self) -> bytes:
        names = sorted({"loopback", *self._playback.script.models})
        entries = [{"id": name, "object": "model", "created": 0, "owned_by": "penstock"} for name in names]
        return msgspec.json.encode({"object": "list", "data": entries})


def _bound(make_wire: _MakeWire, answer: Answer, exchange: Exchange) -> Callable[[], Wire]:
    return lambda: make_wire(answer, exchange)


def _exchange(request: ReceivedRequest) -> Exchange:
    options = request.body.get("stream_options")
    return Exchange(
        number=request.number,
        model=request.model or "",
        created=int(time.time()),
        input_tokens=request.count_words(),
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def _complaint(request: ReceivedRequest, needed: str) -> Iterator[Act] | None:
    """A 400 for a request that no provider would take."""
    body: Any = request.body
    if not isinstance(body, dict):
        return plain(400, encode_error(400, "We could not parse the JSON body of your request.", "invalid_json"))
    if not request.model:
        return _missing("model")
    if not isinstance(body.get(needed), list) and not (needed == "input" and isinstance(body.get(needed), str)):
        return _missing(needed)
    return None


def _missing(param: str) -> Iterator[Act]:
    message = f"Missing required parameter, or one of the wrong type: {param!r}."
    return plain(400, encode_error(400, message, "missing_required_parameter", param))


def _not_allowed(allowed: str) -> Iterator[Act]:
    body = encode_error(405, f"Not allowed to do this at this URL; it takes {allowed}.", "method_not_allowed")
    return plain(405, body, (("allow", allowed),))
