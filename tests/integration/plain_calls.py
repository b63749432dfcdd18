"""A provider, a sink and a request for the tests of the readers, and a reader that must leave no thread."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias, TypeVar

from penstock.adapters.http.loop_reader import LoopReader
from penstock.adapters.http.threads import HttpReader
from penstock.config.options import RequestOptions
from penstock.errors import ApiError, PenstockError, ProviderError
from penstock.ports import ChatCall, Decoder, Delta, ProviderRequest, Secret, TextDelta
from tests.integration.raw_server import PATIENCE

OPTIONS = RequestOptions(connect_timeout=PATIENCE)

AnyReader: TypeAlias = HttpReader | LoopReader

R = TypeVar("R", bound=AnyReader)


@contextlib.contextmanager
def leaving_no_thread(make: Callable[[], R]) -> Iterator[R]:
    """Make a reader, and close it after the block: it must leave none of its threads."""
    before = threading.active_count()
    reader = make()
    yield reader
    assert reader.close(PATIENCE) == 0
    assert reader.statistics()["threads"] == 0
    assert threading.active_count() == before


class PlainDecoder:
    """Emits each chunk as text, unchanged; ``[DONE]`` is the end."""

    def __init__(self) -> None:
        self.skipped = 0
        self.finished = False
        self.done = False
        self.model: str | None = None

    def feed(self, chunk: bytes) -> list[Delta]:
        text = chunk.decode()
        self.done = "[DONE]" in text
        return [TextDelta(text)]

    def close(self) -> list[Delta]:
        return []


class PlainProvider:
    """A provider whose decoder can be chosen; error answers become `ApiError` with the body as the message."""

    name = "plain"

    def __init__(self, make: Callable[[], Decoder] = PlainDecoder) -> None:
        self._make = make

    def request(self, call: ChatCall) -> ProviderRequest:
        raise NotImplementedError

    def decoder(self, options: RequestOptions) -> Decoder:
        return self._make()

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return ApiError(status, f"{len(body)} {body[:300].decode()} {headers.get('x-echo', '')}")


class RecordingSink:
    """Keeps every call, in order, with the thread that made it."""

    def __init__(self, *, accept: bool = True) -> None:
        self.accept = accept
        self.calls: list[str] = []
        self.threads: set[str] = set()
        self.texts: queue.Queue[str] = queue.Queue()
        self.batches: list[int] = []
        self.decoder: Decoder | None = None
        self.error: PenstockError | None = None
        self.is_connecting = threading.Event()
        self.is_waiting = threading.Event()
        self.has_ended = threading.Event()

    def _note(self, call: str) -> None:
        assert "ended" not in self.calls, f"{call} after ended"
        self.calls.append(call)
        self.threads.add(threading.current_thread().name)

    def connecting(self) -> None:
        self._note("connecting")
        self.is_connecting.set()

    def waiting(self) -> None:
        self._note("waiting")
        self.is_waiting.set()

    def deltas(self, deltas: Sequence[Delta]) -> bool:
        self._note("deltas")
        self.batches.append(len(deltas))
        for delta in deltas:
            if isinstance(delta, TextDelta):
                self.texts.put(delta.text)
        return self.accept

    def offer(self, deltas: Sequence[Delta], on_room: Callable[[], None]) -> bool | None:
        """There is always room."""
        return self.deltas(deltas)

    def ended(self, decoder: Decoder | None, error: PenstockError | None) -> None:
        self._note("ended")
        self.decoder = decoder
        self.error = error
        self.has_ended.set()

    def next_text(self) -> str:
        return self.texts.get(timeout=PATIENCE)

    def wait_ended(self) -> PenstockError | None:
        assert self.has_ended.wait(PATIENCE), f"not ended: {self.calls}"
        return self.error


def post(url: str, *, key: str = "sk-test-1234567890", body: bytes = b"{}") -> ProviderRequest:
    return ProviderRequest(
        url=url,
        body=body,
        headers={"Content-Type": "application/json"},
        secret_headers={"Authorization": Secret(f"Bearer {key}")},
    )
