"""The command ``top``: the dashboard's totals and streams in a terminal."""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from penstock.cli.doctor import read_base_url, read_key
from penstock.cli.failures import CommandLineError
from penstock.cli.terminal import Output, make_console, say, visible
from penstock.gateway.board.sheets import SheetCopy

if sys.platform == "win32":
    import msvcrt
else:
    import select
    import termios
    import tty

if TYPE_CHECKING:
    from rich.console import Group
    from websockets.sync.client import ClientConnection

__all__ = ["BoardView", "Top", "table_rows"]

_PATIENCE: Final = 10.0  # seconds for the connection, and for an answer
_AGAIN: Final = 1.0  # seconds from a lost connection to the next attempt
_KEY_LOOK: Final = 0.1  # seconds
_OVER: Final = ("completed", "failed", "cancelled")
_SORTS: Final[Mapping[str, str]] = {"s": "speed", "t": "tokens", "m": "model"}
_NODE_STATES: Final = {"here": "*", "alive": "", "drains": " (shuts down)", "dead": " (dead)"}
_STYLES: Final = {"streaming": "green", "error": "red", "failed": "red", "rate_limited": "yellow", "paused": "yellow"}
_HELP: Final = "s speed  t tokens  m model  ↑↓ choose  p pause/resume  c cancel  q quit"


class BoardView:
    """What ``$board`` has said so far."""

    def __init__(self) -> None:
        self.time = 0.0
        self.about: Mapping[str, Any] = {}
        self.kpi: dict[str, Any] = {}
        self.streams = SheetCopy()

    def take(self, frame: Mapping[str, Any]) -> None:
        """Take a snapshot or a patch."""
        if frame["type"] == "snapshot":
            self.about = frame
            self.kpi = dict(frame["kpi"])
            self.streams.take(frame["streams"])
        else:
            self.kpi |= frame.get("kpi", {})
            self.streams.apply(frame)
        self.time = frame["t"]

    def totals(self) -> str:
        """The totals in one line."""
        kpi = self.kpi
        window = "last minute" if kpi["window"] >= 60 else f"last {kpi['window']} s"
        circuits = "".join(f"  {visible(str(name))}: circuit {circuit}" for name, circuit in kpi["circuits"])
        parts = (
            f"{kpi['streams']:,} streams",
            f"{kpi['tokens_per_s']:,} tokens/s",
            f"TTFT p95 {_milliseconds(kpi['ttft_p95_ms'])}",
            f"{kpi['readers']:,} readers",
            f"{kpi['failed']:,} failed ({window})",
            f"${kpi['cost_per_h']:.2f}/h{circuits}",
        )
        return "  ".join(parts)

    def cluster(self) -> str:
        """The nodes, with the claims of each, and the store, in one line; empty without a cluster."""
        found = self.kpi.get("cluster")
        if found is None:
            return ""
        nodes = "  ".join(
            f"{visible(name)} {held:,}{_NODE_STATES[state]}" for name, state, _, held, _ in found["nodes"]
        )
        store = "store works" if found["well"] else f"store fails: {visible(found['problem'])}"
        lag = f", {found['lag']:,} events wait" if found["lag"] else ""
        return f"{nodes}  {store}, lease renewed {found['beat_s']} s ago{lag}"


def table_rows(view: BoardView, sort: str) -> list[dict[str, Any]]:
    """The streams in the order of a column: numbers from the largest on, then the newest stream first."""
    rows = list(reversed(view.streams.named()))
    if sort == "model":
        return sorted(rows, key=lambda row: (row["provider"], row["model"]))
    return sorted(rows, key=lambda row: -(row[sort] or 0))


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} ms"


def _age(row: Mapping[str, Any], now: float) -> str:
    if row["state"] in _OVER:
        return "ended"
    if row["last"] == 0:
        return "< 1 s"
    return f"{max(0.0, now - (row['last'] or row['created'])):.0f} s"


class Top:
    """One run of the command.

    Args:
        url: the gateway's base URL.
        key_env: the environment variable with a key of scope ``admin``.
    """

    def __init__(self, url: str, key_env: str | None) -> None:
        self._base_url = read_base_url(url, "--url: ")
        self._url = "ws" + self._base_url.removeprefix("http") + "/v1/ws"
        self._key = read_key(key_env)
        self._view = BoardView()
        self._sort = "speed"
        self._chosen: str | None = None
        self._said = ""
        self._pressed: queue.SimpleQueue[str] = queue.SimpleQueue()

    def run(self) -> int:
        """Show the board until ``q``, Ctrl-C, or the end of standard output's reader; returns the exit code.

        Raises:
            PenstockError: the gateway cannot be reached the first time, or refuses.
            OSError: standard output cannot be written.
        """
        try:
            importlib.import_module("websockets")
        except ImportError:
            text = "websockets is not installed; penstock top needs an extra: pip install 'penstock[server]'"
            raise CommandLineError(text) from None
        output = Output()
        is_screen = output.is_terminal and sys.stdin is not None and sys.stdin.isatty()
        if is_screen:
            self._on_screen()
        else:
            self._as_lines(output)
        return 0

    # --- the connection ------------------------------------------------------------------------------------------

    def _frames(self, is_over: Callable[[], bool]) -> Iterator[ClientConnection | None]:
        """Take what comes; yields the connection after each look, about ten times a second; None while it is lost."""
        has_been = False
        while not is_over():
            try:
                for connection in self._connected(is_over):
                    has_been = True
                    self._said = "" if self._said.startswith("connection") else self._said
                    yield connection
            except (OSError, EOFError) as error:
                if not has_been:
                    raise CommandLineError(
                        f"the gateway cannot be reached: {self._base_url}: {_reason(error)}; "
                        "penstock serve starts one, and --url URL names another"
                    ) from None
                self._said = "connection lost, trying again"
                until = time.monotonic() + _AGAIN
                while time.monotonic() < until and not is_over():
                    yield None
                    time.sleep(0.1)

    def _connected(self, is_over: Callable[[], bool]) -> Iterator[ClientConnection]:
        from websockets.exceptions import ConnectionClosed, InvalidHandshake
        from websockets.sync.client import connect

        headers = {} if self._key is None else {"authorization": f"Bearer {self._key.reveal()}"}
        try:
            with connect(
                self._url, additional_headers=headers, open_timeout=_PATIENCE, max_size=None, proxy=None
            ) as connection:
                _post(connection, op="subscribe", sid="$board", ref="board")
                while not is_over():
                    with contextlib.suppress(TimeoutError):
                        self._take(msgspec.json.decode(connection.recv(0.1)))
                    yield connection
        except InvalidHandshake:
            raise CommandLineError(_REFUSED) from None
        except ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code in (1008, 4001):
                raise CommandLineError(_REFUSED) from None
            raise EOFError("it closed the connection") from None

    def _take(self, message: Any) -> None:
        for one in message if isinstance(message, list) else [message]:
            if one.get("sid") == "$board" and "type" in one:
                self._view.take(one)
            elif "error" in one:
                if one.get("ref") == "board":
                    raise CommandLineError(f"the gateway refuses: {one['error']['message']}")
                self._said = one["error"]["message"]
            elif one.get("ref") == "command":
                self._said = ""

    # --- plain lines ---------------------------------------------------------------------------------------------

    def _as_lines(self, output: Output) -> None:
        due, is_lost = 0.0, False
        for connection in self._frames(lambda: False):
            output.check()
            if is_lost != (connection is None):
                is_lost = not is_lost
                say(self._said if is_lost else "connected again")
            now = time.monotonic()
            if connection is not None and self._view.kpi and now >= due:
                due = now + 1.0
                at = time.strftime("%H:%M:%S", time.localtime(self._view.time))
                cluster = self._view.cluster()
                output.write(f"{at}  {self._view.totals()}{cluster and '  ' + cluster}\n")

    # --- a screen ------------------------------------------------------------------------------------------------

    def _on_screen(self) -> None:
        from rich.live import Live

        ended = threading.Event()
        console = make_console()
        with _keys(self._pressed, ended), Live(console=console, screen=True, auto_refresh=False) as live:
            try:
                drawn = 0.0
                for connection in self._frames(ended.is_set):
                    is_pressed = self._act(connection, ended)
                    now = time.monotonic()
                    if is_pressed or now - drawn >= 0.5:
                        drawn = now
                        live.update(self._screen(console.height), refresh=True)
            finally:
                ended.set()

    def _act(self, connection: ClientConnection | None, ended: threading.Event) -> bool:
        """Do what the pressed keys ask for; returns whether there were any."""
        is_pressed = False
        with contextlib.suppress(queue.Empty):
            while True:
                self._press(self._pressed.get_nowait(), connection, ended)
                is_pressed = True
        return is_pressed

    def _press(self, key: str, connection: ClientConnection | None, ended: threading.Event) -> None:
        rows = table_rows(self._view, self._sort)
        at = next((number for number, row in enumerate(rows) if row["id"] == self._chosen), -1)
        if key in ("q", "\x03"):
            ended.set()
        elif key in _SORTS:
            self._sort = _SORTS[key]
        elif key in ("up", "down") and rows:
            self._chosen = rows[max(0, min(len(rows) - 1, at + (1 if key == "down" else -1)))]["id"]
        elif key in ("p", "c"):
            if at < 0 or rows[at]["state"] in _OVER:
                self._said = "choose a running stream by the arrow keys"
            elif connection is not None:
                state = rows[at]["state"]
                command = "cancel" if key == "c" else "resume" if state == "paused" else "pause"
                _post(connection, op=command, sid=self._chosen, ref="command")

    def _screen(self, height: int) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        view = self._view
        table = Table(expand=True, box=None, pad_edge=False, header_style="bold")
        for title, is_number in (
            *(("id", False), ("state", False), ("model", False), ("tokens", True), ("tok/s", True), ("TTFT", True)),
            *(("last token", True), ("readers", True), ("buffer", True)),
        ):
            table.add_column(title, justify="right" if is_number else "left", no_wrap=True)
        rows = table_rows(view, self._sort) if view.kpi else []
        at = next((number for number, row in enumerate(rows) if row["id"] == self._chosen), 0)
        cluster = view.cluster()
        room = max(1, height - 4 - bool(cluster))
        first = max(0, min(at - room // 2, len(rows) - room))
        for row in rows[first : first + room]:
            style = "reverse" if row["id"] == self._chosen else "dim" if row["state"] in _OVER else ""
            table.add_row(
                visible(row["id"]),
                Text(row["state"].replace("_", " "), style=_STYLES.get(row["state"], "")),
                visible("/".join(filter(None, (row["provider"], row["model"]))) or "-"),
                f"{row['tokens']:,}",
                f"{row['speed']:,}",
                _milliseconds(row["ttft_ms"]),
                _age(row, view.time),
                f"{row['readers']:,}",
                f"{row['buffer']} %",
                style=style,
            )
        hidden = view.kpi.get("more", 0) + len(rows) - len(rows[first : first + room])
        more = f"  {hidden:,} not shown" if hidden else ""
        last = self._said or f"by {self._sort}{more}    {_HELP}"
        head = [Text(view.totals() if view.kpi else "waiting", style="bold", no_wrap=True)]
        head += [Text(cluster, no_wrap=True)] if cluster else []
        return Group(*head, table, Text(last, style="dim"))


_REFUSED: Final = (
    "the gateway refuses the connection; name the environment variable with a key of the scope admin: --key-env NAME, "
    "or correct the path of --url"
)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _post(connection: ClientConnection, **message: Any) -> None:
    connection.send(msgspec.json.encode(message).decode())


@contextlib.contextmanager
def _keys(pressed: queue.SimpleQueue[str], ended: threading.Event) -> Iterator[None]:
    """Read single keys from the terminal in a thread, until ``ended`` is set."""
    thread = threading.Thread(target=_read_keys, args=(pressed, ended), name="penstock-keys", daemon=True)
    if sys.platform == "win32":
        thread.start()
        yield
    else:
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
        try:
            tty.setcbreak(descriptor)
            thread.start()
            yield
        finally:
            ended.set()
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _read_keys(pressed: queue.SimpleQueue[str], ended: threading.Event) -> None:
    if sys.platform == "win32":
        while not ended.is_set():
            if not msvcrt.kbhit():
                time.sleep(_KEY_LOOK)
                continue
            key = msvcrt.getwch()
            pressed.put({"H": "up", "P": "down"}.get(msvcrt.getwch(), "") if key in ("\0", "\xe0") else key)
    else:
        descriptor = sys.stdin.fileno()
        while not ended.is_set():
            if select.select([descriptor], [], [], _KEY_LOOK)[0]:
                data = os.read(descriptor, 64)
                if not data:
                    pressed.put("q")
                    return
                for key in split_keys(data.decode("utf-8", "replace")):
                    pressed.put(key)


def split_keys(text: str) -> list[str]:
    r"""The keys in what a terminal has sent: characters, and the arrows as ``"up"`` and ``"down"``.

    >>> split_keys("s\x1b[A\x1b[Bq"), split_keys("\x1bOA")
    (['s', 'up', 'down', 'q'], ['up'])
    """
    for arrow, name in (("A", "\ue000"), ("B", "\ue001")):
        text = text.replace(f"\x1b[{arrow}", name).replace(f"\x1bO{arrow}", name)
    return [{"\ue000": "up", "\ue001": "down"}.get(key, key) for key in text]
