"""Where everything stands in the diagrams. Sizes are chosen so that text can be read on a telephone's screen."""

from __future__ import annotations

from typing import Final, NamedTuple

from penstock.actors.agent.states import AGENT, FUNCTION_CALL
from penstock.actors.call.states import BREAKER, INTEGRATION
from penstock.actors.runtime.statetable import Move, State, StateTable
from penstock.actors.stream.states import TOKEN_STREAM
from tests.diagrams.drawing import Arrow, Box, Choice, Dot, Frame, Label, Layout, Rectangle, Ring, draw

__all__ = ["DIAGRAMS", "Diagram"]

_FLOWING: Final = ("idle", "buffering", "streaming")
_AWAKE: Final = (*_FLOWING, "rate_limited", "error")

_TOKEN_STREAM: Final = Layout(
    440,
    644,
    {
        "all": Frame((*_AWAKE, "paused"), Rectangle(8, 48, 432, 532)),
        "awake": Frame(_AWAKE, Rectangle(18, 58, 422, 440), is_inner=True),
        "flowing": Frame(_FLOWING, Rectangle(28, 68, 390, 274)),
        "start": Dot(90, 24),
        "idle": Box(90, 114),
        "buffering": Box(318, 114),
        "streaming": Box(224, 222),
        "rate_limited": Box(106, 394),
        "error": Box(330, 394),
        "paused": Box(106, 494),
        "ended": Ring(106, 606, "end"),
    },
    (
        Arrow("start.s", "idle.n", Label(100, 36)),
        Arrow("idle.e", "buffering.w", Label(190, 92, "middle", 100)),
        Arrow("buffering.s", "streaming.e", Label(211, 166, "middle", 150)),
        Arrow("idle.s@104", "streaming.w@214"),
        Arrow("streaming.w@230", "idle.s@76", Label(36, 254, "start", 200)),
        Arrow("flowing.s@56", "rate_limited.n@56", Label(64, 308, "start", 70)),
        Arrow("rate_limited.n@158", "streaming.s@214", Label(150, 346, "end", 60), via=(296,)),
        Arrow("flowing.s@342", "error.n@342", Label(349, 316, "start", 54)),
        Arrow("error.n@316", "streaming.s@256", Label(308, 332, "end", 140), via=(296,)),
        Arrow("rate_limited.e@387", "error.w@387"),
        Arrow("error.w@401", "rate_limited.e@401"),
        Arrow("awake.s@106", "paused.n", Label(114, 458)),
        Arrow("paused.e", "error.e", Label(250, 483, "middle"), via=(408,)),
        Arrow("paused.e", "flowing.e@170", None, via=(408,)),
        Arrow("all.s@106", "ended.n", Label(98, 563, "end", 80)),
        Arrow("all.s@336", "ended.e", Label(326, 570, "end", 190), cause=1),
    ),
)

_BEFORE: Final = ("queued", "connecting", "waiting")
_AT_WORK: Final = (*_BEFORE, "streaming")

_PROVIDER_CALL: Final = Layout(
    440,
    684,
    {
        "all": Frame(("limited", *_AT_WORK, "retry_wait"), Rectangle(8, 48, 432, 572)),
        "resting": Frame(("limited", "retry_wait"), Rectangle(16, 102, 150, 532), is_inner=True),
        "work": Frame(_AT_WORK, Rectangle(218, 174, 404, 560), is_inner=True),
        "before": Frame(_BEFORE, Rectangle(228, 184, 394, 444)),
        "start": Dot(306, 24),
        "gate": Choice(306, 136, "gate"),
        "limited": Box(92, 136),
        "queued": Box(306, 220),
        "connecting": Box(306, 312),
        "waiting": Box(306, 404),
        "streaming": Box(306, 522),
        "retry_wait": Box(82, 492),
        "done": Ring(156, 640, "middle"),
    },
    (
        Arrow("start.s", "gate.n", Label(296, 36, "end")),
        Arrow("gate.w", "limited.e"),
        Arrow("gate.s", "queued.n"),
        Arrow("limited.s", "queued.w", Label(184, 208, "middle")),
        Arrow("queued.s@280", "connecting.n@280", Label(288, 266, "start", 84)),
        Arrow("connecting.s@280", "waiting.n@280", Label(288, 358, "start", 84)),
        Arrow("queued.e", "waiting.e", via=(380,)),
        Arrow("before.s@286", "streaming.n@286", Label(294, 474)),
        Arrow("work.w@492", "retry_wait.e", Label(184, 460, "middle", 64)),
        Arrow("retry_wait.n@38", "gate.n", Label(46, 400, "start", 70), via=(80,)),
        Arrow("before.e@330", "gate.e", Label(324, 92, "start", 80), via=(418,)),
        Arrow("resting.s@40", "done.w", Label(48, 606, "start", 90)),
        Arrow("work.s@360", "done.e", Label(352, 604, "end", 120)),
        Arrow("all.s@156", "done.n", Label(163, 590)),
    ),
)

_TURN: Final = ("asking", "working", "ending")

_AGENT: Final = Layout(
    440,
    580,
    {
        "all": Frame(("idle", *_TURN), Rectangle(8, 48, 432, 496)),
        "turn": Frame(_TURN, Rectangle(18, 178, 422, 486), is_inner=True),
        "start": Dot(90, 24),
        "idle": Box(90, 100),
        "asking": Box(92, 232),
        "working": Box(350, 232),
        "ending": Box(236, 420),
        "ended": Ring(236, 556, "start"),
    },
    (
        Arrow("start.s", "idle.n", Label(100, 36)),
        Arrow("idle.s", "asking.n@90", Label(98, 148)),
        Arrow("turn.n@240", "idle.e", Label(248, 126, "start", 150)),
        Arrow("asking.e@224", "working.w@224", Label(220, 200, "middle", 130)),
        Arrow("working.w@240", "asking.e@240", Label(220, 252, "middle", 160)),
        Arrow("asking.s@112", "ending.n", Label(120, 286, "start", 170), via=(310,)),
        Arrow("working.s", "ending.e", Label(358, 340, "start", 60)),
        Arrow("ending.w@412", "asking.s@76", Label(84, 366, "start", 130)),
        Arrow("idle.w", "ending.w@428", Label(44, 454, "start", 150), via=(34,)),
        Arrow("all.s@236", "ended.n", Label(246, 518)),
    ),
)

_FUNCTION_CALL: Final = Layout(
    440,
    432,
    {
        "asked": Frame(("deciding", "approval"), Rectangle(284, 66, 430, 256), is_inner=True),
        "start": Dot(110, 24),
        "pending": Box(110, 100, 190),
        "deciding": Box(357, 100),
        "approval": Box(357, 222),
        "running": Box(70, 280),
        "done": Box(154, 400),
    },
    (
        Arrow("start.s", "pending.n", Label(120, 40)),
        Arrow("pending.e@92", "deciding.w@92", Label(246, 70, "middle", 70)),
        Arrow("deciding.w@108", "pending.e@108", Label(244, 120, "middle")),
        Arrow("deciding.s", "approval.n", Label(365, 162, "start", 60)),
        Arrow("pending.s@192", "approval.w@214", Label(240, 192, "middle", 70)),
        Arrow("approval.w@230", "pending.s@174", Label(236, 242, "middle")),
        Arrow("pending.s@40", "running.n@40", Label(48, 190, "start", 90)),
        Arrow("pending.s@154", "done.n", Label(162, 300, "start", 60)),
        Arrow("running.s", "done.w", Label(78, 346, "start", 62)),
        Arrow("asked.s@340", "done.e", Label(330, 340, "end", 140)),
    ),
)

_BREAKER: Final = Layout(
    440,
    256,
    {
        "start": Dot(80, 24),
        "closed": Box(80, 90),
        "open": Box(360, 90),
        "half_open": Box(220, 210),
    },
    (
        Arrow("start.s", "closed.n", Label(90, 50)),
        Arrow("closed.e", "open.w", Label(222, 70, "middle", 130)),
        Arrow("open.s@372", "half_open.e@218", Label(340, 236, "middle")),
        Arrow("half_open.e@202", "open.s@346", Label(338, 160, "end", 70)),
        Arrow("half_open.w", "closed.s", Label(88, 150, "start", 80)),
    ),
)

_PARTS: Final = ("provider", "reader", "decoder", "intake", "stream", "log", "cursors", "subscribers")
_WAY: Final = StateTable(
    "way of a token",
    tuple(State(name, "") for name in _PARTS),
    (
        Move(("provider",), ("reader",), "bytes", on=()),
        Move(("reader",), ("decoder",), "frames", on=()),
        Move(("decoder",), ("intake",), "deltas", on=()),
        Move(("intake",), ("stream",), "tokens", on=()),
        Move(("stream",), ("log",), "batches, numbered", on=()),
        Move(("log",), ("cursors",), "events", on=()),
        Move(("cursors",), ("subscribers",), "iterators, actors, functions", on=()),
        Move(("stream",), ("reader",), "credit, pause, cancel", on=()),
    ),
)

_DATA_FLOW: Final = Layout(
    440,
    268,
    {
        "provider": Box(66, 46),
        "reader": Box(222, 46),
        "decoder": Box(374, 46),
        "intake": Box(374, 134),
        "stream": Box(222, 134),
        "log": Box(66, 134),
        "cursors": Box(66, 222),
        "subscribers": Box(358, 222),
    },
    (
        Arrow("provider.e", "reader.w", Label(147, 34, "middle")),
        Arrow("reader.e", "decoder.w", Label(294, 34, "middle")),
        Arrow("decoder.s", "intake.n", Label(382, 90)),
        Arrow("intake.w", "stream.e", Label(299, 122, "middle")),
        Arrow("stream.w", "log.e", Label(138, 114, "middle", 70)),
        Arrow("log.s", "cursors.n", Label(74, 178)),
        Arrow("cursors.e", "subscribers.w", Label(207, 202, "middle", 180)),
        Arrow("stream.n", "reader.s", Label(230, 90, "start", 140)),
    ),
)


class Diagram(NamedTuple):
    """One picture."""

    title: str
    table: StateTable
    layout: Layout

    def svg(self) -> str:
        return draw(*self)


DIAGRAMS: Final = {
    "token-stream": Diagram("States of a token stream", TOKEN_STREAM, _TOKEN_STREAM),
    "provider-call": Diagram("States of a provider call", INTEGRATION, _PROVIDER_CALL),
    "circuit-breaker": Diagram("States of a circuit breaker", BREAKER, _BREAKER),
    "agent": Diagram("States of an agent", AGENT, _AGENT),
    "function-call": Diagram("States of a function call", FUNCTION_CALL, _FUNCTION_CALL),
    "data-flow": Diagram("The way of a token from the provider to its subscribers", _WAY, _DATA_FLOW),
}
