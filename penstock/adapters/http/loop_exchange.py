"""One HTTP request whose answer is read by a `Loop`: from the queue to `ReaderSink.ended`.

A thread of the opener pool sends the request and hands its connection over. Everything else, and every call of the
sink, is done by the loop's thread.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING

from penstock.adapters.http.alarms import Alarm
from penstock.adapters.http.answer import refusal_of
from penstock.adapters.http.exchange import ERROR_BODY_BYTES, LAST_CHUNK_WAIT_S, RequestExchange
from penstock.adapters.http.faults import body_failure, unexpected_failure
from penstock.adapters.http.framing import Body, ChunkedBody, HeadCollector, UntilCloseBody
from penstock.adapters.http.handle import RequestCancelled, current_request
from penstock.adapters.http.handover import Answer, SentRequest, WouldBlock
from penstock.adapters.http.inflating import Inflater
from penstock.adapters.http.loop import Loop
from penstock.adapters.http.reporting import report_failure
from penstock.adapters.http.transport import Transport
from penstock.config.options import RequestOptions
from penstock.errors import IncompleteStream, PenstockError, ProviderTimeout
from penstock.ports import Delta, OfferSink, Provider, ProviderRequest

if TYPE_CHECKING:
    import requests

__all__ = ["LoopExchange"]

_READ_BYTES = 8_192
"""How much one turn of the loop reads from a connection: a fast one must not keep the others waiting."""
_READS_A_TURN = 8
"""How often a turn reads from an encrypted connection whose bytes no poll sees."""


class _Phase(Enum):
    OPENING = auto()  # queued, or an opener is at work
    HEAD = auto()
    BODY = auto()
    LAST_CHUNK = auto()  # everything of interest has come, and the end of the body may follow
    OVER = auto()


class _ErrorBody:
    """Takes the place of a decoder for an error answer: collects its body up to the limit."""

    done = False

    def __init__(self) -> None:
        self.content = b""

    def feed(self, chunk: bytes) -> list[Delta]:
        self.content = (self.content + chunk)[:ERROR_BODY_BYTES]
        self.done = len(self.content) >= ERROR_BODY_BYTES
        return []

    def close(self) -> list[Delta]:
        return []


class LoopExchange(RequestExchange):
    """Implements `ReaderJob` and `Readable`.

    ``run`` is called once, by an opener's thread; ``cancel`` by any thread; everything else by the loop's. ``forget``
    is called when the exchange is over, just before its sink gets to know.
    """

    def __init__(
        self,
        provider: Provider,
        request: ProviderRequest,
        options: RequestOptions,
        sink: OfferSink,
        loop: Loop,
        *,
        withdraw: Callable[[LoopExchange], object],
        forget: Callable[[LoopExchange], None],
    ) -> None:
        super().__init__(provider, request, options, sink, hands_over=True)
        self._taker = sink
        self._loop = loop
        self._withdraw = withdraw
        self._forget = forget
        self._phase = _Phase.OPENING
        self._sent_request: SentRequest | None = None
        self._head = HeadCollector()
        self._answer: Answer | None = None
        self._body: Body = UntilCloseBody()
        self._inflater: Inflater | None = None
        self._eater: _ErrorBody | None = None
        self._chunk = b""  # extracted from the body, and not decoded yet
        self._then: Callable[[], None] | None = None  # what follows once the sink has room
        self._failure: PenstockError | None = None  # why the body ended
        self._heard = 0.0  # when something came last
        self._timer: Alarm | None = None
        self._reads_on = False  # `_read_on` is posted

    def cancel(self) -> None:
        """Stop it in any state. Any thread; idempotent; never blocks."""
        self._handle.cancel()
        self._loop.post(self._cancelled)

    # --- an opener's thread ----------------------------------------------------------------------------------------

    def run(self, make_transport: Callable[[], Transport]) -> None:
        """Send the request, and hand its connection to the loop."""
        opened: requests.Response | PenstockError
        try:
            transport = make_transport()  # before the clocks start: the first one takes a while
            self._loop.post(self._tell_connecting)
            with current_request(self._handle):
                opened = self._ask(transport)
        except RequestCancelled:
            opened = IncompleteStream("cancelled")
        except BaseException as failure:
            opened = unexpected_failure(failure)
        self._loop.post(partial(self._opened, opened))

    def _request_sent(self) -> None:
        self._sent = True
        self._loop.post(self._tell_waiting)

    # --- the loop's thread -----------------------------------------------------------------------------------------

    def _cancelled(self) -> None:
        """End a request that was cancelled, in whatever phase it is.

        An opener that is still at work, perhaps in a name lookup, is left to come back; its connection is then closed.
        """
        if self._phase is not _Phase.OVER:
            self._withdraw(self)
            self._finish(IncompleteStream("cancelled"))

    def ready(self) -> None:
        """Read once, and pass on what has come."""
        self._heard = self._loop.now
        try:
            self._receive()
        except BaseException as failure:  # of the sink, the provider, the decoder …, or a decoder's ProtocolError
            self._finish(unexpected_failure(failure))

    def lost(self, error: BaseException) -> None:
        """End: the loop reads no more."""
        self._finish(unexpected_failure(error))

    def _guarded(self, step: Callable[[], None]) -> None:
        """Do a step outside of `ready`; whatever fails ends the exchange, and only this one."""
        if self._phase is _Phase.OVER:
            return
        try:
            step()
        except BaseException as failure:
            self._finish(unexpected_failure(failure))

    def _tell_connecting(self) -> None:
        self._guarded(self._sink.connecting)

    def _tell_waiting(self) -> None:
        self._guarded(self._sink.waiting)

    def _opened(self, opened: requests.Response | PenstockError) -> None:
        """Take the connection over, or end if there is none."""
        if isinstance(opened, PenstockError):
            if self._phase is not _Phase.OVER:
                self._finish(opened)
            return
        if self._phase is _Phase.OVER:
            opened.close()
            return
        self._guarded(partial(self._take_over, opened))

    def _take_over(self, opened: requests.Response) -> None:
        try:
            self._sent_request = SentRequest(opened.raw)
        except BaseException as error:
            opened.close()
            if not isinstance(error, (OSError, AttributeError)):  # the socket was closed meanwhile
                raise
            self._finish(self._request_failure(error))
            return
        self._begin()

    def _begin(self) -> None:
        self._phase = _Phase.HEAD
        self._heard = self._loop.now
        self._timer = self._loop.call_at(self._heard + self._wait_limit, self._check_silence)
        self._watch()

    def _watch(self) -> None:
        """Read from now on; first what is inside the TLS library already."""
        sent = self._sent_request
        assert sent is not None
        try:
            self._loop.watch(sent.fd, self)
        except OSError as error:  # no memory
            self._finish(self._request_failure(error))
            return
        if not sent.is_plain:
            self.ready()

    def _receive(self) -> None:
        """Read once; from an encrypted connection, as long as the TLS library has bytes."""
        sent = self._sent_request
        assert sent is not None
        for _ in range(_READS_A_TURN):
            try:
                raw = sent.receive(_READ_BYTES)
            except WouldBlock:
                return
            except OSError as error:
                self._broken(error)
                return
            if self._phase is _Phase.BODY:
                self._feed_body(raw)
            elif self._phase is _Phase.HEAD:
                self._feed_head(raw)
            else:
                self._feed_last(raw)
            # Paused or ended meanwhile, or nothing is left.
            if sent.is_plain or self._phase is _Phase.OVER or self._then is not None or not sent.may_have_pending:
                return
        if not self._reads_on:  # the poll may call `ready` too, which must not double the turns
            self._reads_on = True
            self._loop.post(self._read_on)

    def _read_on(self) -> None:
        """Read what is left of an encrypted connection after the other streams had their turn."""
        self._reads_on = False
        if self._phase is not _Phase.OVER and self._then is None:
            self.ready()

    def _broken(self, error: OSError) -> None:
        """The connection was reset, or its TLS is broken."""
        if self._phase is _Phase.HEAD:
            self._finish(self._request_failure(error))
        elif self._phase is _Phase.LAST_CHUNK:
            self._finish(None)
        else:
            self._body_ended(error)

    def _check_silence(self) -> None:
        """Fire when nothing came for as long as a wait may last, although the stream was ready for it."""
        if self._phase is _Phase.OVER:
            return
        now = self._loop.now
        due = (now if self._then is not None else self._heard) + self._wait_limit
        if due > now:
            self._timer = self._loop.call_at(due, self._check_silence)
        elif self._phase is _Phase.HEAD:
            self._finish(self._request_failure(TimeoutError("timed out")))
        else:
            self._guarded(partial(self._close_body, ProviderTimeout("idle", self._wait_limit)))

    # --- the head --------------------------------------------------------------------------------------------------

    def _feed_head(self, raw: bytes) -> None:
        """Take received bytes of the head; ``b""``: the connection was closed."""
        sent = self._sent_request
        assert sent is not None
        try:
            rest = self._head.feed(raw) if raw else b""
            if rest is None:
                return
            answer = sent.parse(self._head.head)
        except (http.client.HTTPException, OSError, ValueError) as error:
            self._finish(self._request_failure(error))
            return
        if not self._takes(answer):
            return
        self._phase = _Phase.BODY
        if rest or not raw:
            self._feed_body(rest)
        else:
            self._pump()

    def _takes(self, answer: Answer) -> bool:
        """Judge the head; returns whether to read the body, with the provider's decoder or as that of an error."""
        response = answer.response
        self._answer = answer
        self._body = answer.body
        if response.status < 400:
            if refusal := refusal_of(response.status, response.headers, self._host, response.CONTENT_DECODERS):
                self._finish(refusal)
                return False
            self._tell_headers(response.headers)
            self._decoder = self._provider.decoder(self._options)
        else:
            self._eater = _ErrorBody()
        coding = response.headers.get("content-encoding", "")
        if coding and "," not in coding:
            self._inflater = Inflater(coding)
        return True

    # --- the body --------------------------------------------------------------------------------------------------

    def _feed_body(self, raw: bytes) -> None:
        """Take received bytes of the body; ``b""``: the connection was closed."""
        try:
            if raw:
                data = self._body.feed(raw)
            else:
                self._body.close()
                data = b""
        except http.client.HTTPException as error:
            self._body_ended(error)
            return
        if self._inflater is None:
            self._chunk = data
        else:
            self._inflater.put(data)
        self._pump()

    def _pump(self) -> None:
        """Decode and offer what is in hand; stop when the sink has no room."""
        decoder = self._decoder or self._eater
        assert decoder is not None
        while not decoder.done:
            try:
                chunk = self._next_chunk()
            except Exception as error:  # the compression is broken
                self._body_ended(error)
                return
            if not chunk:
                if self._body.over:
                    self._body_ended(None)
                return
            if not self._offer(decoder.feed(chunk), self._pump):
                return
        self._await_last_chunk()

    def _next_chunk(self) -> bytes:
        """The next piece of the body to decode; ``b""``: more must come, or everything has."""
        inflater = self._inflater
        if inflater is None:
            chunk, self._chunk = self._chunk, b""
            return chunk
        if chunk := inflater.take():
            return chunk
        if self._body.over:
            self._inflater = None
            return inflater.finish()
        return b""

    def _offer(self, deltas: Sequence[Delta], then: Callable[[], None]) -> bool:
        """Offer deltas to the sink; returns whether to go on. Without room, ``then`` is called once there is some."""
        if not deltas:
            return True
        self._redact(deltas)
        went = self._taker.offer(deltas, self._room)
        if went:
            return True
        if went is None:
            self._pause(then)
        else:
            self._finish(None)
        return False

    def _body_ended(self, error: Exception | None) -> None:
        """End the body, completely or with an exception."""
        failure = None
        if error is not None:
            failure = body_failure(
                _as_urllib3(error), chunked=isinstance(self._body, ChunkedBody), wait_limit=self._wait_limit
            )
        self._close_body(failure)

    def _close_body(self, failure: PenstockError | None) -> None:
        """Offer what the decoder still has, and end."""
        self._failure = failure
        decoder = self._decoder or self._eater
        assert decoder is not None
        if self._offer(decoder.close(), self._body_closed):
            self._body_closed()

    def _body_closed(self) -> None:
        if self._eater is not None:
            self._finish(self._error_of(self._eater))
        else:
            self._finish(self._failure)

    def _error_of(self, eater: _ErrorBody) -> PenstockError:
        assert self._answer is not None
        response = self._answer.response
        return self._error_answer(response.status, response.headers, eater.content)

    def _await_last_chunk(self) -> None:
        """Everything of interest has come. Wait briefly for the body's end, so that the connection can be reused."""
        assert self._answer is not None
        if self._eater is not None:
            self._finish(self._error_of(self._eater))
        elif self._body.over or not self._answer.can_be_kept:
            self._finish(None)
        else:
            self._phase = _Phase.LAST_CHUNK
            self._chunk = b""
            if self._timer is not None:
                self._loop.cancel_timer(self._timer)
            self._timer = self._loop.call_at(self._loop.now + LAST_CHUNK_WAIT_S, partial(self._finish, None))

    def _feed_last(self, raw: bytes) -> None:
        """Take what follows the provider's end marker, up to the body's end."""
        try:
            self._body.feed(raw)
        except http.client.HTTPException:
            self._finish(None)
            return
        if self._body.over or not raw:
            self._finish(None)

    # --- credit ----------------------------------------------------------------------------------------------------

    def _pause(self, then: Callable[[], None]) -> None:
        """Stop reading: the socket's buffers and TCP hold the provider. Not even its hang-up wakes the loop."""
        self._then = then
        if self._sent_request is not None:
            self._loop.unwatch(self._sent_request.fd)

    def _room(self) -> None:
        """Called by the sink, in any thread and perhaps with locks held."""
        self._loop.post(self._again)

    def _again(self) -> None:
        if self._then is not None:
            self._guarded(self._offer_again)

    def _offer_again(self) -> None:
        then = self._then
        assert then is not None
        went = self._taker.offer((), self._room)
        if went is None:
            return
        self._then = None
        if not went:
            self._finish(None)
            return
        self._heard = self._loop.now
        then()
        if self._phase is not _Phase.OVER and self._then is None:
            self._watch()

    # --- the end ---------------------------------------------------------------------------------------------------

    def _finish(self, error: PenstockError | None) -> None:
        """Let go of the connection and of everything else, then call the sink for the last time."""
        if self._phase is _Phase.OVER:
            return
        self._phase = _Phase.OVER
        sent, self._sent_request, self._then = self._sent_request, None, None
        if self._timer is not None:
            self._loop.cancel_timer(self._timer)
            self._timer = None
        if sent is not None:
            try:
                self._let_go(sent, has_failed=error is not None)
            except BaseException:  # the sink must get to know of the end in any case
                report_failure()
        self._answer = self._inflater = self._eater = None
        self._forget(self)
        self._end(error)

    def _let_go(self, sent: SentRequest, *, has_failed: bool) -> None:
        """Keep the connection for further requests, or close it."""
        answer, body = self._answer, self._body
        keep = answer is not None and answer.can_be_kept and body.over and not body.surplus and not has_failed
        try:
            self._loop.unwatch(sent.fd)
            if keep:
                sent.keep()
        except BaseException:
            sent.close()
            raise
        if not keep:
            sent.close()


def _as_urllib3(error: Exception) -> Exception:
    """Wrap an exception as urllib3 does while it reads a body, so that both readers report the same."""
    from urllib3.exceptions import HTTPError, ProtocolError

    if isinstance(error, HTTPError):
        return error
    return ProtocolError("Connection broken", error)
