"""A program with streams that are stored, to be killed: ``python -m tests.integration.durable PLAN``.

The plan is JSON. It writes a line ``stream seq text`` for each event that a reader got, and other lines in capitals.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

import penstock
from penstock.actors.stream.storing import StoreWriter
from penstock.adapters.journals.sqlite import SqliteJournal
from penstock.config.options import RequestOptions, StreamOptions
from penstock.config.settings import Settings
from penstock.errors import StoreError
from penstock.events import StreamFailed, TokenEvent
from penstock.ports import Append, EntryId

__all__ = ["DyingJournal", "die"]


def die() -> None:
    """End this process as ``kill -9`` does."""
    os.kill(os.getpid(), 9)  # SIGKILL, which Windows has no name for


class DyingJournal(SqliteJournal):
    """A store whose process dies in the middle of its n-th transaction: entries are written, but not committed."""

    def __init__(self, path: str, transactions: int, **how: Any) -> None:
        super().__init__(path, **how)
        self.left = transactions

    def append_all(self, appends: Sequence[Append]) -> Sequence[EntryId | StoreError]:
        self.left -= 1
        return super().append_all(appends)

    def _append(self, connection: Any, append: Append) -> EntryId:
        answer = super()._append(connection, append)
        if self.left <= 0:
            die()
        return answer


class TellingJournal(SqliteJournal):
    """A store that tells when each of its transactions is done."""

    def append_all(self, appends: Sequence[Append]) -> Sequence[EntryId | StoreError]:
        answers = super().append_all(appends)
        say("STORED")
        return answers


def say(*words: object) -> None:
    """Write a line, so that it is out even if the process dies next."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def read(stream: penstock.Stream) -> None:
    """Tell each event that a reader gets."""
    for event in stream.events(after=0, window=100_000):  # none is merged with the next
        text = event.text if isinstance(event, TokenEvent) else f"<{type(event).__name__}>"
        say(stream.stream_id, event.seq, text.strip())
        if isinstance(event, StreamFailed):
            say("FAILED", stream.stream_id, type(event.error.__cause__ or event.error).__name__)


def main(plan: dict[str, Any]) -> None:
    """Open the streams of the plan, and feed them until the process is killed."""
    how = {"durability": plan["durability"], "synchronous": plan.get("synchronous", "NORMAL")}
    if "transactions" in plan:
        store: SqliteJournal = DyingJournal(plan["path"], plan["transactions"], **how)
    else:
        store = (TellingJournal if plan.get("tells") else SqliteJournal)(plan["path"], **how)
    assert StoreWriter.__init__.__kwdefaults__ is not None
    StoreWriter.__init__.__kwdefaults__["patience"] = plan.get("patience", 30.0)
    system = penstock.System(Settings(), journal=store).start()
    options = StreamOptions(batch_size=1, rate_limit=None, max_errors=2, error_recovery_delay=0.05)
    streams = [system.open_stream(f"s{number}", options) for number in range(plan.get("streams", 3))]
    for chat in plan.get("chats", ()):
        request_options = RequestOptions(on_interrupt=chat["on_interrupt"])
        verb = system.respond if chat.get("responses") else system.chat
        streams.append(
            verb(
                chat["model"],
                "Hello",
                stream_id=chat["id"],
                provider=chat["provider"],
                base_url=chat["base_url"],
                options=options,
                request_options=request_options,
                on_orphan="continue",
            )
        )
    streams += [system.stream(name) for name in plan.get("read", ())]
    threads = [threading.Thread(target=read, args=(stream,), daemon=True) for stream in streams]
    for thread in threads:
        thread.start()
    if plan.get("limit_bytes") and sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (plan["limit_bytes"], resource.RLIM_INFINITY))
    pause = threading.Event()
    fed = streams[: plan.get("streams", 3)]
    for number in range(plan.get("tokens", 1_000_000)):
        for stream in fed:
            with contextlib.suppress(penstock.StreamClosed):
                stream.process_token(f"t{number}")
        if fed and all(stream.is_over for stream in fed):
            break
        pause.wait(plan.get("pause", 0.002))
    for stream in fed:
        with contextlib.suppress(penstock.StreamClosed):
            stream.stop()
    for thread in threads:
        thread.join()
    say("DONE")
    if plan.get("then") == "die":
        die()
    system.stop()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
