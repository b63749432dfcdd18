"""Recorded answers through both readers, in every framing, cut anywhere on the wire: they are the same."""

from __future__ import annotations

import json
import random
import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from penstock.adapters.http.loop_reader import LoopReader
from penstock.adapters.http.threads import HttpReader
from penstock.adapters.providers.anthropic.decoder import MessagesDecoder
from penstock.adapters.providers.gemini.decoder import GeminiDecoder
from penstock.adapters.providers.ollama.decoder import OllamaDecoder
from penstock.adapters.providers.openai.chat_decoder import ChatDecoder
from penstock.adapters.providers.openai.responses_decoder import ResponsesDecoder
from penstock.config.options import RequestOptions
from penstock.ports import Decoder, ReasoningDelta, TextDelta
from tests.integration.plain_calls import PlainProvider, RecordingSink, post
from tests.integration.raw_server import CHUNKED, HEAD, PATIENCE, Peer, RawServer

CORPUS = Path(__file__).parents[1] / "corpus"
DECODERS: dict[str, Callable[[int], Decoder]] = {
    "chat": ChatDecoder,
    "responses": ResponsesDecoder,
    "messages": MessagesDecoder,
    "gemini": GeminiDecoder,
    "ollama": OllamaDecoder,
}
LIMIT = 1_048_576
CUTS = 12
OPTIONS = RequestOptions(connect_timeout=PATIENCE)
AnyReader: TypeAlias = HttpReader | LoopReader


def recording(api: str) -> bytes:
    """A recorded body of middle length."""
    bodies = []
    for sidecar in sorted(CORPUS.glob("*/*.json")):
        if json.loads(sidecar.read_bytes()).get("api") == api:
            body = sidecar.with_suffix(".ndjson" if api == "ollama" else ".sse")
            if body.exists() and 1_000 < body.stat().st_size < 20_000:
                bodies.append(body)
    return max(bodies, key=lambda body: body.stat().st_size).read_bytes()


def _chunked(body: bytes) -> bytes:
    sizes = random.Random(7)
    out, at = b"", 0
    while at < len(body):
        piece = body[at : at + sizes.randint(1, 900)]
        out += b"%x\r\n%s\r\n" % (len(piece), piece)
        at += len(piece)
    return CHUNKED + out + b"0\r\n\r\n"


def _measured(body: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _until_close(body: bytes) -> bytes:
    return HEAD + b"\r\n" + body


def _coded(coding: bytes, wbits: int) -> Callable[[bytes], bytes]:
    def wire(body: bytes) -> bytes:
        packer = zlib.compressobj(wbits=wbits)
        packed = packer.compress(body) + packer.flush()
        return HEAD + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding, len(packed)) + packed

    wire.__name__ = coding.decode()
    return wire


FRAMINGS = [_chunked, _measured, _until_close, _coded(b"gzip", 31), _coded(b"deflate", 15), _coded(b"deflate", -15)]


@pytest.fixture(params=[HttpReader, LoopReader])
def reader(request: pytest.FixtureRequest) -> Iterator[AnyReader]:
    reader: AnyReader = request.param(4)
    yield reader
    assert reader.close(PATIENCE) == 0


def said(deltas: list[object]) -> str:
    return "".join(each.text for each in deltas if isinstance(each, (TextDelta, ReasoningDelta)))


class Keeping(RecordingSink):
    """Keeps all deltas."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[object] = []

    def deltas(self, deltas: object) -> bool:
        self.kept += deltas  # type: ignore[arg-type]
        return True


@pytest.mark.parametrize("api", DECODERS)
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_recorded_answer_is_the_same_wherever_it_is_cut(
    reader: AnyReader, api: str, framing: Callable[[bytes], bytes]
) -> None:
    body = recording(api)
    whole = DECODERS[api](LIMIT)
    expected: list[object] = [*whole.feed(body), *whole.close()]
    wire = framing(body)
    head = wire.index(b"\r\n\r\n") + 4
    places = random.Random(api).sample(range(1, len(wire)), CUTS)
    cuts = iter([1, head - 1, head, head + 1, len(wire) - 1, *places])

    def serve(peer: Peer) -> None:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while peer.read_request():
            at = next(cuts)
            peer.send(wire[:at])
            peer.send(wire[at:])
            if framing is _until_close:
                return

    with RawServer(serve) as server:
        for _ in range(CUTS + 5):
            sink = Keeping()
            reader.start(PlainProvider(lambda: DECODERS[api](LIMIT)), post(server.url), OPTIONS, sink)
            assert sink.wait_ended() is None
            assert sink.decoder is not None
            assert said(sink.kept) == said(expected)
            assert (sink.decoder.finished, sink.decoder.done) == (whole.finished, whole.done)
        reader.close(PATIENCE)
