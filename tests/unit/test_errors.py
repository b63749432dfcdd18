"""The message of every error says what happened, to which thing, and shows no text of an answer."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import errors

TEXT = "what the model said"
MESSAGES: list[tuple[errors.PenstockError, str]] = [
    (errors.OptionError("size", 0, "a number from 1"), "size: got 0, allowed: a number from 1"),
    (errors.OptionError("size", 0, "1", source="a.toml"), "size: got 0, allowed: 1 (from a.toml)"),
    (errors.OptionError("file", "a", "a file", problem="cannot read a", source="B"), "file: cannot read a (from B)"),
    (errors.CallTimeout("the next event", 0.5), "the next event: no answer within 0.5 s"),
    (errors.ProcessDead("Stream (s)"), "Stream (s) is dead: noproc"),
    (errors.ProcessDead("Stream (s)", ValueError(TEXT)), "Stream (s) is dead: ValueError"),
    (errors.ProcessCrashed("Stream (s)", KeyError(TEXT)), "Stream (s) crashed: KeyError"),
    (errors.MailboxFull("Stream (s)", 3), "the mailbox of Stream (s) is full (3 messages)"),
    (errors.StartError("Stream (s)", "timeout"), "Stream (s) did not start: timeout"),
    (errors.SystemStopped(), "the system is not running"),
    (errors.SystemDraining(), "the system is being drained: it opens no further stream"),
    (errors.SystemForked(7), "this System was made in another process (pid 7); make a new one"),
    (errors.SupervisorError("not_found", "a"), "not_found (child 'a'): the supervisor has no such child"),
    (
        errors.SupervisorError("already_started", "a", object()),
        "already_started (child 'a'): a child with this id is already running",
    ),
    (
        errors.SupervisorError("failed_to_start_child", "a", ValueError(TEXT)),
        "failed_to_start_child (child 'a'): the child did not start: ValueError",
    ),
    (errors.SupervisorError("a_word_of_its_own"), "a_word_of_its_own"),
    (errors.StreamExists("s"), "stream 's' is already running; choose another id"),
    (errors.StreamNotFound("s"), "there is no stream 's', or it ended too long ago"),
    (errors.StreamClosed("s"), "stream 's' is closed: it has ended or is ending"),
    (errors.StreamCancelledError("s", None, TEXT), "stream 's' was cancelled"),
    (errors.StreamCancelledError("s", "enough", TEXT), "stream 's' was cancelled: enough"),
    (errors.StreamCrashed("s", ("integration", ValueError(TEXT))), "stream 's' crashed: (integration, ValueError)"),
    (errors.DeliveryError("s", 5), "stream 's': 5 deliveries in a row failed (max_errors)"),
    (errors.BufferFull("s", 9, 0.5), "stream 's': its buffer of 9 tokens had no room within 0.5 s"),
    (errors.BufferFull("s", 9, 0), "stream 's': its buffer of 9 tokens had no room"),
    (errors.SubscriberTooSlow("s", 16), "stream 's': a subscriber was disconnected with more than 16 events waiting"),
    (errors.StreamInterrupted("s"), "stream 's' was interrupted: the process that ran it has ended"),
    (errors.Fenced("s"), "stream 's': its log has another owner now"),
    (errors.NoOwner("s"), "stream 's': no process runs it now"),
    (errors.StreamPoisoned("s", 3), "stream 's' was given up: 3 processes that ran it have ended"),
    (errors.RunsElsewhere("s", "this"), "stream 's' runs on another node: this is possible only there"),
    (errors.StoreUnavailable("a.db", OSError(TEXT)), "a.db: the store is not available: OSError"),
    (errors.StoreBusy("a.db", 9), "a.db: 9 events wait to be written already; the store is too slow"),
    (errors.StoreClosed("a.db"), "a.db: the store has been closed"),
    (errors.StoreFull("a.db"), "a.db: there is no room left; nothing was written"),
    (errors.StoreReadOnly("a.db"), "a.db: the store is read-only"),
    (errors.StoreDamaged("a.db", "it is cut off"), "a.db: the store is damaged: it is cut off"),
    (errors.StoreIncompatible("a.db", "it is of version 9"), "a.db: the store cannot be used: it is of version 9"),
    (
        errors.StoreInUse("a.db"),
        "a.db: the store has a writer already, in this process or another; open it with read_only=True to look at it",
    ),
    (errors.AgentExists("a"), "agent 'a' already exists; stop it first, or choose another name"),
    (errors.AgentBusy("a", 100), "agent 'a' is busy and its queue is full (max_queue: 100)"),
    (errors.AgentStopped("a"), "agent 'a' has been stopped and takes no more messages"),
    (errors.AgentCrashed("a", ValueError(TEXT)), "agent 'a' crashed: ValueError"),
    (errors.ToolRoundsExceeded("a", 8), "agent 'a': no answer after 8 rounds of tool calls (max_tool_rounds)"),
    (
        errors.OutputInvalid("Recipe", ("steps: missing", "name: missing"), TEXT),
        "the answer is not a valid Recipe: steps: missing; name: missing",
    ),
    (errors.ToolError("its result is not text"), "its result is not text"),
    (errors.ToolArgumentsError("city: missing"), "city: missing"),
    (errors.ConnectError("h", "connection refused"), "cannot reach h: connection refused"),
    (errors.LocalError("no file descriptors"), "this machine cannot make the request: no file descriptors"),
    (errors.ProviderTimeout("connect", 10), "connect timeout: no connection within 10 s"),
    (errors.ProviderTimeout("first_token", 60), "first_token timeout: no first token within 60 s"),
    (errors.ProviderTimeout("idle", 2.5), "idle timeout: no further token within 2.5 s"),
    (errors.ProviderTimeout("total", 600), "total timeout: no complete answer within 600 s"),
    (errors.ProviderBusy("openai (h)", "no turn within 30 s"), "openai (h): no turn within 30 s"),
    (errors.CircuitOpen("openai (h)", 20), "openai (h) failed too often; it is tried again in 20.0 s"),
    *(
        (kind(400, "no", code="bad"), "HTTP 400 bad: no")
        for kind in (
            errors.ApiError,
            errors.AuthenticationError,
            errors.BadRequestError,
            errors.ContextLengthExceeded,
            errors.RateLimited,
            errors.ContentFilterError,
        )
    ),
    (errors.SourceError("s", ValueError(TEXT)), "stream 's': its source failed: ValueError"),
    (errors.TransformError("s", "map", KeyError(TEXT)), "stream 's': the function of map failed: KeyError"),
    (
        errors.TeeError("s", OSError(28, "No space left on device", TEXT)),
        "stream 's': its copy could not be written: OSError: No space left on device",
    ),
    (
        errors.MergeError("s", {"b": errors.ProtocolError("no")}, {"a": None, "b": None}),
        "stream 's': 1 of 2 inputs failed: b",
    ),
    (
        errors.RaceError("s", [errors.ProtocolError("no"), errors.CircuitOpen("h", 2)]),
        "stream 's': all 2 attempts failed: ProtocolError: no; "
        "CircuitOpen: h failed too often; it is tried again in 2.0 s",
    ),
    (errors.StreamTimeout("s", "idle", 1), "stream 's': idle timeout: no further event within 1 s"),
    (errors.StreamTimeout("s", "total", 9.5), "stream 's': total timeout: no complete answer within 9.5 s"),
    (
        errors.RunawayAnswer("s", "text", 12, 90),
        "stream 's': the text repeated 12 characters 90 times without end",
    ),
    (errors.ProtocolError("an event is longer than 9 bytes"), "an event is longer than 9 bytes"),
    (errors.IncompleteStream("connection reset"), "the stream stopped before its end: connection reset"),
]
ROOTS = {"PenstockError", "ProcessError", "StoreError", "StreamError", "AgentError", "ProviderError"}


@pytest.mark.parametrize(("error", "message"), MESSAGES, ids=lambda value: type(value).__name__)
def test_the_message_of_an_error(error: errors.PenstockError, message: str) -> None:
    assert str(error) == message
    assert TEXT not in message


def test_every_error_is_tested_here() -> None:
    kinds: dict[str, Any] = {name: getattr(errors, name) for name in errors.__all__ if name != "describe_reason"}
    assert {type(error).__name__ for error, _ in MESSAGES} == set(kinds) - ROOTS


def test_the_documented_tree_of_errors_is_that_of_the_classes() -> None:
    assert errors.__doc__
    drawn, above = {}, ["PenstockError"]
    for line in errors.__doc__.splitlines():
        branch, mark, rest = line.partition("── ")
        if mark:
            level = len(branch) // 4
            name = rest.split()[0]
            above[level:] = [name]
            drawn[name] = above[level - 1]
    real = {name: getattr(errors, name).__mro__[1].__name__ for name in errors.__all__ if name != "describe_reason"}
    assert drawn == {name: base for name, base in real.items() if name != "PenstockError"}


def test_an_error_of_the_toolbox_is_retryable_if_what_caused_it_is() -> None:
    retryable, final = errors.IncompleteStream("cut"), errors.ProtocolError("no")
    assert errors.SourceError("s", retryable).retryable
    assert not errors.SourceError("s", final).retryable
    assert not errors.SourceError("s", OSError()).retryable
    assert errors.RaceError("s", [final, retryable]).retryable
    assert not errors.RaceError("s", [final]).retryable
    assert errors.MergeError("s", {"a": retryable}, {}).retryable
    assert not errors.MergeError("s", {"a": retryable, "b": final}, {}).retryable
    assert errors.SourceError("s", retryable).__cause__ is retryable
    assert errors.TransformError("s", "map", final).__cause__ is final
