"""The pool of a reader's threads by itself."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from penstock.adapters.http.pool import Pool

PATIENCE = 10.0


@dataclass(eq=False)
class Asked:
    failure: BaseException | None = None
    endpoint: str = "here"
    queued: bool = True
    done: threading.Event = field(default_factory=threading.Event)


@pytest.mark.parametrize("failure", [ValueError(), SystemExit()], ids=["error", "exit"])
def test_a_thread_whose_request_raises_is_not_lost_to_the_pool(
    failure: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))

    def run(asked: Asked) -> None:
        if asked.failure is not None:
            raise asked.failure
        asked.done.set()

    pool: Pool[Asked] = Pool(run, "penstock-test-pool", 1, 10, 60.0)
    good = Asked()
    for asked in (Asked(failure), good):
        pool.submit(asked)
    assert good.done.wait(PATIENCE)
    assert reported == [type(failure)]
    assert pool.close() == []
    for thread in pool.threads():
        thread.join(PATIENCE)
    assert pool.counts() == ([], 0, 2, 0)
