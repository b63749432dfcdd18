"""`as_completed`, `gather`, `collect`, and their async twins."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import penstock
from penstock.testing import HANG, SimulatedSystem
from tests.unit.toolbox.common import BUSY, ask, now, pushed

pytestmark = pytest.mark.seeds(4)


def three(system: penstock.System) -> list[penstock.Stream]:
    return [ask(system, 0.3, "third"), ask(system, 0.1, BUSY), ask(system, 0.2, "second")]


def test_streams_come_in_the_order_in_which_they_end_however_they_end(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        streams = three(system)
        assert [streams.index(stream) for stream in penstock.as_completed(streams)] == [1, 2, 0]
        assert len(list(system.as_completed([*streams, *streams]))) == 3
        assert list(penstock.as_completed([])) == []


def test_those_that_have_not_ended_in_time_are_told_and_run_on(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        start = now(system)
        streams = [*three(system), ask(system, HANG)]
        ended: list[int] = []
        with pytest.raises(penstock.CallTimeout) as caught:
            ended.extend(map(streams.index, penstock.as_completed(streams, timeout=0.25)))
        assert ended == [1, 2]
        assert now(system) - start == pytest.approx(0.25)
        assert [streams.index(stream) for stream in caught.value.pending] == [0, 3]
        assert not any(stream.is_over for stream in caught.value.pending)
        assert streams[0].result().text == "third"


def test_a_wait_that_is_over_leaves_nothing_at_the_streams(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = ask(system, HANG)
        before = len(stream._record.over._callbacks or ())
        for _ in range(3):
            with pytest.raises(penstock.CallTimeout):
                next(penstock.as_completed([stream], timeout=0))
        waiting = penstock.as_completed([stream])
        assert waiting.pending == (stream,)
        waiting.close()
        assert list(waiting) == []
        assert len(stream._record.over._callbacks or ()) == before


def test_waiting_does_not_count_as_reading(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = ask(system, "A", HANG)
        waiting = penstock.as_completed([stream])
        assert stream.statistics().subscribers == 0
        reader = stream.events()
        reader.close()
        assert next(waiting) is stream
        assert stream.state == "ended"


def test_gather_keeps_the_order_and_has_errors_in_place(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        cancelled = ask(system, HANG)
        streams = [*three(system), cancelled]
        system.settle()
        cancelled.cancel("enough")
        first, second, third, fourth = penstock.gather(streams)
        assert isinstance(first, penstock.StreamCompleted)
        assert isinstance(third, penstock.StreamCompleted)
        assert (first.text, third.text) == ("third", "second")
        assert isinstance(second, penstock.ApiError)
        assert isinstance(fourth, penstock.StreamCancelledError)
        assert system.gather([streams[0], streams[0]]) == [first, first]
        with pytest.raises(penstock.CallTimeout) as caught:
            system.gather([streams[0], ask(system, HANG)], timeout=0.1)
        assert len(caught.value.pending) == 1


def test_collect_is_the_whole_text(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        assert penstock.collect(ask(system, "A", 0.1, "B")) == "AB"
        with pytest.raises(penstock.ApiError):
            penstock.collect(ask(system, BUSY))
        with pytest.raises(penstock.CallTimeout):
            penstock.collect(ask(system, HANG), timeout=0.1)


def test_the_async_twins_do_the_same(seed: int) -> None:
    with SimulatedSystem(seed) as system:

        async def main() -> None:
            streams = three(system)
            assert [streams.index(stream) async for stream in penstock.as_completed(streams)] == [1, 2, 0]
            assert len([stream async for stream in penstock.aas_completed(streams)]) == 3
            outcomes = await penstock.agather(streams)
            assert [type(outcome).__name__ for outcome in outcomes] == [
                "StreamCompleted",
                "ApiError",
                "StreamCompleted",
            ]
            assert await penstock.acollect(ask(system, "A", 0.1, "B")) == "AB"
            hanging = ask(system, HANG)
            with pytest.raises(penstock.CallTimeout) as caught:
                async for _ in penstock.as_completed([hanging, ask(system, 0.1, "A")], timeout=0.5):
                    pass
            assert caught.value.pending == (hanging,)
            task = asyncio.create_task(penstock.agather([hanging]))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not hanging.is_over

        system.run(main())


@pytest.mark.parametrize("wrong", [["text"], [None]])
def test_what_is_no_stream_is_refused(wrong: Any) -> None:
    with pytest.raises(penstock.OptionError, match="streams"):
        penstock.as_completed(wrong)
    with pytest.raises(penstock.OptionError, match="streams"):
        penstock.gather(wrong)
    with pytest.raises(penstock.OptionError):
        penstock.as_completed([], timeout=-1)


def test_it_waits_for_real_threads_too() -> None:
    with penstock.System() as system:
        streams = [pushed(system, str(number)) for number in range(3)]
        waiting = penstock.as_completed(streams, timeout=20)
        for stream in streams[::-1]:
            stream.stop()
            assert next(waiting) is stream

        async def main() -> list[Any]:
            more = [pushed(system, "x") for _ in range(3)]
            loop = asyncio.get_running_loop()
            for stream in more:
                loop.call_soon(stream.stop)
            return await penstock.agather(more, timeout=20)

        assert [outcome.text for outcome in asyncio.run(main())] == ["x"] * 3
