"""Processes as users write them, for the type checker: nothing runs this file."""

from __future__ import annotations

from typing import Any, assert_type

import pykka

from penstock.actors.runtime.bounded import MailboxOptions
from penstock.actors.runtime.node import Node
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.runtime.signals import ExitNotice
from penstock.actors.runtime.statem import StateMachine
from penstock.supervisors.spec import ChildSpec
from penstock.supervisors.supervisor import Supervisor


class Worker(Process):
    def on_start(self) -> None:
        assert_type(self.ref, ProcessRef)
        assert_type(self.runtime.spawn(Worker, 1, name="it", link=self.ref, mailbox=MailboxOptions()), ProcessRef)
        assert_type(self.runtime.spawn(Supervisor, [ChildSpec(id="it", cls=Worker)]), ProcessRef)
        self.runtime.spawn(pykka.ThreadingActor)  # type: ignore[arg-type]
        self.runtime.spawn(Worker, link="it")  # type: ignore[arg-type]

    def on_receive(self, message: Any) -> Any:
        runtime = self.runtime
        assert_type(runtime.monitor(self.ref, "it"), int)
        assert_type(runtime.demonitor(self.ref, 1, flush=True), bool)
        assert_type(runtime.whereis("it"), ProcessRef | None)
        assert_type(runtime.names(), dict[str, ProcessRef])
        assert_type(runtime.processes(), list[ProcessRef])
        assert_type(runtime.links_of(self.ref), tuple[ProcessRef, ...])
        assert_type(runtime.join(self.ref, 1.0), bool)
        assert_type(runtime.clock.monotonic(), float)
        assert_type(runtime.dead_letters.count, int)
        match message:
            case ExitNotice(sender=sender):
                assert_type(sender, ProcessRef | None)


class Machine(StateMachine):
    def init(self) -> str:
        assert_type(self.runtime.spawn(Worker), ProcessRef)
        return "only"


def start(runtime: Runtime, cls: type[Process]) -> Node:
    assert_type(runtime.spawn(Worker, 1), ProcessRef)
    assert_type(runtime.spawn(cls), ProcessRef)
    assert_type(Worker.start(runtime=runtime), ProcessRef)
    runtime.spawn(pykka.ThreadingActor)  # type: ignore[arg-type]
    return runtime
