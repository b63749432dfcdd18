"""Input that is added to an answer under way, in the native protocol: the answer ends, and another one follows it.

What may be added, and what follows which end, is the same as on the WebSocket of the Responses API; see
`penstock.gateway.projections.steering`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from penstock.adapters.providers.chat_items import items_to_messages
from penstock.config.logs import get_logger
from penstock.errors import PenstockError, describe_reason
from penstock.events import TerminalEvent, ToolResult
from penstock.gateway.agents import check_agent, send_message
from penstock.gateway.call import HttpCall
from penstock.gateway.channels import Channel, Steered
from penstock.gateway.commands import STREAM_ENDED
from penstock.gateway.core import DRAINING
from penstock.gateway.opener import open_asked
from penstock.gateway.problems import Problem, RequestRefused
from penstock.gateway.projections.frames import encode
from penstock.gateway.projections.responses_object import STEERED
from penstock.gateway.projections.steering import (
    MOST_STEERED_BYTES,
    MOST_STEERS,
    input_items,
    what_follows,
    wrong_input,
)
from penstock.gateway.protocols import PROTOCOLS
from penstock.gateway.requests.asked import Asked
from penstock.gateway.requests.responses import continued
from penstock.gateway.responses import begin_response
from penstock.gateway.stored import StoredResponse

__all__ = ["check_successor", "note_unstopped", "steer"]


def check_successor(call: HttpCall, channel: Channel) -> None:
    """Check, before an answer is cancelled for the one that follows it, what will be checked when that is opened.

    Raises:
        RequestRefused: the gateway drains (503), the agent is not known any more (404) or has ended (410), or the key
            has as many streams as it may have besides this one (429).
    """
    call.gateway.admit_stream(call.key, instead_of=channel)
    if channel.agent_id:
        check_agent(call, channel.agent_id)


async def steer(call: HttpCall, channel: Channel, given: object) -> Channel:
    """Add input to an answer under way: it is cancelled, and the conversation goes on in another stream.

    What is added until the answer has ended goes into the same stream.

    Args:
        call: the connection.
        channel: of the answer.
        given: a text, or messages of the user as in the Responses API; at most 16 inputs wait for one answer, of 16 MiB
            together if they are several.

    Returns:
        The channel of the stream that follows. The caller is its only reader, with the others that wait for it.

    Raises:
        RequestRefused: the input is malformed (400); the stream has ended, no model or agent of the gateway's answers
            by it, it failed or was cancelled meanwhile, or the model waits for results of tools (409); too many inputs
            wait (429); no stream can follow, see `check_successor`: the answer then goes on; or the gateway has been
            closed (503). The input is not kept.
        CallTimeout: the answer could not be cancelled in time; it goes on, or ends late. The input is not kept.
        PenstockError: the stream that follows cannot be opened.
    """
    if wrong := wrong_input(given):
        raise RequestRefused.bad_request(wrong, "input")
    size = len(encode(given))
    steered = channel.steered
    if steered is None:
        if channel.asked is None and not channel.agent_id:
            raise RequestRefused(_NOT_STEERABLE)
        if channel.record.is_over:
            raise RequestRefused(STREAM_ENDED)
        check_successor(call, channel)
        steered = channel.steered = Steered()
        steered.successor = call.gateway.run_apart(_succeed(call, channel, steered))
        steered.successor.add_done_callback(partial(_note_failure, channel))
    elif steered.count >= MOST_STEERS:
        raise _too_many(f"{MOST_STEERS} inputs wait for this answer already.", "too_many_pending_steers")
    elif steered.size + size > MOST_STEERED_BYTES:
        text = f"The inputs that wait for one answer may have {MOST_STEERED_BYTES} bytes together."
        raise _too_many(text, "too_many_pending_bytes")
    steered.count += 1
    steered.size += size
    steered.items += input_items(given)
    return await _successor_of(steered)


def _too_many(text: str, code: str) -> RequestRefused:
    return RequestRefused(
        Problem(status=429, type="rate_limit_error", code=code, message=text, param="input"),
    )


async def _successor_of(steered: Steered) -> Channel:
    """Wait for the stream that follows. It is given up when the last one that waits for it does not any more."""
    steered.waiting += 1
    try:
        return await asyncio.shield(steered.successor)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if steered.successor.cancelled() and not (task is not None and task.cancelling()):
            raise RequestRefused(DRAINING) from None  # the gateway has been closed
        if steered.waiting == 1:
            steered.successor.add_done_callback(_abandon)
        raise
    finally:
        steered.waiting -= 1


async def _succeed(call: HttpCall, channel: Channel, steered: Steered) -> Channel:
    try:
        await call.gateway.where_it_runs(channel, channel.stream.cancel, STEERED)
    except PenstockError as error:
        note_unstopped(channel, error)
        raise
    finally:
        channel.steered = None  # from here on, nothing is added
    terminal = channel.record.log.terminal
    assert terminal is not None
    follows = what_follows(terminal)
    if follows == "nothing":
        raise RequestRefused(_NOT_CONTINUED)
    if channel.agent_id:  # it keeps the conversation, and has run its calls
        return await send_message(call, channel.agent_id, {"message": _message(channel, terminal, steered.items)})
    if follows == "results":
        raise RequestRefused(_WAITS)
    assert channel.asked is not None
    stored = call.gateway.responses.of(channel)
    if stored is not None:
        return await _response(call, channel, channel.asked, stored, steered.items)
    successor = await open_asked(call, _continuing(channel, channel.asked, terminal, steered.items), {})
    successor.linger_unread()
    return successor


async def _response(
    call: HttpCall, channel: Channel, asked: Asked, stored: StoredResponse, items: Sequence[Any]
) -> Channel:
    """The response that follows one of the Responses API, as if a request had continued that: it is stored like it."""
    body = {**channel.request, "previous_response_id": channel.stream_id, "input": list(items)}
    call = msgspec.structs.replace(call, protocol=PROTOCOLS["responses"])
    asked = msgspec.structs.replace(asked, stream_id=None)
    successor, _ = await begin_response(call, body, asked, {channel.stream_id: stored})
    return successor


def _continuing(channel: Channel, asked: Asked, terminal: TerminalEvent, items: Sequence[Any]) -> Asked:
    """What asks for the answer that follows: the same, with the answer so far and the further input."""
    new = items_to_messages(items) if asked.api == "chat" else list(items)
    results = [event for event in channel.record.log if isinstance(event, ToolResult)]
    given = continued(terminal, asked.input, {"input": new}, results)
    return msgspec.structs.replace(asked, input=given, stream_id=None, dropped=())


def _message(channel: Channel, terminal: TerminalEvent, items: Sequence[Any]) -> dict[str, Any]:
    """The next message to an agent. It begins with the last one, if the agent had not begun to answer that."""
    messages = items_to_messages(items)
    if terminal.seq == 1:  # the agent has dropped it
        last = channel.request["message"]
        messages.insert(0, dict(last) if isinstance(last, Mapping) else {"content": last})
    if len(messages) == 1:
        return messages[0]
    parts: list[Any] = []
    for message in messages:
        content = message["content"]
        parts += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {"role": "user", "content": parts}


def note_unstopped(channel: Channel, error: PenstockError) -> None:
    """Log that an answer could not be cancelled for the one that should follow it."""
    get_logger(stream_id=channel.stream_id).warning("steer_failed", reason=describe_reason(error))


def _note_failure(channel: Channel, task: asyncio.Task[Channel]) -> None:
    """Mark its error as seen: the request that waits for it may have gone. A fault of ours is logged."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, PenstockError):
        get_logger(stream_id=channel.stream_id).error("steer_failed", reason=describe_reason(error), exc_info=error)


def _abandon(task: asyncio.Task[Channel]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().abandon_unread()


def _refusal(code: str, message: str) -> Problem:
    return Problem(status=409, type="invalid_request_error", code=code, message=message)


_NOT_STEERABLE: Final = _refusal(
    "not_steerable",
    "Input can be added only to answers of a model or an agent that a request to the gateway has asked.",
)
_NOT_CONTINUED: Final = _refusal(
    "successor_creation_failed", "The answer did not end in a way that can be continued. The input was not used."
)
_WAITS: Final = _refusal(
    "waiting_for_required_input",
    "The answer has ended with calls of tools. Send the input together with their results. It was not used.",
)
