"""The threads that carry out commands."""

from __future__ import annotations

import threading

import pytest

from penstock.adapters.journals import command_threads
from penstock.adapters.journals.command_threads import CommandThreads


def test_without_threads_a_command_is_refused_and_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_threads, "OF_ALL_LOGS", 1)
    threads, done = CommandThreads(), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more_threads)
        assert not threads.start("s", done.set)
    assert threads.refused == 1
    assert threads.start("s", done.set)
    assert done.wait(10)


def no_more_threads(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_command_that_waits_has_the_thread_of_the_one_that_ends() -> None:
    threads, go_on, ended = CommandThreads(), threading.Event(), threading.Semaphore(0)
    for _ in range(command_threads.OF_ONE_LOG):
        assert threads.start("s", lambda: go_on.wait(10))
    assert not threads.start("s", ended.release)
    assert threads.start("t", go_on.set)
    assert threads.start("s", ended.release, 10.0)
    assert ended.acquire(timeout=10)
    assert threads.refused == 1
