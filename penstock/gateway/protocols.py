"""The protocols by name: what frames its readers get, and what its errors look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, Literal

import msgspec

from penstock.events import FrozenDict
from penstock.gateway.problems import Problem, RequestRefused
from penstock.gateway.projections.agui import AguiProjection
from penstock.gateway.projections.agui import error_body as agui_error
from penstock.gateway.projections.anthropic import AnthropicProjection, anthropic_status
from penstock.gateway.projections.anthropic import error_body as anthropic_error
from penstock.gateway.projections.chat import ChatProjection, error_body
from penstock.gateway.projections.frames import Projection, encode
from penstock.gateway.projections.native import NativeProjection
from penstock.gateway.projections.responses import ResponsesProjection
from penstock.gateway.projections.socket import SocketProjection
from penstock.gateway.projections.ui import UiProjection, error_text

__all__ = ["PROTOCOLS", "STREAM_HEADERS", "Protocol", "choices", "events_in", "variant_in"]

_CHOICES: Final = ("v", "events", "extras", "raw", "dynamic", "reasoning_field")
STREAM_HEADERS: Final = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache, no-transform"),
    ("x-accel-buffering", "no"),
)
"""Of every stream of events. Proxies must neither keep nor collect nor change them."""


class Protocol(msgspec.Struct, frozen=True, kw_only=True):
    """A protocol.

    Attributes:
        name: in URLs and settings.
        projection: makes its frames.
        orphan: what happens by default to a stream that was opened in this protocol, when its last reader leaves.
        error: an error as the body of a response, by the problem and the request's id.
        error_kind: the media type of that.
        status: the HTTP status of a problem.
        headers: of its streams, besides `STREAM_HEADERS`.
        variants: what a reader may choose, with all values; none: any value, which only the gateway itself sets.
    """

    name: str
    projection: type[Projection]
    orphan: Literal["cancel", "linger"]
    error: Callable[[Problem, str], bytes]
    error_kind: str = "application/json"
    status: Callable[[Problem], int] = lambda problem: problem.status
    headers: tuple[tuple[str, str], ...] = ()
    variants: Mapping[str, tuple[str, ...]] = FrozenDict()

    def closed(self, variant: Mapping[str, str]) -> dict[str, str]:
        """What of a variant makes a difference to the frames.

        Raises:
            RequestRefused: a value is none that there is (400).
        """
        made: dict[str, str] = {}
        for name, value in variant.items():
            known = self.variants.get(name)
            if known is None:
                continue
            if known and value not in known:
                raise RequestRefused.bad_request(f"{name}: there are {', '.join(known)}.", name)
            made[name] = value
        return made


def events_in(message: Mapping[str, Any]) -> dict[str, str]:
    """Which events a message of the native WebSocket asks for, as a variant.

    Raises:
        RequestRefused: there are none of that name (400).
    """
    chosen = message.get("events")
    return {} if chosen in (None, "all") else PROTOCOLS["socket"].closed({"events": chosen})


def variant_in(query: Mapping[str, str]) -> dict[str, str]:
    """What a reader chooses of what frames look like, in the query of its URL.

    What the reader's protocol does not have stays in it, for `Protocol.closed` to leave out.

    Raises:
        RequestRefused: a value is one that no protocol has (400).
    """
    made = {name: query[name] for name in _CHOICES if name in query}
    for name, value in made.items():
        known = choices()[name]
        if value not in known:
            raise RequestRefused.bad_request(f"{name}: there are {', '.join(known)}.", name)
    return made


@cache
def choices(protocol: str | None = None) -> Mapping[str, tuple[str, ...]]:
    """What a reader may choose in a query, with all values: in one protocol, or in any of them."""
    asked = [one for one in PROTOCOLS.values() if protocol in (None, one.name)]
    found = {name: [each for one in asked for each in one.variants.get(name, ())] for name in _CHOICES}
    return FrozenDict({name: tuple(dict.fromkeys(values)) for name, values in found.items() if values})


def _openai_error(problem: Problem, request_id: str) -> bytes:
    if problem.type == "gone":  # OpenAI has no such type
        problem = msgspec.structs.replace(problem, type="invalid_request_error")
    return encode(error_body(problem))


def _native_error(problem: Problem, request_id: str) -> bytes:
    body = error_body(problem)
    if problem.first_seq is not None:
        body["error"]["first_seq"] = problem.first_seq
    return encode(body)


_SWITCH: Final = ("0", "1")
_CHAT: Final = FrozenDict(
    reasoning_field=("reasoning_content", "reasoning"), extras=("none", "penstock"), events=("plain", "numbered")
)
_NATIVE: Final = FrozenDict(events=("all", "simple"))
_UI: Final = FrozenDict(
    {
        "v": ("5.0", "5", "6", "7"),
        "dynamic": _SWITCH,
        "raw": _SWITCH,
        "reset": ("part", "error"),
        "approval": ("end", "wait"),
        "from": (),
        "decided": (),
    }
)
PROTOCOLS: Final[dict[str, Protocol]] = {
    "openai": Protocol(name="openai", projection=ChatProjection, orphan="cancel", error=_openai_error, variants=_CHAT),
    "responses": Protocol(
        name="responses",
        projection=ResponsesProjection,
        orphan="cancel",
        error=_openai_error,
        variants=FrozenDict(reasoning=("text", "summary")),
    ),
    "anthropic": Protocol(
        name="anthropic",
        projection=AnthropicProjection,
        orphan="cancel",
        error=lambda problem, request_id: encode(anthropic_error(problem, request_id or None)),
        status=anthropic_status,
    ),
    "ui": Protocol(
        name="ui",
        projection=UiProjection,
        orphan="linger",
        error=lambda problem, request_id: error_text(problem).encode(),
        error_kind="text/plain; charset=utf-8",
        variants=_UI,
        headers=(("x-vercel-ai-ui-message-stream", "v1"),),
    ),
    "agui": Protocol(
        name="agui",
        projection=AguiProjection,
        orphan="linger",
        error=lambda problem, request_id: encode(agui_error(problem)),
        variants=FrozenDict({"from": (), "decided": (), "run": ()}),
    ),
    "native": Protocol(
        name="native", projection=NativeProjection, orphan="linger", error=_native_error, variants=_NATIVE
    ),
    "socket": Protocol(
        name="socket", projection=SocketProjection, orphan="linger", error=_openai_error, variants=_NATIVE
    ),
}
