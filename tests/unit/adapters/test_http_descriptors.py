"""The limit of file descriptors: told in time, once."""

from __future__ import annotations

import socket
import sys

import pytest

from penstock.adapters.http import connection, descriptors

WARNING = "few_file_descriptors_left"


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The process's limit, as the test sets it; nothing has been said of it yet."""
    set_to: list[int | None] = [None]
    monkeypatch.setattr(descriptors, "descriptor_limit", lambda: set_to[0])
    monkeypatch.setattr(descriptors, "_warned", set())
    return set_to


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if WARNING in record.getMessage()]


def test_the_log_says_once_that_few_are_left(limit: list[int | None], caplog: pytest.LogCaptureFixture) -> None:
    limit[0] = 1000
    descriptors.note_descriptor(799)
    assert warnings(caplog) == []
    for fd in (800, 801, 999):
        descriptors.note_descriptor(fd)
    assert len(warnings(caplog)) == 1
    assert "1000" in warnings(caplog)[0]
    assert "801" in warnings(caplog)[0]


def test_a_limit_that_was_raised_is_watched_anew(limit: list[int | None], caplog: pytest.LogCaptureFixture) -> None:
    for limit[0], fd in ((100, 90), (200, 90), (200, 160), (100, 90)):
        descriptors.note_descriptor(fd)
    assert len(warnings(caplog)) == 2


def test_without_a_limit_nothing_is_said(limit: list[int | None], caplog: pytest.LogCaptureFixture) -> None:
    descriptors.note_descriptor(1_000_000)
    assert warnings(caplog) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_each_connection_that_is_made_is_looked_at(limit: list[int | None], caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = connection._PlainConnection("127.0.0.1", listener.getsockname()[1])
        try:
            limit[0] = 1
            made.connect()
        finally:
            made.close()
    assert len(warnings(caplog)) == 1
