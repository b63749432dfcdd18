"""A small HTTP server that answers the judges' requests with the frames of a case."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from penstock.gateway.problems import Problem, RequestRefused
from penstock.gateway.projections.agui import AguiProjection, error_body
from penstock.gateway.projections.frames import Frame, Opening, Projection, joined
from penstock.gateway.projections.ui import UiProjection, error_text, read_variant
from penstock.gateway.requests import agui, ui
from penstock.gateway.requests.approvals import Approval
from penstock.gateway.requests.asked import Asked
from tests.judges.cases import CASES, STREAM_ID, numbered

__all__ = ["ScriptedGateway"]

BUSY = Problem(status=429, type="rate_limit_error", code="rate_limit_exceeded", message="Slow down.", retry_after=1.0)


class ScriptedGateway:
    """Serves ``/v1/ui/chat``, ``/v1/ui/chat/<id>/stream``, ``/v1/agui`` and ``/v1/agui/<run>/events``.

    Attributes:
        asked: the requests, as they were parsed, in order.
        approvals: the decisions that came with them.
        bodies: the requests as they came.
        left: set when the client of the case ``endless`` has closed the connection.
        joins_after: how many events of a run have happened when a reader of AG-UI joins it again.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.approvals: list[Approval] = []
        self.bodies: list[dict[str, Any]] = []
        self.left = threading.Event()
        self.joins_after = 0
        self.streams = 0
        self.opened_by: dict[str, Any] = {}  # the request that opened the last stream
        self.chats: dict[str, str] = {}  # the running cases by the chat's id
        gateway = self

        class Handler(_Handler):
            served = gateway

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: ScriptedGateway

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client has left
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.served.bodies.append(body)
        path, query = self._address()
        module = ui if path == "/v1/ui/chat" else agui
        try:
            decisions = module.approvals(body)
            asked = module.parse(body, "anthropic")
        except RequestRefused as error:
            return self._refuse(path, error.problem)
        self.served.asked.append(asked)
        self.served.approvals += decisions
        if asked.model == "busy":
            return self._refuse(path, BUSY)
        if path == "/v1/ui/chat":
            self.served.chats[body["id"]] = asked.model
        variant = self._variant(query)
        if decisions:  # the stream goes on after the call that waited
            variant["from"] = str(self._last_seen(asked.model, path))
            variant["run"] = body.get("runId", "")
        else:
            self.served.streams += 1
            self.served.opened_by = body
        projection = self._projection(path, self.served.opened_by, variant)
        self._play(asked.model, projection, waits=not decisions)
        return None

    def do_GET(self) -> None:
        path, query = self._address()
        if path.startswith("/v1/ui/chat/"):
            case = self.served.chats.get(path.split("/")[4])
            if case is None or case == "text":  # it has ended
                return self._send(204, b"", "text/plain")
            return self._play(case, self._projection("/v1/ui/chat", {}, self._variant(query)), is_joined=True)
        projection = self._projection("/v1/agui", self.served.opened_by, {})
        events = numbered(CASES[query["case"]]())
        for event in events[: self.served.joins_after]:
            projection.feed(event)
        frames = projection.prelude()
        for event in events[self.served.joins_after :]:
            frames += projection.feed(event)
        return self._stream([*(frame.data for frame in frames)])

    def _variant(self, query: Mapping[str, str]) -> dict[str, str]:
        return read_variant(self.headers.get("x-penstock-ui", ""), query)

    def _address(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        return parts.path, dict(parse_qsl(parts.query))

    def _refuse(self, path: str, problem: Problem) -> None:
        if path == "/v1/ui/chat":
            self._send(problem.status, error_text(problem).encode(), "text/plain; charset=utf-8")
        else:
            self._send(problem.status, json.dumps(error_body(problem)).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("connection", "close")
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _play(self, case: str, projection: Projection, *, waits: bool = True, is_joined: bool = False) -> None:
        frames: list[Frame] = []
        for event in numbered(CASES[case]()):
            frames += projection.feed(event)
            if waits:
                frames += projection.caught_up()
            if projection.is_over:
                break
        self._stream([joined(frames, projection)] if is_joined else [frame.data for frame in frames], case)

    def _stream(self, pieces: list[bytes], case: str = "") -> None:
        """Send pieces with a heartbeat before each, in chunks of their own."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.send_header("x-vercel-ai-ui-message-stream", "v1")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for piece in pieces:
                for data in (b": hb\n", piece):
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
                    self.wfile.flush()
            if case == "endless":
                self.close_connection = True
                if self.connection.recv(1) == b"":
                    self.served.left.set()
                return
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
            self.served.left.set()

    def _projection(self, path: str, body: Mapping[str, Any], variant: Mapping[str, str]) -> Projection:
        kind = UiProjection if path == "/v1/ui/chat" else AguiProjection
        name = f"{STREAM_ID}-{self.served.streams}"
        return kind(Opening(stream_id=name, epoch="e", created=1, request=body, variant=variant))

    def _last_seen(self, case: str, path: str) -> int:
        """The number of the last event of the response that ended for the user's decision."""
        projection = self._projection(path, self.served.opened_by, {})
        for event in numbered(CASES[case]()):
            projection.feed(event)
            projection.caught_up()
            if projection.is_over:
                return event.seq
        raise AssertionError("no call waits")
