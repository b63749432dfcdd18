"""`ChoosingReader`: a thread for each call while there are few, the loop for the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from penstock.adapters.http.loop_reader import LoopReader
from penstock.adapters.http.polling import scales
from penstock.adapters.http.threads import HttpReader
from penstock.adapters.http.transport import LazyTransport
from penstock.config.options import RequestOptions
from penstock.config.settings import RuntimeOptions
from penstock.ports import Provider, ProviderRequest, Reader, ReaderJob, ReaderSink

__all__ = ["ChoosingReader", "make_reader"]

_FEW: Final = 64
"""With ``auto``, so many calls at once have a thread each: until then a thread answers sooner than the loop."""


class ChoosingReader:
    """Implements `Reader`. Only a sink that can be offered deltas and runs no code of the application goes to the loop.

    Args:
        threads: for the other calls, and for the first ``few`` at once.
        loop: for the rest.
        few: calls at once that have a thread each, 0: none that can do without.
    """

    def __init__(self, threads: HttpReader, loop: LoopReader, few: int) -> None:
        self._threads = threads
        self._loop = loop
        self._few = few

    def __repr__(self) -> str:
        return f"ChoosingReader({self._threads!r}, {self._loop!r})"

    def start(
        self, provider: Provider, request: ProviderRequest, options: RequestOptions, sink: ReaderSink
    ) -> ReaderJob:
        """Start one request on a thread or on the loop. Never blocks.

        Raises:
            ProviderError: the queue of that reader is full, it is closed, or this machine has no thread or file
                descriptor for it.
        """
        # A sink that says nothing about its code may block.
        may_block = getattr(sink, "may_block", True)
        reader: Reader = self._threads if may_block or self._threads.load < self._few else self._loop
        return reader.start(provider, request, options, sink)

    def statistics(self) -> Mapping[str, int]:
        """The counters of both readers, added."""
        threads, loop = self._threads.statistics(), self._loop.statistics()
        return {name: count + loop[name] for name, count in threads.items()}

    def close(self, timeout: float) -> int:
        """Close both readers within ``timeout`` seconds; returns how many threads did not end."""
        deadline = time.monotonic() + timeout
        self._threads.begin_to_close()  # first: the loop's openers may take all of the time
        left = self._loop.close(timeout)
        return left + self._threads.close(max(0.0, deadline - time.monotonic()))


def make_reader(
    options: RuntimeOptions, around_reads: tuple[Callable[[], None], Callable[[], None]] | None = None
) -> Reader:
    """Make the reader that the settings ask for: ``runtime.reader``. ``around_reads`` as for `LoopReader`."""
    transport = LazyTransport(options.reader_threads)
    threads = HttpReader(options.reader_threads, max_queue=options.reader_queue, transport=transport)
    if options.reader == "threads" or (options.reader == "auto" and not scales()):
        return threads
    loop = LoopReader(max_queue=options.reader_queue, transport=transport, around_reads=around_reads)
    # With fewer threads than that, calls would wait for one although the loop has room.
    return ChoosingReader(threads, loop, 0 if options.reader == "loop" else min(_FEW, options.reader_threads))
