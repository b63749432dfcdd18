"""Replies: waiting for them, answering them, awaiting them."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
import traceback
from typing import Any

import pykka
import pytest

from penstock.actors.runtime.reply import Reply, as_completed
from penstock.errors import CallTimeout

GENEROUS = 20.0


def test_get_returns_the_value_every_time() -> None:
    reply = Reply()
    assert not reply.is_done
    reply.set("value")
    assert reply.is_done
    assert [reply.get(), reply.get(timeout=0)] == ["value", "value"]


def test_it_raises_the_exception_it_was_given_and_its_trace_does_not_grow() -> None:
    reply = Reply()
    try:
        raise LookupError("cause")
    except LookupError:
        reply.set_exception()
    depths = []
    for _ in range(5):
        with pytest.raises(LookupError, match="cause") as caught:
            reply.get()
        depths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(set(depths)) == 1


def test_a_second_answer_is_refused_as_pykka_does() -> None:
    reply = Reply()
    reply.set(1)
    with pytest.raises(queue.Full):
        reply.set(2)
    with pytest.raises(queue.Full):
        reply.fail(LookupError())
    with pytest.raises(queue.Full):
        reply.set_get_hook(lambda _timeout: 3)
    hooked = Reply()
    hooked.set_get_hook(lambda _timeout: 3)
    with pytest.raises(queue.Full):
        hooked.set(1)
    assert (reply.get(), hooked.get()) == (1, 3)


def test_a_timeout_can_be_caught_as_ours_as_pykkas_and_as_pythons() -> None:
    for kind in (CallTimeout, pykka.Timeout, TimeoutError):
        with pytest.raises(kind):
            Reply(None, "a call").get(timeout=0)
    with pytest.raises(CallTimeout, match=r"a call: no answer within 0\.001 s"):
        Reply(None, "a call").get(timeout=0.001)


def test_polling_leaves_no_callbacks() -> None:
    reply = Reply()
    for _ in range(20):
        with pytest.raises(CallTimeout):
            reply.get(timeout=0.0001)
    assert reply._callbacks is not None
    assert len(reply._callbacks) == 1


def test_an_answer_wakes_all_waiting_threads() -> None:
    reply = Reply()
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(reply.get(timeout=GENEROUS))) for _ in range(5)]
    for thread in threads:
        thread.start()
    reply.set("value")
    for thread in threads:
        thread.join(GENEROUS)
    assert got == ["value"] * 5


def test_when_done_calls_once_before_or_after_the_answer() -> None:
    reply = Reply()
    calls: list[str] = []
    reply.when_done(lambda: calls.append("before"))
    reply.set()
    reply.when_done(lambda: calls.append("after"))
    assert calls == ["before", "after"]


def test_a_callback_that_raises_affects_neither_other_callbacks_nor_the_answering_thread() -> None:
    reply = Reply()
    calls: list[str] = []

    def fail() -> None:
        raise LookupError

    reply.when_done(fail)
    reply.when_done(lambda: calls.append("called"))
    reply.set("value")
    assert (calls, reply.get()) == (["called"], "value")


def test_a_second_answer_in_the_middle_of_the_first_changes_nothing() -> None:
    refused: list[bool] = []

    class Interrupted(Reply):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "_value" and value is not None:
                try:
                    self.fail(LookupError("second"))
                except queue.Full:
                    refused.append(True)

    reply = Interrupted()
    reply.set("first")
    assert (reply.get(), reply.get(), refused) == ("first", "first", [True])


@pytest.mark.usefixtures("restless")
def test_of_several_threads_that_answer_at_once_exactly_one_succeeds() -> None:
    for _ in range(300):
        reply = Reply()
        start = threading.Barrier(3)
        won: list[str] = []

        def give(start: threading.Barrier = start, reply: Reply = reply, won: list[str] = won) -> None:
            start.wait(GENEROUS)
            try:
                reply.set("value")
            except queue.Full:
                return
            won.append("value")

        def refuse(start: threading.Barrier = start, reply: Reply = reply, won: list[str] = won) -> None:
            start.wait(GENEROUS)
            try:
                reply.fail(LookupError())
            except queue.Full:
                return
            won.append("error")

        threads = [threading.Thread(target=target) for target in (give, refuse)]
        for thread in threads:
            thread.start()
        start.wait(GENEROUS)
        seen = []
        for _ in range(3):
            try:
                seen.append(reply.get(timeout=GENEROUS))
            except LookupError:
                seen.append("error")
        for thread in threads:
            thread.join(GENEROUS)
        assert len(won) == 1
        assert seen == won * 3


@pytest.mark.usefixtures("restless")
def test_a_callback_that_races_with_the_answer_is_called_exactly_once() -> None:
    for _ in range(300):
        reply = Reply()
        start = threading.Barrier(2)
        calls: list[int] = []

        def register(start: threading.Barrier = start, reply: Reply = reply, calls: list[int] = calls) -> None:
            start.wait(GENEROUS)
            for number in range(10):
                reply.when_done(lambda number=number: calls.append(number))  # type: ignore[misc]

        thread = threading.Thread(target=register)
        thread.start()
        start.wait(GENEROUS)
        reply.set()
        thread.join(GENEROUS)
        assert sorted(calls) == list(range(10))


def test_map_filter_reduce_join_and_get_all_are_pykkas() -> None:
    one, two, numbers = Reply(), Reply(), Reply()
    doubled, joined = one.map(lambda value: value * 2), one.join(two)
    big, total = numbers.filter(lambda value: value > 1), numbers.reduce(lambda a, b: a + b)
    with pytest.raises(CallTimeout):
        doubled.get(timeout=0)
    one.set(1)
    two.set(2)
    numbers.set([1, 2, 3])
    assert (doubled.get(), joined.get(), big.get(), total.get()) == (2, [1, 2], [2, 3], 6)
    assert pykka.get_all([one, two, doubled]) == [1, 2, 2]


def test_await_waits_without_blocking_the_loop() -> None:
    async def main() -> list[Any]:
        reply, failing = Reply(), Reply()
        mapped = reply.map(str)

        async def answer() -> None:
            threading.Thread(target=reply.set, args=(1,)).start()
            threading.Thread(target=failing.fail, args=(LookupError("no"),)).start()

        async def fail() -> str:
            try:
                await failing
            except LookupError as error:
                return str(error)
            return "?"

        # `answer` gets its turn only if none of the others blocks the loop
        value, text, error, _ = await asyncio.gather(_await(reply), _await(mapped), fail(), answer())
        return [value, text, error, await reply]

    assert asyncio.run(asyncio.wait_for(main(), GENEROUS)) == [1, "1", "no", 1]


async def _await(reply: pykka.Future[Any]) -> Any:
    return await reply


def test_an_answer_to_a_closed_loop_raises_nothing() -> None:
    reply = Reply()

    async def give_up() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_await(reply), 0.001)

    asyncio.run(give_up())
    reply.set("late")
    assert reply.get() == "late"


def test_as_completed_of_nothing_is_nothing_and_without_a_timeout_it_waits() -> None:
    assert list(as_completed([])) == []
    one, two = Reply(), Reply()
    order = as_completed([one, two])
    two.set()
    assert next(order) is two
    threading.Thread(target=one.set).start()
    assert next(order) is one
    with pytest.raises(CallTimeout):
        next(as_completed([Reply()], timeout=0.001))


def test_an_answer_that_comes_in_the_last_moment_is_returned() -> None:
    async def main() -> object:
        reply, loop = Reply(None, "an answer"), asyncio.get_running_loop()
        # The loop is busy when the time-out comes, and then handles both in one iteration.
        loop.call_later(0.01, time.sleep, 0.2)
        loop.call_later(0.06, reply.set, 42)
        return await reply.aget(0.05)

    assert asyncio.run(main()) == 42


def test_an_answer_that_is_a_time_out_is_raised_as_it_is() -> None:
    async def main() -> None:
        reply = Reply(None, "an answer")
        asyncio.get_running_loop().call_later(0.01, reply.fail, TimeoutError("the answer"))
        await reply.aget(10)

    with pytest.raises(TimeoutError, match="the answer"):
        asyncio.run(main())


def test_without_an_answer_a_wait_in_a_loop_times_out_like_any_other() -> None:
    reply = Reply(None, "an answer")
    with pytest.raises(CallTimeout, match="an answer"):
        asyncio.run(reply.aget(0.01))
