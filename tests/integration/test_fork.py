"""A system in a fork of the process that started it: its threads are not there, and every call says so at once."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import penstock

if sys.platform == "win32":
    pytest.skip("needs fork", allow_module_level=True)

USED_BEFORE = """
import asyncio, os, sys, time
import penstock

system = penstock.System(penstock.Settings())
stream = system.open_stream()
agent = system.agent(model="echo", provider="loopback")
client = system.provider("loopback")
system.chat("echo", "warm up", provider="loopback").result(timeout=20)
parent = os.getpid()
if os.fork() == 0:
    calls = {
        "chat": lambda: system.chat("echo", "hello", provider="loopback"),
        "open_stream": lambda: system.open_stream(),
        "agent": lambda: system.agent(model="echo", provider="loopback"),
        "provider": lambda: system.provider("loopback"),
        "result": lambda: stream.result(),
        "aresult": lambda: asyncio.run(stream.aresult()),
        "next": lambda: next(iter(stream)),
        "anext": lambda: asyncio.run(aiter(stream).__anext__()),
        "subscribe": lambda: stream.subscribe(print),
        "cancel": lambda: stream.cancel(),
        "pause": lambda: stream.pause(),
        "process_token": lambda: stream.process_token("a"),
        "process_tokens": lambda: stream.process_tokens(["a", "b"]),
        "sink": lambda: stream.sink().push_now([("a", "text")], print),
        "stop the stream": lambda: stream.stop(),
        "flush": lambda: stream.flush_buffer(),
        "set_options": lambda: stream.set_options(batch_size=3),
        "reset": lambda: stream.reset("again"),
        "texts": lambda: list(stream.texts()),
        "agent.chat": lambda: agent.chat("hello"),
        "achat": lambda: asyncio.run(agent.achat("hello")),
        "approve": lambda: agent.approve("call_1"),
        "forget": lambda: agent.forget(),
        "statistics": lambda: system.statistics(),
        "tree": lambda: system.tree(),
        "stream": lambda: system.stream("s"),
        "active": lambda: system.get_active_streams(),
        "info": lambda: system.get_stream_info("s"),
        "start": lambda: system.start(),
        "history": lambda: setattr(agent, "history", []),
        "alist_models": lambda: asyncio.run(client.alist_models()),
        "stream_chat": lambda: agent.stream_chat("hello"),
        "stop the agent": lambda: agent.stop(),
        "chat_completion": lambda: client.chat_completion("hello", model="echo"),
        "list_models": lambda: client.list_models(),
    }
    began = time.monotonic()
    for name, call in calls.items():
        try:
            print(name, "returned", call(), flush=True)
        except penstock.SystemForked as error:
            assert str(error) == f"this System was made in another process (pid {parent}); make a new one", error
        except BaseException as error:
            print(name, repr(error), flush=True)
    assert system.stop() == 0
    assert time.monotonic() - began < 2
    with penstock.System(penstock.Settings()) as own:
        print(own.chat("echo", "hello", provider="loopback").result(timeout=20).text, flush=True)
    os._exit(0)
_, status = os.wait()
assert system.chat("echo", "x", provider="loopback").result(timeout=20).text
assert system.stop() == 0
sys.exit(os.waitstatus_to_exitcode(status))
"""

IN_A_POOL = """
import multiprocessing
import penstock

system = penstock.System(penstock.Settings()).start()
stream = system.open_stream()

def work(number):
    try:
        stream.process_token("a")
    except penstock.SystemForked:
        with penstock.System(penstock.Settings()) as own:
            return own.chat("echo", f"hello-{number}", provider="loopback").result(timeout=20).text

with multiprocessing.get_context("fork").Pool(2) as pool:
    print(*pool.map_async(work, range(4)).get(timeout=40))
stream.process_token("a")
stream.stop()
assert (stream.text, system.stop()) == ("a", 0)
"""

LIKE_GUNICORN = """
import os, signal, time
import penstock

system = penstock.System(penstock.Settings())  # --preload: the application is imported before the workers are forked
system.chat("echo", "in the master", provider="loopback").result(timeout=20)

def worker():
    with penstock.System(penstock.Settings()) as own:
        print(own.chat("echo", "hello", provider="loopback").result(timeout=20).text, flush=True)
    try:
        with system:
            pass
    except penstock.SystemForked:
        print("refused", flush=True)
    system.stop()

workers = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        try:
            worker()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
assert system.stop() == 0
"""

MADE_BEFORE = """
import os
import penstock

system = penstock.System(penstock.Settings())
for _ in range(2):
    if os.fork() == 0:
        with system:
            print(system.chat("echo", "hello", provider="loopback").result(timeout=20).text, flush=True)
        os._exit(0)
os.wait(), os.wait()
"""


def run(program: str) -> str:
    began = time.monotonic()
    root = str(Path(penstock.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": root}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 60
    return done.stdout


def test_a_system_that_was_started_before_a_fork_says_so_in_the_child() -> None:
    assert run(USED_BEFORE).split() == ["hello"]


def test_a_system_that_was_only_made_before_a_fork_works_in_every_child() -> None:
    assert run(MADE_BEFORE).split() == ["hello", "hello"]


def test_workers_of_a_pool_make_their_own_and_the_parents_stream_goes_on() -> None:
    assert run(IN_A_POOL).split() == ["hello-0", "hello-1", "hello-2", "hello-3"]


def test_workers_that_a_server_forks_after_the_import_make_their_own() -> None:
    assert run(LIKE_GUNICORN).split() == ["hello", "refused"] * 2
