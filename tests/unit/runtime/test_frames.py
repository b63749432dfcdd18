"""Frames that an exception keeps: those of Penstock that have returned are cleared, and no others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from types import FunctionType, TracebackType
from typing import Any

import pytest

from penstock.actors.runtime.dispatcher import ThreadedDispatcher, clear_frames_later
from penstock.actors.runtime.frames import clear_own_frames, forget_tracebacks
from penstock.actors.runtime.mailbox import Mailbox


def own(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function as if it were one of Penstock's."""
    assert isinstance(function, FunctionType)
    scope = globals() | {"__name__": "penstock.some.module"}
    return FunctionType(function.__code__, scope, function.__name__, closure=function.__closure__)


def foreign(value: object) -> None:
    raise ValueError(value)


@own
def ours(function: Callable[[object], None], value: object) -> None:
    function(value)


@own
def caught(value: object) -> BaseException | None:
    try:
        ours(foreign, value)
    except ValueError as error:
        return error
    return None


def locals_of(trace: TracebackType | None) -> list[tuple[str, list[str]]]:
    """The local variables of each frame: of those of the traceback, and of the callers of the last one."""
    found: dict[Any, tuple[str, list[str]]] = {}
    while trace is not None:
        frame = trace.tb_frame
        found[frame] = (frame.f_code.co_name, list(frame.f_locals))
        trace = trace.tb_next
    return list(found.values())


def test_the_variables_of_our_frames_are_forgotten_and_those_of_foreign_ones_and_the_traceback_stay() -> None:
    error = caught("x")
    assert error is not None
    assert [name for name, variables in locals_of(error.__traceback__) if variables] == ["caught", "ours", "foreign"]
    errors = [error]
    clear_own_frames(errors)
    assert errors == []
    assert locals_of(error.__traceback__) == [("caught", []), ("ours", []), ("foreign", ["value"])]


def test_those_of_a_caller_that_is_not_in_the_traceback_are_forgotten_too() -> None:
    @own
    def caller(value: object) -> BaseException | None:
        return catching(value)

    def catching(value: object) -> BaseException | None:
        try:
            foreign(value)
        except ValueError as error:
            return error
        return None

    error = caller("x")
    assert error is not None
    assert error.__traceback__ is not None
    frame = error.__traceback__.tb_frame.f_back
    assert frame is not None
    assert "value" in frame.f_locals
    clear_own_frames([error])
    assert "value" not in frame.f_locals


def with_causes() -> tuple[BaseException, BaseException, BaseException]:
    """An error, its cause and the cause's context. The last one's context is the first: a circle."""
    errors = caught("a"), caught("b"), caught("c")
    first, second, third = errors
    assert first is not None
    assert second is not None
    assert third is not None
    first.__cause__, second.__context__, third.__context__ = second, third, first
    return first, second, third


def test_those_of_causes_and_contexts_are_forgotten_too() -> None:
    errors = with_causes()
    clear_own_frames([errors[0]])
    for error in errors:
        assert locals_of(error.__traceback__) == [("caught", []), ("ours", []), ("foreign", ["value"])]
        error.__context__ = None


def test_tracebacks_are_forgotten_with_those_of_causes_and_contexts() -> None:
    errors = with_causes()
    forget_tracebacks(errors[0])
    for error in errors:
        assert error.__traceback__ is None
        error.__context__ = None


def test_a_frame_that_still_runs_keeps_its_variables() -> None:
    @own
    def running(value: object) -> object:
        try:
            foreign(value)
        except ValueError as error:
            clear_own_frames([error])
        return value

    assert running("x") == "x"


def test_a_generator_that_is_suspended_is_not_closed() -> None:
    @own
    def steps() -> Generator[BaseException | str, None, None]:
        try:
            foreign("x")
        except ValueError as error:
            yield error
        yield "the next step"

    running = steps()
    error = next(running)
    assert isinstance(error, ValueError)
    clear_own_frames([error])
    assert next(running) == "the next step"


def test_of_a_process_they_are_forgotten_once_it_has_returned_the_thread() -> None:
    kept: list[BaseException] = []
    was_idle = threading.Event()

    class Failing:
        @own
        def run(self, limit: int) -> int:
            try:
                foreign("x")
            except ValueError as error:
                kept.append(error)
                clear_frames_later(error)
            return 1

    class Next:
        def run(self, limit: int) -> int:
            was_idle.set()
            return 1

    dispatcher = ThreadedDispatcher(workers=1)
    try:
        for owner in (Failing(), Next()):
            dispatcher.enqueue(Mailbox(owner, dispatcher.enqueue))
        assert was_idle.wait(20)
        assert locals_of(kept[0].__traceback__) == [("run", []), ("foreign", ["value"])]
    finally:
        dispatcher.close(20)


def test_in_a_thread_that_is_not_the_dispatchers_nothing_is_forgotten() -> None:
    with pytest.raises(ValueError, match="x") as raised:
        ours(foreign, "x")
    clear_frames_later(raised.value)
    assert ("ours", ["function", "value"]) in locals_of(raised.value.__traceback__)
