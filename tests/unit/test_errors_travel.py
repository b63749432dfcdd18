"""Errors and events survive pickling and copying, without their causes and without what cannot be pickled."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import msgspec
import pytest

import penstock
from penstock import errors, events
from penstock.config.secret import Secret
from penstock.events import FrozenDict, ToolCall, Usage

SECRET = "sk-not-to-be-seen"
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Foreign(Exception):
    """An error with a secret text, and that cannot be pickled."""

    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


def api(kind: type[errors.ApiError]) -> errors.ApiError:
    return kind(429, "slow", code="rate_limit", retryable=True, retry_after=7.5)


EXAMPLES: list[errors.PenstockError] = [
    errors.PenstockError("plain"),
    errors.OptionError("size", 0, "a number from 1", source="a.toml", problem="too small"),
    errors.CallTimeout("the next event", 0.5),
    errors.ProcessError("text"),
    errors.ProcessDead("Stream (s)", "shutdown"),
    errors.ProcessCrashed("Stream (s)", ("integration", errors.StreamClosed("s"))),
    errors.MailboxFull("Stream (s)", 3),
    errors.StartError("Stream (s)", "timeout"),
    errors.SystemStopped("the agent"),
    errors.SystemDraining(),
    errors.SystemForked(7),
    errors.StreamInterrupted("s"),
    errors.Fenced("s"),
    errors.NoOwner("s"),
    errors.StreamPoisoned("s", 3),
    errors.RunsElsewhere("s", "this"),
    errors.StoreError("a.db", "text"),
    errors.StoreUnavailable("a.db", "refused"),
    errors.StoreBusy("a.db", 9),
    errors.StoreClosed("a.db"),
    errors.StoreFull("a.db"),
    errors.StoreReadOnly("a.db"),
    errors.StoreDamaged("a.db", "it is cut off"),
    errors.StoreIncompatible("a.db", "it is of version 9"),
    errors.StoreInUse("a.db"),
    errors.SupervisorError("not_found", "a", "detail"),
    errors.StreamError("s", "text"),
    errors.StreamExists("s"),
    errors.StreamNotFound("s"),
    errors.StreamClosed("s"),
    errors.StreamCancelledError("s", "enough", "so far"),
    errors.StreamCrashed("s", "killed"),
    errors.DeliveryError("s", 5),
    errors.BufferFull("s", 9, 0.5, 4),
    errors.SubscriberTooSlow("s", 16),
    errors.AgentError("a", "text"),
    errors.AgentExists("a"),
    errors.AgentBusy("a", 100),
    errors.AgentStopped("a"),
    errors.AgentCrashed("a", "killed"),
    errors.ToolRoundsExceeded("a", 8),
    errors.OutputInvalid("Recipe", ("steps: missing",), "so far"),
    errors.ToolError("text"),
    errors.ToolArgumentsError("city: missing"),
    errors.ProviderError("text"),
    errors.ConnectError("h", "connection refused", retryable=False),
    errors.LocalError("no descriptors", retryable=False),
    errors.ProviderTimeout("idle", 60.0),
    errors.ProviderBusy("openai (h)", "no turn"),
    errors.CircuitOpen("openai (h)", 20.0),
    *map(
        api,
        (
            errors.ApiError,
            errors.AuthenticationError,
            errors.BadRequestError,
            errors.ContextLengthExceeded,
            errors.RateLimited,
            errors.ContentFilterError,
        ),
    ),
    errors.SourceError("s", errors.IncompleteStream("cut")),
    errors.TransformError("s", "map", "killed"),
    errors.TeeError("s", "killed"),
    errors.MergeError("s", {"a": errors.ProtocolError("no")}, {"a": None, "b": "text"}),
    errors.RaceError("s", [errors.ProtocolError("no")]),
    errors.StreamTimeout("s", "idle", 1.0),
    errors.RunawayAnswer("s", "text", 12, 90),
    errors.ProtocolError("an event is too long"),
    errors.IncompleteStream("connection reset"),
]


def pickled(value: Any) -> list[Any]:
    return [pickle.loads(pickle.dumps(value, protocol)) for protocol in PROTOCOLS]


def facts(error: BaseException) -> tuple[Any, ...]:
    shown = {
        name: facts(value) if isinstance(value, BaseException) else repr(value) for name, value in vars(error).items()
    }
    return type(error), str(error), repr(error), error.args, shown


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickle_copy_and_deepcopy(error: errors.PenstockError) -> None:
    for again in (*pickled(error), copy.copy(error), copy.deepcopy(error)):
        assert again is not error
        assert facts(again) == facts(error)
        assert isinstance(again, type(error).__mro__)


def test_every_class_of_errors_has_an_example() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BaseException)}
    assert {type(error) for error in EXAMPLES} == kinds


def test_causes_and_context_are_dropped_and_notes_are_kept() -> None:
    error = errors.IncompleteStream("reset")
    error.__cause__ = Foreign(SECRET)
    error.annotate("retries: refused")
    error.add_note("seen in the field")
    error.partial = "so far"
    for again in (*pickled(error), copy.copy(error), copy.deepcopy(error)):
        assert (again.__cause__, again.__context__, again.__traceback__) == (None, None, None)
        assert str(again) == "the stream stopped before its end: reset (retries: refused)"
        assert again.__notes__ == ["seen in the field"]
        assert again.partial == "so far"


@pytest.mark.parametrize(
    ("error", "attribute", "description"),
    [
        (errors.AgentCrashed("a", Foreign(SECRET)), "reason", "Foreign"),
        (errors.ProcessDead("p", ("tool", Foreign(SECRET))), "reason", ("tool", "Foreign")),
        (errors.StartError("p", "already_started", object()), "ref", "object"),
        (errors.SupervisorError("failed_to_start_child", "c", Foreign(SECRET)), "detail", "Foreign"),
        (errors.OptionError("f", Secret(SECRET), "text", problem="no"), "got", "Secret"),
        (errors.OptionError("f", lambda: SECRET, "text", problem="no"), "got", "function"),
        (errors.OptionError("f", list, "text"), "got", "list"),
        (errors.OptionError("f", {"a": [object()]}, "text", problem="no"), "got", {"a": ["object"]}),
    ],
)
def test_what_is_not_plain_data_is_described(error: errors.PenstockError, attribute: str, description: Any) -> None:
    for protocol in PROTOCOLS:
        data = pickle.dumps(error, protocol)
        assert SECRET.encode() not in data
        assert getattr(pickle.loads(data), attribute) == description
    assert getattr(copy.deepcopy(error), attribute) == description
    assert getattr(copy.copy(error), attribute) is getattr(error, attribute)


def test_an_attribute_that_contains_itself_is_described() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert pickle.loads(pickle.dumps(errors.OptionError("f", endless, "text"))).field == "f"


class TenantError(errors.RateLimited):
    """A user's own, with other arguments and a slot."""

    __slots__ = ("tenant",)

    def __init__(self, tenant: str, *, more: int) -> None:
        super().__init__(429, "too many", retry_after=1.0)
        self.tenant = tenant
        self.more = more


class PickyTimeout(errors.ProviderTimeout):
    def __new__(cls, only: int) -> PickyTimeout:
        return super().__new__(cls, only)

    def __init__(self, only: int) -> None:
        super().__init__("total", only)


def test_errors_of_users_with_arguments_of_their_own_survive() -> None:
    for error in (TenantError("t", more=2), PickyTimeout(3)):
        for again in (*pickled(error), copy.copy(error), copy.deepcopy(error)):
            assert facts(again) == facts(error)
    again = pickle.loads(pickle.dumps(TenantError("t", more=2)))
    assert (again.tenant, again.more, again.retry_after) == ("t", 2, 1.0)


def fail(number: int) -> None:
    raise EXAMPLES[number]


def test_errors_come_out_of_pools_of_processes() -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        for number in (EXAMPLES.index(error) for error in EXAMPLES if isinstance(error, TimeoutError)):
            with pytest.raises(type(EXAMPLES[number])) as caught:
                pool.submit(fail, number).result(timeout=60)
            assert str(caught.value) == str(EXAMPLES[number])


# --- events ----------------------------------------------------------------------------------------------------------

CALL = ToolCall(id="c", name="f", arguments={"x": [1]}, arguments_raw='{"x": [1]}')
WHERE: dict[str, Any] = {"stream_id": "s", "seq": 3, "timestamp": 1.5, "metadata": FrozenDict({"tenant": "t"})}
END: dict[str, Any] = {
    **WHERE,
    "tool_calls": (CALL,),
    "usage": Usage(input_tokens=1),
    "reasoning_blocks": (events.ReasoningBlock(kind="thinking", text="t", signature="s"),),
    "choices": (events.Choice(index=1, text="b"),),
    "cost": events.Cost(amount=0.5),
    "metrics": events.StreamMetrics(start_time=1.0, tokens=3),
    "provider_blocks": (events.ProviderBlock(provider="p", data={"type": "thinking"}, at=2, calls=1),),
    "provider_metadata": FrozenDict({"response_id": "r"}),
}
PROBABLE = events.TokenLogprob(token="Hi", logprob=-0.5, top=(("Hi", -0.5),))


def with_cause() -> errors.PenstockError:
    error = errors.AgentCrashed("a", Foreign(SECRET))
    error.__cause__ = Foreign(SECRET)
    return error


EVENTS: list[Any] = [
    events.TokenEvent("s", 1, ("Hi",), "Hi", "text", 0.0, FrozenDict({"a": 1})),
    events.StreamSnapshot("s", 1, ("Hi",), "Hi", "text", 0.0, FrozenDict({}), tool_calls=(CALL,)),
    events.StreamReset("s", 2, "reset", 0.0, FrozenDict({})),
    events.StreamCompleted(text="Hi", **END),
    events.StreamFailed(error=with_cause(), partial="H", **END),
    events.StreamCancelled(reason="enough", partial="H", **END),
    events.Disconnected("s", 4, errors.SubscriberTooSlow("s", 16)),
    events.StreamStarted(model="m", **WHERE),
    events.ToolCallStarted(id="c", name="f", index=0, **WHERE),
    events.ToolCallDelta(index=0, text="{", **WHERE),
    events.ToolCallCompleted(index=0, call=CALL, **WHERE),
    events.ToolApprovalRequested(call=CALL, **WHERE),
    events.ToolExecutionStarted(round=1, calls=(CALL,), **WHERE),
    events.ToolProgress(call_id="c", name="f", progress={"step": 1}, **WHERE),
    events.ToolResult(call_id="c", name="f", content="1", **WHERE),
    events.Citation(kind="file", id="f", start=0, end=2, location=FrozenDict({"index": 1}), **WHERE),
    events.ServerToolCall(id="s", name="web_search", input={"query": "q"}, status="completed", **WHERE),
    events.ServerToolResult(id="s", name="web_search", output=[{"url": "u"}], is_error=True, **WHERE),
    events.MediaPart(kind="image", mime="image/png", data="aGk=", **WHERE),
    events.Logprobs(tokens=(PROBABLE,), **WHERE),
    events.ReasoningBlockClosed(index=0, kind="thinking", signature="s", provider="p", **WHERE),
    events.ProviderEvent(type="ping", payload={"type": "ping"}, **WHERE),
    events.Progress(message="m", position=1, total=2, unit="lines", origin="a", **WHERE),
    events.StallDetected(seconds=3.0, limit=2.0, **WHERE),
    events.LoopDetected(kind="text", period=12, repeats=90, start=7, **WHERE),
    events.OriginEnded(origin="a", outcome=events.StreamCompleted(text="Hi", **END), **WHERE),
    PROBABLE,
    events.AnswerPart(index=1, kind="text", start=0, end=2, phase="commentary"),
    *END["provider_blocks"],
    CALL,
    END["usage"],
    END["cost"],
    END["metrics"],
    *END["reasoning_blocks"],
    *END["choices"],
]


def fields(event: Any) -> dict[str, Any]:
    found = {name: getattr(event, name) for name in event.__struct_fields__}
    if "error" in found:
        error = found["error"]
        found["error"] = (type(error), str(error), error.args)
    return found


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_survives_pickle_copy_and_deepcopy(event: Any) -> None:
    for again in (*pickled(event), copy.copy(event), copy.deepcopy(event)):
        assert type(again) is type(event)
        assert fields(again) == fields(event)
        if "metadata" in fields(event):
            assert type(again.metadata) is FrozenDict


def test_every_class_of_events_has_an_example() -> None:
    kinds = {kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)}
    assert {type(event) for event in EVENTS} == kinds


def test_the_error_in_an_event_travels_without_its_causes_and_their_text() -> None:
    (event,) = (event for event in EVENTS if isinstance(event, events.StreamFailed))
    for protocol in PROTOCOLS:
        data = pickle.dumps(event, protocol)
        assert SECRET.encode() not in data
        error = pickle.loads(data).error
        assert isinstance(error, penstock.AgentCrashed)
        assert (error.reason, error.__cause__) == ("Foreign", None)
