"""Faults found in the field: retry budgets, local faults, proxies, base URLs, silent providers."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

import penstock
from penstock.actors.call.breaker import counts_as_failure
from penstock.adapters.http import connection
from penstock.adapters.http.faults import body_failure, request_failure
from penstock.adapters.loopback.faults import Status
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.adapters.providers.shared.endpoint import trim_base_url
from penstock.config.limits import BreakerOptions, RetryBudgetOptions
from penstock.config.options import RequestOptions
from penstock.config.settings import ProviderOptions, RuntimeOptions, Settings
from penstock.errors import ApiError, ConnectError, LocalError, OptionError, ProviderBusy, ProviderError
from penstock.ports import Secret

NO_BREAKER = BreakerOptions(enabled=False)
QUICK = RequestOptions(max_retries=4, retry_base_delay=0.01)


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"


# --- the retry budget ------------------------------------------------------------------------------------------------


def test_forty_requests_outlast_sixty_failures_by_default() -> None:
    script = Script([*[Status(503)] * 60, *[Answer(tokens=("fine",))] * 100])
    options = RequestOptions(max_retries=4)
    with LoopbackProvider(script) as provider, penstock.System() as system:
        ask = partial(system.chat, "m", "x", base_url=provider.base_url, api_key="k", request_options=options)
        assert [stream.result(timeout=30).text for stream in [ask() for _ in range(40)]] == ["fine"] * 40
        assert len(provider.requests) == 100


def test_a_retry_that_the_budget_refuses_is_named_and_counted() -> None:
    settings = Settings(breaker=NO_BREAKER, retry_budget=RetryBudgetOptions(ratio=0, floor=1))
    with LoopbackProvider(Script(Status(503))) as provider, penstock.System(settings) as system:
        with pytest.raises(ApiError, match=r"HTTP 503.*\(retries: refused by the retry budget") as caught:
            system.chat("m", "x", base_url=provider.base_url, api_key="k", request_options=QUICK).result(timeout=30)
        (endpoint,) = system.statistics().providers
    assert (endpoint.retries, endpoint.retries_refused, endpoint.refused) == (1, 1, 0)
    assert caught.value.note.startswith("retries: refused")


# --- local faults ----------------------------------------------------------------------------------------------------

LOCAL = [
    OSError(errno.EMFILE, "x"),
    OSError(errno.ENFILE, "x"),
    OSError(errno.ENOMEM, "x"),
    OSError(errno.EADDRNOTAVAIL, "x"),
    OSError(errno.ENETUNREACH, "x"),
    OSError(errno.ENOBUFS, "x"),
    MemoryError(),
    socket.gaierror(socket.EAI_MEMORY, "x"),
]


@pytest.mark.parametrize("fault", LOCAL, ids=repr)
def test_a_local_fault_is_not_the_endpoints(fault: Exception) -> None:
    wrapped = RuntimeError("outer")
    wrapped.__cause__ = fault
    for error in (
        request_failure(fault, "h", sent=False, connect_timeout=1, wait_limit=1),
        request_failure(wrapped, "h", sent=False, connect_timeout=1, wait_limit=1),
        body_failure(fault, chunked=False, wait_limit=1),
    ):
        assert isinstance(error, LocalError)
        assert not counts_as_failure(error, answered=False)
        assert "this machine" in str(error)


@pytest.mark.parametrize("fault", [ConnectionRefusedError(errno.ECONNREFUSED, "x"), OSError(errno.EHOSTUNREACH, "x")])
def test_the_endpoints_faults_still_count(fault: Exception) -> None:
    error = request_failure(fault, "h", sent=False, connect_timeout=1, wait_limit=1)
    assert isinstance(error, ConnectError)
    assert counts_as_failure(error, answered=False)


def test_running_out_of_file_descriptors_opens_no_circuit() -> None:
    if sys.platform == "win32":
        pytest.skip("needs limits of resources")
    import resource

    settings = Settings(breaker=BreakerOptions(span=0, failures=1))
    once = RequestOptions(max_retries=0)
    with LoopbackProvider(Script(answer=Answer(tokens=("fine",)))) as provider, penstock.System(settings) as system:

        def ask() -> Any:
            return system.chat("m", "x", base_url=provider.base_url, api_key="k", request_options=once)

        assert ask().result(timeout=30).text == "fine"
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = socket.socket()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest.fileno(), before[1]))
        lowest.close()
        try:
            taken = []
            try:
                while True:
                    taken.append(socket.socket())
            except OSError:
                pass
            with pytest.raises(LocalError, match="file descriptors"):
                ask().result(timeout=30)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for sock in taken:
                sock.close()
        assert system.statistics().providers[0].circuit == "closed"
        assert ask().result(timeout=30).text == "fine"


# --- proxies ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://user:hunter2@127.0.0.1:9")


@pytest.mark.usefixtures("proxied")
def test_requests_to_this_machine_are_never_proxied() -> None:
    with penstock.System(Settings()) as system:
        assert system.chat("echo", "hello", provider="loopback").result(timeout=30).text
    with LoopbackProvider(Script(answer=Answer(tokens=("fine",)))) as provider:
        url = provider.base_url.replace("127.0.0.1", "localhost")
        with penstock.System(Settings()) as system:
            assert system.chat("m", "x", base_url=url, api_key="k").result(timeout=30).text == "fine"


@pytest.mark.usefixtures("proxied")
def test_an_error_through_a_proxy_names_it_without_its_password() -> None:
    options = RequestOptions(max_retries=0)
    with penstock.System(Settings()) as system, pytest.raises(ProviderError) as caught:
        system.chat("m", "x", base_url="http://example.invalid/v1", api_key="k", request_options=options).result(30)
    assert "through the proxy http://127.0.0.1:9" in str(caught.value)
    assert "hunter2" not in str(caught.value) + repr(caught.value) + repr(caught.value.__cause__)


# --- base URLs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://h/v1/chat/completions", "https://h/v1"),
        ("https://h/v1/chat/completions/", "https://h/v1"),
        ("https://h/v1/responses", "https://h/v1"),
        ("https://h/v1/messages", "https://h/v1"),
        ("http://h:11434/api/chat", "http://h:11434/api"),
        ("https://h/chat", "https://h/chat"),
        ("https://messages", "https://messages"),
        ("https://h/v1/", "https://h/v1"),
    ],
)
def test_the_path_of_a_request_is_removed_from_a_base_url(given: str, used: str) -> None:
    assert trim_base_url(given) == used
    assert OpenAiChat(Secret("k"), given).base_url == used


def test_a_corrected_base_url_works_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with (
        LoopbackProvider(Script(answer=Answer(tokens=("fine",)))) as provider,
        penstock.System(Settings()) as system,
    ):
        url = provider.base_url + "/chat/completions"
        for _ in range(2):
            assert system.chat("m", "x", base_url=url, api_key="k").result(timeout=30).text == "fine"
        said = [record.getMessage() for record in caplog.records]
        said = [line for line in said if "base_url_ends_in_a_path" in line and url in line]
        assert len(said) == 1


def test_the_refusal_of_a_query_names_the_argument_for_it() -> None:
    with pytest.raises(OptionError, match="query=") as caught:
        OpenAiChat(Secret("k"), "https://h/v1?key=hunter2")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(OptionError, match="query="):
        ProviderOptions(base_url="https://h/v1?api-version=1")


def test_the_base_url_of_the_loopback_provider_is_used() -> None:
    with LoopbackProvider(Script(answer=Answer(tokens=("mine",)))) as provider:
        settings = Settings(providers={"loopback": ProviderOptions(base_url=provider.base_url)})
        with penstock.System(settings) as system:
            assert system.chat("m", "x", provider="loopback").result(timeout=30).text == "mine"


# --- reader threads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [3, 8, 40])
def test_a_silent_provider_does_not_starve_another(silent: str, threads: int) -> None:
    settings = Settings(runtime=RuntimeOptions(reader="threads", reader_threads=threads))
    with ExitStack() as stack:
        provider = stack.enter_context(LoopbackProvider(Script(answer=Answer(tokens=("fine",)))))
        system = stack.enter_context(penstock.System(settings))
        waiting = [system.chat("m", "x", base_url=silent, api_key="k") for _ in range(threads + 5)]
        for _ in range(3):
            assert system.chat("m", "x", base_url=provider.base_url, api_key="k").result(timeout=20).text == "fine"
        for stream in waiting:
            stream.cancel()


def test_the_wait_for_a_reader_thread_has_a_time_limit(silent: str) -> None:
    settings = Settings(
        runtime=RuntimeOptions(reader="threads", reader_threads=1),
        providers={"openai": ProviderOptions(queue_timeout=0.3)},
    )
    with penstock.System(settings) as system:
        first = system.chat("m", "x", base_url=silent, api_key="k")

        second = system.chat("m", "x", base_url=silent, api_key="k")

        with pytest.raises(ProviderBusy, match="no reader thread was free"):
            second.result(timeout=20)
        assert system.statistics().providers[0].circuit == "closed"
        first.cancel()


def test_the_fault_of_the_provider_counts_where_another_address_has_no_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without IPv6: the second address of a provider that is down cannot even be tried."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()
    addresses = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", closed),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", closed[1], 0, 0)),
    ]
    connect = connection._connect_socket

    def connect_without_ipv6(sock: socket.socket, *rest: Any) -> None:
        if sock.family == socket.AF_INET6:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        connect(sock, *rest)

    monkeypatch.setattr(connection, "_connect_socket", connect_without_ipv6)
    for order in (addresses, addresses[::-1]):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, order=order: order)
        with penstock.System(Settings()) as system, pytest.raises(ConnectError, match="refused"):
            system.chat("m", "x", base_url="http://api.test/v1", api_key="k", max_retries=0).result(timeout=30)
