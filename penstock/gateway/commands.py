"""Commands to a stream, from any route or socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from penstock.config.checks import check_on_orphan
from penstock.errors import OptionError
from penstock.gateway.channels import Channel
from penstock.gateway.problems import Problem, RequestRefused, problem_of
from penstock.gateway.requests.native import check_changes
from penstock.gateway.requests.own_fields import flag_field

__all__ = ["COMMANDS", "STREAM_ENDED", "Command", "prepare"]

Command = Callable[[], Mapping[str, Any] | None]
"""What may wait for the stream's process; returns fields of the answer."""

_LONGEST_REASON: Final = 1_000
STREAM_ENDED: Final = Problem(
    status=409, type="invalid_request_error", code="stream_ended", message="The stream has ended."
)


def prepare(name: str, channel: Channel, body: Mapping[str, Any]) -> Command:
    """Check a command; the result carries it out.

    Raises:
        RequestRefused: the body is malformed (400), or the stream has ended (409). Cancelling an ended one is harmless.
    """
    if channel.record.is_over and name != "cancel":
        raise RequestRefused(STREAM_ENDED)
    return COMMANDS[name](channel, body)


def _pause(channel: Channel, body: Mapping[str, Any]) -> Command:
    return channel.stream.pause


def _resume(channel: Channel, body: Mapping[str, Any]) -> Command:
    return channel.stream.resume


def _flush(channel: Channel, body: Mapping[str, Any]) -> Command:
    return lambda: {"tokens": channel.stream.flush_buffer()}


def _cancel(channel: Channel, body: Mapping[str, Any]) -> Command:
    reason = body.get("reason")
    if reason is None:
        reason = "cancelled by a client"
    if not isinstance(reason, str) or len(reason) > _LONGEST_REASON:
        raise RequestRefused.bad_request(f"reason must be a text of at most {_LONGEST_REASON} characters.", "reason")
    return lambda: channel.stream.cancel(reason)


def _tokens(channel: Channel, body: Mapping[str, Any]) -> Command:
    tokens, text, end = body.get("tokens"), body.get("text"), flag_field(body, "end")
    if tokens is not None and (not isinstance(tokens, list) or not all(isinstance(each, str) for each in tokens)):
        raise RequestRefused.bad_request("tokens must be a list of texts.", "tokens")
    if text is not None and not isinstance(text, str):
        raise RequestRefused.bad_request("text must be a text.", "text")
    if tokens is None and text is None and not end:
        raise RequestRefused.bad_request("Give tokens, text or end.")
    if channel.record.feed is not None:
        text = "The stream gets its tokens from a provider."
        raise RequestRefused(Problem(status=409, type="invalid_request_error", code="stream_is_fed", message=text))
    given = [*(tokens or ()), *([text] if text else ())]

    def run() -> Mapping[str, Any]:
        if given:
            channel.stream.process_tokens(given, 0)
        if end:
            channel.stream.stop()
        return {"accepted": len(given)}

    return run


def _options(channel: Channel, body: Mapping[str, Any]) -> Command:
    changes = {name: value for name, value in body.items() if name != "on_orphan"}
    check_changes(changes, "options")
    policy = body.get("on_orphan")
    if "on_orphan" in body:
        try:
            check_on_orphan(policy)
        except OptionError as error:
            raise RequestRefused.bad_request(problem_of(error).message, "on_orphan") from None

    def run() -> None:
        if changes:
            channel.stream.set_options(**changes)
        if policy is not None:
            channel.set_orphan_policy(policy)

    return run


COMMANDS: Final[dict[str, Callable[[Channel, Mapping[str, Any]], Command]]] = {
    "pause": _pause,
    "resume": _resume,
    "flush": _flush,
    "cancel": _cancel,
    "tokens": _tokens,
    "options": _options,
}
