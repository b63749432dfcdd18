"""The default script: a few answers and every fault, each under the name of a model."""

from __future__ import annotations

import json
from typing import Any

from penstock.adapters.loopback.faults import (
    DelayFirstByte,
    ErrorFrame,
    HangUp,
    HoldOpen,
    HugeEvent,
    InvalidUtf8,
    MalformedJson,
    NotAStream,
    ResetAfter,
    StallAfter,
    Status,
    TruncateAfter,
)
from penstock.adapters.loopback.ledger import ReceivedRequest
from penstock.adapters.loopback.parts import Found, Part, Picture, Ran, Said, Search, Silence, Source, Thought
from penstock.adapters.loopback.script import Answer, Cycle, Replies, Script, ScriptedCall

__all__ = ["default_script"]

_SENTENCES = (
    "Water falls, the gate decides how much of it works, and nobody downstream has to know how high the lake stands.",
    "Schöne Grüße aus dem Maschinenraum: every token you read here was pushed through a real socket – even this “ß”.",
    "水は低きに流れる。 Water flows to the low ground; a stream flows to whoever subscribed to it. 🌊",
    "Le flux s’arrête quand on ferme la vanne, pas quand on cesse de regarder. That is the difference between "
    "cancelling and detaching.",
    "Supervision is not about never failing; it is about knowing who will notice. Ждать у моря погоды is no strategy.",
)

_LOREM = (
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore "
    "magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo "
    "consequat. "
)


_WEATHER = {"city": "Zürich", "unit": "°C"}

_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
"""A picture of one transparent point."""
_PAGE = "https://en.wikipedia.org/wiki/Penstock"

_EXTRAS: tuple[Part, ...] = (
    Thought("The word has several meanings. I should look it up.", signature="bG9vcGJhY2s="),
    Said("Let me look that up. "),
    Search("penstock", [Found(_PAGE, "Penstock", "A penstock is a sluice or gate that controls water flow.")]),
    Silence(0.5),
    Said("A penstock "),
    Said(
        "controls the flow of water",
        citations=[Source(_PAGE, "Penstock", cited_text="a sluice or gate that controls water flow")],
    ),
    Said(". How much power is that? "),
    Ran("print(1000 * 9.81 * 20 * 50 / 1e6)", "9.81\n"),
    Said("With 20 m³/s and 50 m of fall, about 9.8 MW. "),
    Picture(_PIXEL),
)


def default_script(tokens_per_second: float = 40.0) -> Script:
    """Return the script of ``penstock loopback``; the docstring of the package has a table of its models.

    Raises:
        OptionError: ``tokens_per_second`` is not between 0.001 and 1e9.
    """
    answer = Answer(_SENTENCES[0], tokens_per_second=tokens_per_second)
    sentences = Cycle(tuple(answer.replace(text=text) for text in _SENTENCES))

    def echo(request: ReceivedRequest) -> Answer:
        return answer.replace(text=request.last_user_text)

    def tools(request: ReceivedRequest) -> Answer:
        return _call_a_tool(request, answer)

    models: dict[str, Replies] = {
        "loopback": sentences,
        "echo": echo,
        "lorem": answer.replace(text=_LOREM, repeat=400),
        "flood": Answer(_LOREM, repeat=10_000),
        "reasoning": answer.replace(reasoning="Let me think. Water runs downhill; so the answer must be below."),
        "extras": answer.replace(text="", parts=_EXTRAS, metadata={"service_tier": "default"}),
        "refusal": answer.replace(text="", refusal="I’m sorry, but I can’t help with that."),
        "tools": tools,
    }
    return Script(sentences, models | _faults(answer), answer)


def _call_a_tool(request: ReceivedRequest, answer: Answer) -> Answer:
    """Call the first tool of the request; if its result is there, repeat it."""
    if request.tool_result is not None:
        return answer.replace(text=f"The tool says: {request.tool_result}")
    name, schema = next(iter(request.tools), ("get_weather", None))
    arguments = json.dumps(_arguments(schema), ensure_ascii=False)
    return answer.replace(text="", tool_calls=(ScriptedCall(name, arguments),))


def _arguments(schema: Any) -> dict[str, Any]:
    """Return valid arguments for these parameters; without parameters, those of a weather request."""
    schema = schema if isinstance(schema, dict) else {}
    properties = schema.get("properties")
    if not isinstance(properties, dict) or (not properties and schema.get("additionalProperties") is not False):
        return dict(_WEATHER)
    required = schema.get("required")
    required = required if isinstance(required, list) else []
    return {name: _value(name, one) for name, one in properties.items() if name in _WEATHER or name in required}


def _value(name: str, schema: Any) -> Any:
    schema = schema if isinstance(schema, dict) else {}
    kind, choices = schema.get("type", "string"), schema.get("enum")
    if "const" in schema:
        return schema["const"]
    if isinstance(choices, list) and choices:
        return choices[0]
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "integer" | "number":
            return 17
        case "boolean":
            return True
        case "array":
            return []
        case "object":
            return {}
        case "null":
            return None
    return _WEATHER.get(name, "water")


def _faults(answer: Answer) -> dict[str, Replies]:
    return {
        "fault-503-once": Cycle((Status(503), answer)),
        "fault-503": Status(503),
        "fault-rate-limit": Cycle((Status(429, retry_after=1), answer)),
        "fault-401": Status(401),
        "fault-404": Status(404, code="model_not_found"),
        "fault-context-length": Status(400, code="context_length_exceeded"),
        "fault-hang-up": HangUp(),
        "fault-not-a-stream": NotAStream(),
        "fault-slow-start": DelayFirstByte(3),
        "fault-no-start": DelayFirstByte(None),
        "fault-stall": StallAfter(5),
        "fault-pause": StallAfter(5, seconds=3),
        "fault-reset": ResetAfter(5),
        "fault-reset-once": Cycle((ResetAfter(5), answer)),
        "fault-truncate": TruncateAfter(5, clean=True),
        "fault-cut": TruncateAfter(5),
        "fault-malformed": MalformedJson(5),
        "fault-error-frame": ErrorFrame(5),
        "fault-invalid-utf8": InvalidUtf8(5),
        "fault-huge-event": HugeEvent(8 * 1_048_576, after=5),
        "fault-no-done": answer.replace(done_marker=False),
        "fault-hold-open": HoldOpen(),
    }
