"""Fallbacks, limits and breakers over real sockets and threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import penstock
from penstock.adapters.loopback.faults import HangUp, ResetAfter, StallAfter, Status
from penstock.adapters.loopback.script import Answer, Replies, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.config.limits import BreakerOptions
from penstock.config.options import OnInterrupt
from penstock.config.settings import ProviderOptions, Settings
from penstock.errors import ApiError, CircuitOpen, ConnectError, ProviderBusy
from penstock.testing import Collector, eventually

pytestmark = pytest.mark.usefixtures("each_reader")

WORDS = tuple(f"{n} " for n in range(20))
TEXT = "".join(WORDS)
ANSWER = Answer(tokens=WORDS)
FAST = penstock.StreamOptions(batch_size=4, flush_interval=0.02, rate_limit=None)
QUICK = penstock.RequestOptions(retry_base_delay=0.01)
FALL_BACK = QUICK.replace(fallback=("second/other",))
USER = [{"role": "user", "content": "Hello"}]


class Two:
    """Two servers and a system that knows them."""

    def __init__(self, stack: ExitStack, first: Replies, second: Replies = ANSWER, **more: Any) -> None:
        limits = more.pop("limits", {})
        self.first, self.second = (
            stack.enter_context(LoopbackProvider(Script(replies, answer=ANSWER))) for replies in (first, second)
        )
        providers = {
            "first": ProviderOptions(base_url=self.first.base_url, **limits),
            "second": ProviderOptions(base_url=self.second.base_url),
        }
        self.system = penstock.System(Settings(providers=providers, **more)).start()
        stack.callback(self._stop)

    def _stop(self) -> None:
        assert [one for one in self.system.statistics().providers if one.active or one.queued] == []
        assert self.system.stop() == 0

    def ask(self, options: penstock.RequestOptions = FALL_BACK, **more: Any) -> penstock.Stream:
        return self.system.chat("m", USER, provider="first", options=FAST, request_options=options, **more)

    @property
    def circuit(self) -> str:
        return next(one.circuit for one in self.system.statistics().providers if one.name == "first")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("fault", [HangUp(), HangUp(reset=True), Status(500), Status(404), Status(401)])
def test_a_provider_that_fails_is_replaced_by_the_next_one(stack: ExitStack, fault: Any) -> None:
    two = Two(stack, fault)
    completed = two.ask().result(timeout=10)
    assert (completed.text, completed.provider) == (TEXT, "second")
    assert len(two.second.requests) == 1


def test_a_server_that_is_not_there_is_replaced_too(stack: ExitStack) -> None:
    two = Two(stack, ANSWER)
    two.first.stop()
    assert two.ask().result(timeout=10).text == TEXT


def test_the_fallback_is_asked_for_its_own_model(stack: ExitStack) -> None:
    two = Two(stack, Status(404))
    two.ask().result(timeout=10)
    (request,) = two.second.requests
    assert request.model == "other"


@pytest.mark.parametrize("on_interrupt", ["fail", "restart"])
def test_an_answer_that_breaks_off_falls_back_only_where_it_may_begin_again(
    stack: ExitStack, on_interrupt: OnInterrupt
) -> None:
    two = Two(stack, Answer(tokens=WORDS, faults=(ResetAfter(5),)))
    stream = two.ask(FALL_BACK.replace(on_interrupt=on_interrupt, max_retries=1))
    collector = Collector(stream)
    if on_interrupt == "fail":
        with pytest.raises(penstock.ProviderError):
            stream.result(timeout=10)
    else:
        assert stream.result(timeout=10).text == TEXT
    assert len(two.second.requests) == (on_interrupt == "restart")
    collector.wait_for_terminal()
    collector.check()


def test_no_more_requests_are_under_way_than_the_limit_allows(stack: ExitStack) -> None:
    two = Two(stack, Answer(tokens=WORDS, pace=0.005), limits={"concurrent_streams": 3})
    most = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.005):
            most = max(most, two.first.statistics().active_responses)

    watcher = threading.Thread(target=watch)
    watcher.start()
    streams = [two.ask(QUICK) for _ in range(12)]
    assert {stream.result(timeout=20).text for stream in streams} == {TEXT}
    done.set()
    watcher.join()
    assert 1 <= most <= 3
    assert two.system.statistics().providers[0].queue_high_water_mark >= 5


def test_a_queue_that_is_full_refuses_and_who_waits_too_long_is_told_so(stack: ExitStack) -> None:
    limits = {"concurrent_streams": 1, "max_queue": 1, "queue_timeout": 0.2}
    two = Two(stack, Answer(tokens=WORDS, faults=(StallAfter(3),)), limits=limits)
    first = two.ask(QUICK)
    eventually(lambda: two.system.get_stream_info(first.stream_id).source == "streaming")
    waiting, refused = two.ask(QUICK), two.ask(QUICK)
    for stream in (refused, waiting):
        with pytest.raises(ProviderBusy):
            stream.result(timeout=10)
    assert len(two.first.requests) == 1
    first.cancel()
    eventually(lambda: not two.system.statistics().providers[0].active)


def test_an_outage_opens_the_circuit_and_a_trial_closes_it(stack: ExitStack) -> None:
    breaker = BreakerOptions(span=0, failures=3, cooldown=2.0)
    two = Two(stack, [*[Status(503)] * 3, ANSWER, ANSWER], breaker=breaker)
    once = penstock.RequestOptions(max_retries=0)
    for _ in range(3):
        with pytest.raises(ApiError):
            two.ask(once).result(timeout=10)
    with pytest.raises(CircuitOpen):
        two.ask(once).result(timeout=10)
    assert two.ask().result(timeout=10).text == TEXT
    assert len(two.second.requests) == 1
    eventually(lambda: two.circuit == "half_open")
    assert two.ask(once).result(timeout=10).text == TEXT
    assert (two.circuit, len(two.first.requests)) == ("closed", 4)


def test_when_nobody_answers_the_last_error_says_why_and_names_the_others(stack: ExitStack) -> None:
    two = Two(stack, Status(404), HangUp())
    with pytest.raises(ConnectError) as caught:
        two.ask().result(timeout=10)
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, ApiError):
        cause = cause.__cause__
    assert cause is not None


@pytest.mark.parametrize("tokens", [1, 7, 19])
def test_a_response_that_breaks_off_is_taken_up_where_it_broke(stack: ExitStack, tokens: int) -> None:
    two = Two(stack, Answer(tokens=WORDS, faults=(ResetAfter(tokens),)))
    stream = two.system.respond(
        "Hello", "m", provider="first", options=FAST, request_options=QUICK.replace(on_interrupt="resume")
    )
    collector = Collector(stream)
    assert stream.result(timeout=10).text == TEXT
    collector.wait_for_terminal()
    collector.check()
    assert not [event for event in collector.events if isinstance(event, penstock.StreamReset)]
