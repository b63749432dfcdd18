"""The states and moves of an agent, and of one function call that its model makes."""

from __future__ import annotations

from typing import Final

from penstock.actors.runtime.statetable import END, START, Move, State, StateTable

__all__ = ["AGENT", "FUNCTION_CALL"]

_TURN: Final = ("asking", "working", "ending")
_RECORD: Final = ("Advance", "look")  # the record has changed
_CALLS: Final = ("TaskDone", "Down", "Progressed", "Decide", "call timeout", "Advance")

AGENT: Final = StateTable(
    "agent",
    (
        State("idle", "no message waits for an answer"),
        State("asking", "a round of the answer comes from the provider"),
        State("working", "functions run, or wait for their turn or for approval"),
        State("ending", "the stream has its ending, and delivers what it still has"),
    ),
    (
        Move((START,), ("idle",), "started", on=("start",)),
        Move((START,), ("ending",), "restarted after a crash during a turn", on=("start",)),
        Move(("idle",), ("asking",), "a message", on=_RECORD),
        Move(("asking",), ("working",), "the model calls functions", on=("RoundEnded",)),
        Move(("working",), ("asking",), "all results are there", on=_CALLS),
        Move(("asking",), ("ending",), "the answer is complete, or has failed", on=("RoundEnded",)),
        Move(("working",), ("ending",), "the next request cannot be made", on=_CALLS),
        Move(_TURN, ("idle",), "the stream has ended, no message waits", on=_RECORD),
        Move(("working", "ending"), ("asking",), "the stream has ended, a message waits", on=_RECORD),
        Move(("idle", "asking", "working"), ("ending",), "a message, but no request can be made", on=_RECORD),
        Move(("idle", *_TURN), (END,), "stopped, and no turn is left", on=_RECORD),
    ),
    end="ended",
)

FUNCTION_CALL: Final = StateTable(
    "function call",
    (
        State("pending", "it waits for its turn"),
        State("deciding", "the agent's `approve` is asked"),
        State("approval", "it waits for the user's decision"),
        State("running", "the function runs"),
        State("done", "its result is known"),
    ),
    (
        Move((START,), ("pending",), "the model calls", on=("start",)),
        Move(("pending",), ("deciding",), "`approve` is asked", on=("go_on",)),
        Move(("deciding",), ("pending",), "approved", on=("TaskDone",)),
        Move(("deciding",), ("approval",), "left to the user", on=("TaskDone",)),
        Move(("pending",), ("approval",), "needs approval", on=("begin",)),
        Move(("approval",), ("pending",), "approved", on=("Decide",)),
        Move(("pending",), ("running",), "allowed, and a thread is free", on=("go_on",)),
        Move(("running",), ("done",), "result, error, or time-out", on=("TaskDone", "Down", "call timeout")),
        Move(
            ("deciding", "approval"),
            ("done",),
            "denied, or no decision within `approval_timeout`",
            on=("TaskDone", "Down", "Decide", "call timeout"),
        ),
        Move(("pending",), ("done",), "cannot be run", on=("begin", "refuse", "go_on", "call timeout")),
    ),
)
