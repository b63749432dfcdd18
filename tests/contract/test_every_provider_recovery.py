"""What every provider's streams do when it fails: retry, restart, resume, or use a fallback."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import penstock
from penstock.adapters.loopback.faults import (
    ErrorFrame,
    HangUp,
    ResetAfter,
    StallAfter,
    Status,
    TruncateAfter,
)
from penstock.adapters.loopback.script import Replies, Reply
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.events import ToolCallDelta
from tests.contract.providers import (
    ANSWER,
    ANTHROPIC,
    CALLED,
    EVERY,
    FIVE,
    GEMINI,
    ONCE,
    OPENAI,
    REASONED,
    RESPONSES,
    SOON,
    TEXT,
    WIRES,
    Wire,
    completed,
    failed,
    house,
    on_the_way,
    serving,
)

pytestmark = pytest.mark.usefixtures("each_reader")

BEFORE: Mapping[str, Reply] = {
    "status": Status(503),
    "overloaded": Status(529),
    "limited": Status(429, retry_after=0),
    "gone": HangUp(),
    "reset-at-once": HangUp(reset=True),
    "nothing": on_the_way(TruncateAfter(0, clean=True)),
    "reset-first": on_the_way(ResetAfter(0)),
}
NEVER = (400, 401, 403, 404, 413)
AGAIN: Mapping[str, tuple[Reply, str]] = {
    "reset": (REASONED.replace(faults=(ResetAfter(8),)), "IncompleteStream"),
    "reasoning": (REASONED.replace(faults=(ResetAfter(1),)), "IncompleteStream"),
    "truncated": (REASONED.replace(faults=(TruncateAfter(8, clean=True),)), "IncompleteStream"),
    "idle": (REASONED.replace(faults=(StallAfter(8),)), "ProviderTimeout"),
}
RESUMABLE = REASONED.replace(tool_calls=CALLED.tool_calls)
RESUMED = {
    "reasoning": RESUMABLE.replace(faults=(ResetAfter(1),)),
    "text": RESUMABLE.replace(faults=(ResetAfter(8),)),
    "cut": RESUMABLE.replace(faults=(TruncateAfter(8),)),
    "truncated": RESUMABLE.replace(faults=(TruncateAfter(8, clean=True),)),
    "silent": RESUMABLE.replace(faults=(StallAfter(8),)),
    "call": RESUMABLE.replace(faults=(ResetAfter(24),)),
    "thrice": RESUMABLE.replace(faults=(ResetAfter(5),), resumptions=((TruncateAfter(4),), (ResetAfter(6),))),
}


def of_each(wire: Wire) -> dict[str, Replies]:
    """The replies to one request, or to several in turn, for each provider."""
    name = wire.name
    models: dict[str, Replies] = {f"once-{kind}-{name}": [reply, ANSWER] for kind, reply in BEFORE.items()}
    models |= {f"never-{status}-{name}": [Status(status), ANSWER] for status in NEVER}
    models |= {f"again-{kind}-{name}": [reply, REASONED] for kind, (reply, _) in AGAIN.items()}
    for on_interrupt in ("fail", "resume"):
        behind = {
            "reset": on_the_way(ResetAfter(5)),
            "reasoned": REASONED.replace(faults=(ResetAfter(1),)),
            "frame": on_the_way(ErrorFrame(5)),
        }
        models |= {f"behind-{kind}-{on_interrupt}-{name}": [reply, ANSWER] for kind, reply in behind.items()}
    models |= {f"backup-{name}-{other.name}": ANSWER for other in WIRES}
    return models | {
        f"thrice-{name}": [Status(503), HangUp(), Status(429, retry_after=0), ANSWER],
        f"always-{name}": Status(503),
        f"down-{name}": Status(503),
    }


@pytest.fixture(scope="module")
def server(each_reader: str) -> Iterator[LoopbackProvider]:
    models: dict[str, Replies] = {f"resumed-{name}": answer for name, answer in RESUMED.items()}
    for wire in WIRES:
        models |= of_each(wire)
    with serving(models) as running:
        yield running


def soon_silent(options: penstock.RequestOptions, is_silent: bool) -> penstock.RequestOptions:
    """With a short idle time-out, which the later answer does not reach, since it comes at once."""
    return options.replace(idle_timeout=1.0) if is_silent else options


# --- again -----------------------------------------------------------------------------------------------------------


@EVERY
def test_what_fails_before_the_first_delta_is_tried_again(server: LoopbackProvider, wire: Wire) -> None:
    with house(server, SOON) as here:
        watched = {name: here.watch(wire, f"once-{name}-{wire.name}") for name in BEFORE}
        watched["thrice"] = here.watch(wire, f"thrice-{wire.name}")
        for name, collector in watched.items():
            end = completed(collector)
            assert end.text == TEXT, name
            assert not any(isinstance(event, penstock.StreamReset) for event in collector.events)
            prefix = name if name == "thrice" else f"once-{name}"
            assert len(here.requests(f"{prefix}-{wire.name}")) == (4 if name == "thrice" else 2), name
            assert end.metrics is not None
            assert end.metrics.errors == (3 if name == "thrice" else 1)


@EVERY
def test_there_are_only_so_many_retries(server: LoopbackProvider, wire: Wire) -> None:
    with house(server, SOON.replace(max_retries=2)) as here:
        error = failed(here.watch(wire, f"always-{wire.name}")).error
        assert isinstance(error, penstock.ApiError)
        assert len(here.requests(f"always-{wire.name}")) == 3


@EVERY
def test_what_will_never_work_is_not_tried_again(server: LoopbackProvider, wire: Wire) -> None:
    with house(server, SOON) as here:
        watched = {status: here.watch(wire, f"never-{status}-{wire.name}") for status in NEVER}
        for status, collector in watched.items():
            assert not failed(collector).error.retryable  # type: ignore[attr-defined]
            assert len(here.requests(f"never-{status}-{wire.name}")) == 1


@EVERY
@pytest.mark.parametrize("on_interrupt", ["fail", "resume"])
def test_what_fails_behind_the_first_delta_is_not_tried_again(
    server: LoopbackProvider, wire: Wire, on_interrupt: Any
) -> None:
    with house(server, SOON.replace(on_interrupt=on_interrupt)) as here:
        if (wire, on_interrupt) == (RESPONSES, "resume"):
            return  # that one can: see below
        kinds = ("reset", "reasoned") if not wire.tells_errors_kind else ("reset", "reasoned", "frame")
        for kind in kinds:
            name = f"behind-{kind}-{on_interrupt}-{wire.name}"
            collector = here.watch(wire, name)
            end = failed(collector)
            assert end.error.retryable  # type: ignore[attr-defined]
            assert len(here.requests(name)) == 1
            assert not any(isinstance(event, penstock.StreamReset) for event in collector.events)
            assert end.text == ("" if kind == "reasoned" else FIVE)


@EVERY
def test_restart_voids_what_came_and_says_the_whole_text_once(server: LoopbackProvider, wire: Wire) -> None:
    options = SOON.replace(on_interrupt="restart")
    with house(server) as here:
        watched = {
            name: here.watch(wire, f"again-{name}-{wire.name}", request_options=soon_silent(options, name == "idle"))
            for name in AGAIN
        }
        for name, collector in watched.items():
            end = completed(collector)
            assert (end.text, end.reasoning, collector.text) == (TEXT, "so it is", TEXT), name
            resets = [event for event in collector.events if isinstance(event, penstock.StreamReset)]
            assert [reset.reason for reset in resets] == [AGAIN[name][1]], name
            requests = here.requests(f"again-{name}-{wire.name}")
            assert len(requests) == 2
            assert requests[0].body == requests[1].body
            assert len(end.reasoning_blocks) <= 1, "no block of the void answer is kept"


def test_a_response_is_taken_up_where_it_broke(server: LoopbackProvider) -> None:
    options = SOON.replace(on_interrupt="resume")
    with house(server) as here:
        watched = {
            name: here.watch(RESPONSES, f"resumed-{name}", request_options=soon_silent(options, name == "silent"))
            for name in RESUMED
        }
        for name, collector in watched.items():
            end = completed(collector)
            assert (end.text, end.reasoning, collector.text) == (TEXT, "so it is", TEXT), name
            assert [call.arguments for call in end.tool_calls] == [{"city": "Zürich"}], name
            assert (end.finish_reason, end.raw_finish_reason) == ("tool_calls", "completed")
            [block] = end.reasoning_blocks
            assert (block.text, block.signature) == ("so it is", "c2ln")
            assert end.usage is not None
            told = [event.text for event in collector.events if isinstance(event, penstock.TokenEvent)]
            assert "".join(told) == "so it is" + TEXT, "no reset, and nothing twice"
            pieces = [event.text for event in collector.events if isinstance(event, ToolCallDelta)]
            assert "".join(pieces) == '{"city":"Zürich"}'
            assert not any(isinstance(event, penstock.StreamReset) for event in collector.events)
            [first] = here.requests(f"resumed-{name}")
            assert (first.body["background"], first.body["store"]) == (True, True)
        resumed = [each for each in here.server.requests if each.path.startswith("/v1/responses/")]
        assert {each.method for each in resumed} == {"GET"}
        assert len(resumed) == sum(1 + len(answer.resumptions) for answer in RESUMED.values())


# --- another provider ------------------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "look_up", "description": "Looks up.", "parameters": SCHEMA}}]
PIXEL = "iVBORw0KGgo="
TALK = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        ],
    },
    {
        "role": "assistant",
        "content": "Let me see.",
        "reasoning_blocks": [
            {"kind": "thinking", "text": "hm", "signature": "of-anthropic"},
            {"kind": "thought", "text": "", "signature": "of-gemini"},
            {"kind": "reasoning", "text": "hm", "signature": "of-openai", "id": "rs_1"},
        ],
        "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "look_up", "arguments": '{"city":"Wien"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "call_a", "content": "A pixel."},
    {"role": "user", "content": "Sure?"},
]
SIGNATURES = {RESPONSES: "of-openai", ANTHROPIC: "of-anthropic", GEMINI: "of-gemini"}


@EVERY
def test_another_provider_answers_in_the_place_of_one_that_fails(server: LoopbackProvider, wire: Wire) -> None:
    others = [other for other in WIRES if other is not wire]
    with house(server) as here:
        watched = {}
        for other in others:
            options = ONCE.replace(fallback=(f"{other.name}/backup-{wire.name}-{other.name}",))
            more = {"tools": TOOLS, "tool_choice": "auto", "max_tokens": 50, "request_options": options}
            watched[other] = here.watch(wire, f"down-{wire.name}", TALK, **more)
        for other, collector in watched.items():
            end = completed(collector)
            model = f"backup-{wire.name}-{other.name}"
            # For the Responses API, "openai/…" is a model of the same provider in the same dialect.
            answering = wire if (wire, other) == (RESPONSES, OPENAI) else other
            assert (end.text, end.provider, end.model) == (TEXT, answering.name, model)
            [request] = here.requests(model)
            assert request.path == answering.path.format(model)
            assert request.tool_names == ["look_up"]
            assert request.last_user_text == "Sure?"
            sent = json.dumps(request.body)
            assert PIXEL in sent
            assert "A pixel." in sent
            assert "Be brief." in sent
            given_back = {signed.name for signed, signature in SIGNATURES.items() if signature in sent}
            assert given_back == {answering.name} & {signed.name for signed in SIGNATURES}
