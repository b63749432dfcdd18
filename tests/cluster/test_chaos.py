"""A short run of the chaos, and the bugs that its checker must find."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("needs signals", allow_module_level=True)

from penstock.events import Event, StreamCompleted, StreamReset, TokenEvent
from tests.cluster.chaos import FAULTS, Chaos, compared


def token(seq: int, text: str) -> TokenEvent:
    return TokenEvent("s", seq, (text,), text, "text", 0.0, {})


def completed(seq: int, text: str) -> StreamCompleted:
    return StreamCompleted(stream_id="s", seq=seq, text=text, timestamp=0.0, metadata={})


LOG: Sequence[Event] = [
    token(1, "7.0 "),
    token(2, "7.1 "),
    StreamReset("s", 3, "again", 0.0, {}),
    token(4, "8.0 "),
    token(5, "8.1 "),
    completed(6, "8.0 8.1 "),
]
HAD: list[tuple[int, str, Any]] = [
    (1, "token", {"text": "7.0 "}),
    (2, "token", {"text": "7.1 "}),
    (3, "reset", {}),
    (5, "token", {"text": "8.0 8.1 "}),
    (6, "end", {}),
]


def test_a_reader_of_the_log_is_right_also_where_pieces_are_joined() -> None:
    assert compared(HAD, LOG) == []
    assert compared(HAD[:2], LOG, is_whole=False) == []


@pytest.mark.parametrize(
    ("had", "log", "what"),
    [
        (HAD[:-1], LOG, "no end"),
        ([HAD[0], (2, "token", {"text": "9.1 "}), *HAD[2:]], LOG, "splice"),
        ([HAD[0], (2, "token", {"text": "7.2 "}), *HAD[2:]], LOG, "splice"),
        ([HAD[0], HAD[2], *HAD[2:]], LOG, "do not grow"),
        ([(1, "token", {"text": "9.0 "}), *HAD[2:]], LOG, "the log has"),
        ([*HAD[:2], *HAD[3:]], LOG, "splice"),
        (HAD, [*LOG[:1], *LOG[2:]], "hole"),
        (HAD, [*LOG, completed(7, "")], "2 ends"),
        (HAD, [*LOG[:4], token(5, "7.2 "), LOG[5]], "splice"),
        (HAD, LOG[:-1], "0 ends"),
    ],
)
def test_the_checker_finds_what_is_wrong(had: list[tuple[int, str, Any]], log: Sequence[Event], what: str) -> None:
    assert any(what in fault for fault in compared(had, log)), compared(had, log)


def test_every_reader_has_a_run_of_its_log_whatever_dies(tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, seconds=12, nodes=2, streams=12, plan=["kill", "freeze", "restart", "empty"], between=0.5)
    assert chaos.run() == []
    assert set(chaos.done) <= set(FAULTS)
    assert sum(chaos.done.values()) >= 3
