"""`Stream.throttle`: slows a stream down. Drops nothing; what feeds the stream waits."""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, Literal

from penstock.actors.stream.bucket import TokenBucket
from penstock.config.checks import check_choice, check_number
from penstock.config.units import clusters
from penstock.events import SideEvent, TokenEvent
from penstock.toolbox.stage import Output, Stage, Steps, Wait, with_tokens

__all__ = ["Throttle"]

_TICK: Final = 0.005  # seconds; what becomes due within one goes out together, so that a high rate needs few timers


class Throttle(Stage):
    """Lets text through at a rate, from a bucket that is full at the start.

    An event for which there is room goes out as it is, any other in pieces as room comes. Only text is counted, of all
    kinds; other events keep their place after the text before them.
    """

    kind = "throttle"

    def __init__(self, rate: float, per: Literal["token", "character"] = "token", burst: int | None = None) -> None:
        check_number("rate", rate, 0.001, 1e9)
        check_choice("per", per, ("token", "character"))
        check_number("burst", burst, 1, 1_000_000_000, whole=True, optional=True)
        self._rate = float(rate)
        self._is_by_character = per == "character"
        self._burst = max(1, int(rate / 10)) if burst is None else burst
        self._least = min(self._burst, max(1, int(rate * _TICK)))
        self._bucket: TokenBucket | None = None

    def feed(self, event: TokenEvent | SideEvent, place: int = 0) -> Steps:
        """See `Stage.feed`."""
        if not isinstance(event, TokenEvent):
            return (event,)
        bucket = self._bucket
        if bucket is None:
            bucket = self._bucket = TokenBucket(self._rate, self._burst, self.now)
        count = len(event.text if self._is_by_character else event.tokens)
        if count <= bucket.room(self.now):
            bucket.take(count, self.now)
            return (event,)
        return self._by_character(event, bucket) if self._is_by_character else self._by_token(event, bucket)

    def _by_token(self, event: TokenEvent, bucket: TokenBucket) -> Generator[Output, None, None]:
        tokens = event.tokens
        done = 0
        while done < len(tokens):
            least = min(self._least, len(tokens) - done)
            if wait := bucket.delay(least, self.now):
                yield Wait(self.now + wait)
                continue
            count = min(max(least, bucket.room(self.now)), len(tokens) - done)
            bucket.take(count, self.now)
            yield with_tokens(event, tokens[done : done + count])
            done += count

    def _by_character(self, event: TokenEvent, bucket: TokenBucket) -> Generator[Output, None, None]:
        """Give whole characters, as many code points as there is room for. Tokens are divided for that."""
        characters = clusters(event.text)
        done = 0
        while done < len(characters):
            count = size = 0
            while done + count < len(characters) and size < self._least:
                size += len(characters[done + count])
                count += 1
            # A character of several code points may be more than the bucket holds: its rest is waited for as well.
            wait = bucket.delay(size, self.now)
            if size > self._burst and not wait:
                wait_for_rest = self.now + (size - self._burst) / self._rate
                bucket.take(self._burst, self.now)
                yield Wait(wait_for_rest)
                bucket.take(size, self.now)
            elif wait:
                yield Wait(self.now + wait)
                continue
            else:
                room = bucket.room(self.now)
                while done + count < len(characters) and size + len(characters[done + count]) <= room:
                    size += len(characters[done + count])
                    count += 1
                bucket.take(size, self.now)
            yield with_tokens(event, ("".join(characters[done : done + count]),))
            done += count
