"""A system in a fork of the process that started it: its threads are not there, and every call says so at once."""

from __future__ import annotations

import subprocess
import sys
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
busy = system.open_stream()
iterator, texts, subscription = iter(stream), iter(stream.texts()), busy.subscribe(repr)
sink = stream.sink()
stream.process_token("in the log")
next(iterator)
parent = os.getpid()
if os.fork() == 0:
    calls = {
        "process_token": lambda: stream.process_token("x"),
        "process_tokens": lambda: stream.process_tokens(["x"]),
        "process_text": lambda: stream.process_text("x"),
        "flush_buffer": lambda: stream.flush_buffer(),
        "set_options": lambda: stream.set_options(batch_size=2),
        "stop a stream": lambda: stream.stop(),
        "reset": lambda: stream.reset("x"),
        "unsubscribe": lambda: stream.unsubscribe(repr),
        "update_metadata": lambda: stream.update_metadata({}),
        "stream.statistics": lambda: stream.statistics(),
        "events": lambda: stream.events(),
        "an older iterator": lambda: next(iterator),
        "its next(timeout)": lambda: iterator.next(5),
        "its anext": lambda: asyncio.run(iterator.__anext__()),
        "older texts": lambda: next(texts),
        "new texts": lambda: next(iter(stream.texts())),
        "structured": lambda: next(iter(penstock.structured(stream, list[int]))),
        "push_now": lambda: sink.push_now([("x", "text")], print),
        "push_event": lambda: sink.push_event(None),
        "sink.reset": lambda: sink.reset("x", print),
        "sink.end": lambda: sink.end(),
        "sink.cancel": lambda: sink.cancel(),
        "approve": lambda: agent.approve("x"),
        "deny": lambda: agent.deny("x"),
        "agent.chat": lambda: agent.chat("hello"),
        "achat": lambda: asyncio.run(agent.achat("hello")),
        "history": lambda: agent.history,
        "agent.statistics": lambda: agent.statistics(),
        "respond": lambda: system.respond("hello", "echo", provider="loopback"),
        "chat with a mistake": lambda: system.chat("echo", "hello", provider="no such provider"),
        "start": lambda: system.start(),
        "statistics": lambda: system.statistics(),
        "tree": lambda: system.tree(),
        "runtime": lambda: system.runtime,
        "get_active_streams": lambda: system.get_active_streams(),
        "get_stream_info": lambda: system.get_stream_info(stream.stream_id),
        "stream": lambda: system.stream(stream.stream_id),
        "start_child": lambda: system.start_child(None),
        "terminate_child": lambda: system.terminate_child("x"),
        "health_check": lambda: client.health_check(),
        "alist_models": lambda: asyncio.run(client.alist_models()),
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
    subscription.unsubscribe()
    iterator.close()
    with agent:
        pass
    del iterator, texts
    assert time.monotonic() - began < 20
    with penstock.System(penstock.Settings()) as own:
        print(own.chat("echo", "hello", provider="loopback").result(timeout=20).text, flush=True)
    os._exit(0)
_, status = os.wait()
assert not stream.is_over and busy.process_token("x") is None
assert system.chat("echo", "x", provider="loopback").result(timeout=20).text
assert system.stop() == 0
sys.exit(os.waitstatus_to_exitcode(status))
"""

UNDER_LOAD = """
import os, sys, threading, time
import penstock

FAST = penstock.StreamOptions(batch_size=1, rate_limit=None, max_buffer_size=4)
system = penstock.System(penstock.Settings()).start()
streams = [system.open_stream(options=FAST) for _ in range(20)]
for stream in streams:
    stream.subscribe(lambda event: None)
ending = threading.Event()


def push(stream):
    while not ending.is_set():
        stream.process_token("x")


threads = [threading.Thread(target=push, args=(stream,)) for stream in streams[:6]]
for thread in threads:
    thread.start()
failed = 0
for n in range(30):
    pid = os.fork()
    if pid == 0:
        threading.Timer(10, os._exit, [9]).start()
        refused = 0
        for stream in streams:
            for call in (stream.process_token, lambda text: stream.sink().push_event(None), stream.cancel):
                try:
                    call("x")
                except penstock.SystemForked:
                    refused += 1
            for subscription in stream._record.hub.subscriptions:
                subscription.unsubscribe()
        if n == 0:
            with penstock.System(penstock.Settings()) as own:
                assert own.chat("echo", "hello", provider="loopback").result(timeout=20).text
        os._exit(0 if refused == 3 * len(streams) else 1)
    failed += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
ending.set()
for thread in threads:
    thread.join()
assert system.stop() == 0
print(failed)
"""

IN_A_WORKER = """
import multiprocessing, os, threading
import penstock
from penstock.actors.runtime.dispatcher import on_worker

context = multiprocessing.get_context("fork")
system = penstock.System(penstock.Settings()).start()
stream = system.open_stream()


def work(n):
    try:
        stream.process_token("x")
    except penstock.SystemForked:
        with penstock.System(penstock.Settings()) as own:
            return own.chat("echo", f"hello {n}", provider="loopback").result(timeout=20).text


def refused(n):
    system.chat("echo", "hello", provider="loopback")


def fork_here():
    with context.Pool(2) as pool:
        print(pool.map(work, range(4)))
        try:
            pool.map(refused, [1])
        except penstock.SystemForked as error:
            print("refused", error.pid == os.getpid())


fork_here()
done = threading.Event()


def on_event(event):  # on a worker of the system, which is none in the child
    if not done.is_set():
        pid = os.fork()
        if pid == 0:
            threading.Timer(20, os._exit, [9]).start()
            print(work(7), on_worker(), flush=True)  # a thread that has no pool must not lend its place
            os._exit(0)
        os.waitpid(pid, 0)
        done.set()


stream.subscribe(on_event)
stream.process_token("x")
assert done.wait(30)
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
    root = str(Path(penstock.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-u", "-c", program], env={"PYTHONPATH": root}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_system_that_was_started_before_a_fork_says_so_in_the_child() -> None:
    assert run(USED_BEFORE).split() == ["hello"]


def test_no_lock_that_was_held_at_the_fork_hangs_the_child() -> None:
    assert run(UNDER_LOAD).split() == ["0"]


def test_workers_of_multiprocessing_and_forks_in_a_subscribed_function() -> None:
    texts = ["hello 0", "hello 1", "hello 2", "hello 3"]
    assert run(IN_A_WORKER).splitlines() == [str(texts), "refused True", "hello 7 False"]


def test_a_system_that_was_only_made_before_a_fork_works_in_every_child() -> None:
    assert run(MADE_BEFORE).split() == ["hello", "hello"]
