"""What boards are told over the WebSocket of a real gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

import penstock
from penstock.adapters.loopback.faults import ErrorFrame
from penstock.adapters.loopback.script import Answer, Script
from penstock.config.dashboard import DashboardOptions
from penstock.config.settings import Settings
from penstock.gateway.board.desk import desk_of
from penstock.gateway.board.listing import MOST_ROWS
from penstock.gateway.board.sheets import SheetCopy
from penstock.gateway.keys import KeyFile, new_key
from penstock.testing import eventually
from tests.integration.gateway.serving import ONCE, PATIENCE, Served, gateway

ENDLESS = Answer(tokens=("word ",), repeat=100_000, pace=0.01)


class Board:
    """A connection that watches topics."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[dict[str, Any]] = []
        self._taken: dict[str, int] = {}

    def ask(self, **message: Any) -> dict[str, Any]:
        """Send a message; returns the answer."""
        self.socket.send(json.dumps({"ref": "x", **message}))
        while True:
            found = json.loads(self.socket.recv(PATIENCE))
            if isinstance(found, dict):
                return found
            self.seen += found

    def watch(self, topic: str) -> dict[str, Any]:
        """Subscribe; returns the snapshot."""
        assert self.ask(op="subscribe", sid=topic)["ok"]
        return self.next(topic)

    def next(self, topic: str, wanted: Callable[[dict[str, Any]], Any] = lambda frame: True) -> dict[str, Any]:
        """The next frame of a topic that is wanted."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for number in range(self._taken.get(topic, 0), len(self.seen)):
                if self.seen[number]["sid"] == topic and wanted(self.seen[number]):
                    self._taken[topic] = number + 1
                    return self.seen[number]
            self.seen += json.loads(self.socket.recv(PATIENCE))
        raise AssertionError(f"no such frame of {topic}")


@contextmanager
def board(server: Served, **headers: str) -> Iterator[Board]:
    with connect(f"{server.ws}/v1/ws", additional_headers=headers, max_size=None) as socket:
        yield Board(socket)


def rows_of(snapshot: dict[str, Any]) -> list[dict[str, Any]]:
    copy = SheetCopy()
    copy.take(snapshot)
    return copy.named()


def is_working(server: Served) -> bool:
    desk = desk_of(server.gateway)
    return any(topic.viewings for topic in desk._topics.values())


def test_a_board_gets_a_snapshot_and_then_changes() -> None:
    with gateway(Script(ENDLESS), on_orphan="continue") as server, board(server) as watching:
        stream_id = server.open()
        copy, snapshot = SheetCopy(), watching.watch("$board")
        assert snapshot["type"] == "snapshot"
        copy.take(snapshot["streams"])
        assert [row["id"] for row in copy.named()] == [stream_id]
        before = copy.named()[0]["tokens"]
        while copy.named()[0]["tokens"] <= before + 10:
            change = watching.next("$board")
            assert change["type"] == "patch"
            copy.apply(change)
        [row] = copy.named()
        assert (row["provider"], row["model"], row["state"], row["last"]) == ("openai", "m", "streaming", 0)
        assert row["ttft_ms"] is not None
        point = watching.next("$board", lambda frame: frame.get("point", [0, 0])[1])["point"]
        assert point[4] == 1


def test_how_a_stream_ended_is_shown_for_a_while() -> None:
    script = Script(Answer("one two three four", faults=(ErrorFrame(2),)))
    with gateway(script, on_orphan="continue") as server, board(server) as watching:
        stream_id = server.open()
        server.finish(stream_id)
        [row] = rows_of(watching.watch("$board")["streams"])
        assert (row["id"], row["state"]) == (stream_id, "failed")


def test_of_many_streams_those_in_trouble_are_shown_and_the_others_counted() -> None:
    with gateway() as server, board(server) as watching:
        for _ in range(MOST_ROWS + 5):
            server.system.open_stream()
        last = server.system.open_stream()
        last.pause()
        snapshot = watching.watch("$board")
        shown = rows_of(snapshot["streams"])
        assert (len(shown), snapshot["kpi"]["more"]) == (MOST_ROWS, 6)
        assert last.stream_id in {row["id"] for row in shown}


def test_the_tree_and_the_providers_are_told() -> None:
    with gateway(Script(ENDLESS), on_orphan="continue") as server, board(server) as watching:
        stream_id = server.open()
        eventually(lambda: server.system.stream(stream_id).statistics().tokens_delivered)  # the call is under way
        tree = rows_of(watching.watch("$tree"))
        assert tree[0]["name"] == "system"
        assert tree[0]["parent"] == 0
        assert f"stream/{stream_id}" in {row["name"] for row in tree}
        [endpoint] = rows_of(watching.watch("$providers")["endpoints"])
        assert (endpoint["provider"], endpoint["circuit"], endpoint["in_flight"]) == ("openai", "closed", 1)


@pytest.mark.parametrize("show", [False, True])
def test_text_is_only_told_if_the_setting_says_so(show: bool) -> None:
    settings = Settings(request=ONCE, dashboard=DashboardOptions(show_text=show))
    with (
        gateway(Answer("secret words of an answer"), settings, on_orphan="continue") as server,
        board(server) as watching,
    ):
        stream_id = server.open()
        server.finish(stream_id)
        snapshot = watching.watch(f"$stream:{stream_id}")
        assert snapshot["shows_text"] is show
        assert ("secret" in json.dumps(snapshot)) is show
        assert snapshot["dots"]
        assert [line[2] for line in snapshot["lines"]][-1] == "completed"
        assert snapshot["facts"]["state"] == "completed"
        watching.watch("$board")
        watching.watch("$tree")
        watching.watch("$providers")
        others = [frame for frame in watching.seen if not frame["sid"].startswith("$stream")]
        assert "secret" not in json.dumps(others)


def test_text_comes_as_it_is_delivered() -> None:
    settings = Settings(request=ONCE, dashboard=DashboardOptions(show_text=True))
    with gateway(settings=settings) as server, board(server) as watching:
        stream = server.system.open_stream(stream_id="s", options=penstock.StreamOptions(batch_size=1))
        watching.watch("$stream:s")
        stream.process_token("first ")
        frame = watching.next("$stream:s", lambda frame: frame.get("text"))
        assert frame["text"] == [["text", "first "]]
        stream.reset("again")
        frame = watching.next("$stream:s", lambda frame: ["reset", ""] in frame.get("text", []))
        assert any(line[1] == "reset" for line in frame["lines"])


def test_the_states_are_those_of_the_code() -> None:
    with gateway() as server, board(server) as watching:
        server.system.open_stream(stream_id="s")
        machine = watching.watch("$stream:s")["machine"]
        from penstock.actors.stream.states import TOKEN_STREAM

        assert [name for name, _ in machine["states"]] == [state.name for state in TOKEN_STREAM.states]
        pairs = {pair for move in TOKEN_STREAM.moves for pair in move.pairs()}
        assert {(source, target) for source, target, _ in machine["moves"]} == pairs


def test_looking_at_a_stream_keeps_it_alive_no_longer() -> None:
    with gateway(Script(ENDLESS), linger=0.2) as server, board(server) as watching:
        stream_id = server.open()
        watching.watch(f"$stream:{stream_id}")
        server.finish(stream_id)
        watching.next(f"$stream:{stream_id}", lambda frame: frame.get("facts", {}).get("state") == "cancelled")


def test_nothing_is_computed_while_nobody_looks() -> None:
    with gateway() as server:
        assert server.gateway.board is None
        with board(server) as watching:
            watching.watch("$board")
            watching.watch("$tree")
            assert is_working(server)
            watching.ask(op="unsubscribe", sid="$tree")
            desk = desk_of(server.gateway)
            assert not desk.topic("$tree").viewings
            assert desk.topic("$tree")._task is None
        eventually(lambda: not is_working(server))
        assert desk.topic("$board")._task is None
        assert desk.sampler.is_working  # for the plot of a page that is loaded again


def test_the_plot_survives_a_reload() -> None:
    with gateway() as server:
        with board(server) as first:
            first.watch("$board")
            end = first.next("$board", lambda frame: "point" in frame)["point"][0]
        with board(server) as second:
            series = second.watch("$board")["series"]
        assert series["end"] >= end
        assert len(series["values"]["streams"]) >= 2


def test_two_boards_share_one_change() -> None:
    with gateway() as server, board(server) as one, board(server) as other:
        one.watch("$board")
        other.watch("$board")
        ours, theirs = (
            {frame["t"]: frame for frame in (each.next("$board"), each.next("$board"), each.next("$board"))}
            for each in (one, other)
        )
        common = ours.keys() & theirs.keys()
        assert common
        assert all(ours[when] == theirs[when] for when in common)


def test_a_board_that_does_not_read_gets_a_snapshot_later() -> None:
    from penstock.gateway.board.topics import Viewing

    with gateway() as server, board(server) as watching:
        watching.watch("$board")

        async def behind() -> list[bytes | None]:
            late = Viewing(desk_of(server.gateway).topic("$board"), lambda: None)
            first = late.take()
            late.offer(b"one")
            late.offer(b"two")
            return [first, late.take(), late.take()]

        first, second, third = server.on_loop(behind())
        assert first is not None
        assert json.loads(first)["type"] == "snapshot"
        assert second is not None
        assert json.loads(second)["type"] == "snapshot"
        assert third is None


# --- access ------------------------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    made = {scope: new_key(scope, (scope,)) for scope in ("read", "write", "admin")}
    KeyFile(tmp_path / "keys").write([key for _, key in made.values()])
    return {scope: secret for scope, (secret, _) in made.items()}


@pytest.mark.parametrize(("scope", "is_allowed"), [("read", False), ("write", False), ("admin", True)])
def test_the_key_needs_the_scope_admin(tmp_path: Path, keys: dict[str, str], scope: str, is_allowed: bool) -> None:
    with gateway(keys=str(tmp_path / "keys")) as server, board(server) as watching:
        assert watching.ask(op="auth", key=keys[scope])["ok"]
        for topic in ("$board", "$tree", "$providers", "$stream:s"):
            answer = watching.ask(op="subscribe", sid=topic)
            if not is_allowed:
                assert answer["error"]["code"] == "scope_missing"
            elif topic == "$stream:s":
                assert answer["error"]["code"] == "stream_not_found"
            else:
                assert answer["ok"]


def test_without_a_key_nothing_is_told(tmp_path: Path, keys: dict[str, str]) -> None:
    with gateway(keys=str(tmp_path / "keys")) as server, board(server) as watching:
        watching.socket.send(json.dumps({"op": "subscribe", "sid": "$board"}))
        with pytest.raises(ConnectionClosed) as caught:
            watching.socket.recv(PATIENCE)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1008


def test_without_keys_only_this_machine_may_look() -> None:
    with gateway() as server, board(server, **{"x-forwarded-for": "203.0.113.9"}) as watching:
        answer = watching.ask(op="subscribe", sid="$board")
        assert answer["error"]["code"] == "only_from_this_machine"


def test_a_connection_watches_so_many_topics_at_most() -> None:
    with gateway() as server, board(server) as watching:
        for number in range(64):
            server.system.open_stream(stream_id=f"s{number}")
            assert watching.ask(op="subscribe", sid=f"$stream:s{number}")["ok"]
        assert watching.ask(op="subscribe", sid="$board")["error"]["code"] == "too_many_topics"


# --- the files ---------------------------------------------------------------------------------------------------


def test_the_pages_are_public_and_may_load_nothing_from_elsewhere(tmp_path: Path, keys: dict[str, str]) -> None:
    with gateway(keys=str(tmp_path / "keys")) as server:
        page = server.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["content-security-policy"].startswith("default-src 'self';")
        script = server.get("/board/app.js")
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        again = server.get("/board/app.js", headers={"if-none-match": script.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        for name in ("index.html", "../core.py", "nothing.js", "vendor", "vendor/LICENSE-htm.txt"):
            assert server.get(f"/board/{name}").status_code == 404, name
