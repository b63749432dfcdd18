"""How much of an answer a projection has sent, so that a snapshot is sent without what it repeats. Pure."""

from __future__ import annotations

from typing import Final
from zlib import crc32

from penstock.events import TokenKind

__all__ = ["ANTHROPIC_SERVER_IDS", "Sent", "is_server_id"]

ANTHROPIC_SERVER_IDS: Final = ("srvtoolu_", "mcptoolu_")
"""What the ids of calls begin with that Anthropic runs itself."""
_SERVER_IDS: Final = (*ANTHROPIC_SERVER_IDS, "xs_")
_AT_ONCE: Final = 64
"""Pieces that go into the sum together: one sum of many is quicker than many sums."""


def is_server_id(call_id: str) -> bool:
    """Whether the provider runs the call of this id itself (Anthropic, xAI).

    Not every `ToolCallStarted` says it; the call's end does, but the call must not be sent to the client before.

    >>> is_server_id("srvtoolu_01A"), is_server_id("toolu_01A")
    (True, False)
    """
    return call_id.startswith(_SERVER_IDS)


class Sent:
    """The text that has been sent, by kind, and how many of the other things. Of text, it keeps a check sum.

    Attributes:
        lengths: how many characters of each kind have been sent.
        citations, media, blocks, logprobs, server_tools: how many have been sent (of probabilities: tokens).
    """

    __slots__ = ("_pieces", "_sums", "blocks", "citations", "lengths", "logprobs", "media", "server_tools")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything: the answer begins again."""
        self.lengths: dict[TokenKind, int] = {"text": 0, "reasoning": 0, "refusal": 0}
        self._sums: dict[TokenKind, int] = {"text": 0, "reasoning": 0, "refusal": 0}
        self._pieces: dict[TokenKind, list[str]] = {"text": [], "reasoning": [], "refusal": []}  # not yet in the sums
        self.citations = self.media = self.blocks = self.logprobs = self.server_tools = 0

    def add(self, kind: TokenKind, text: str) -> None:
        """Note text that is sent now."""
        self.lengths[kind] += len(text)
        pieces = self._pieces[kind]
        pieces.append(text)
        if len(pieces) == _AT_ONCE:
            self._sum(kind)

    def _sum(self, kind: TokenKind) -> int:
        pieces = self._pieces[kind]
        self._sums[kind] = found = crc32("".join(pieces).encode("utf-8", "surrogatepass"), self._sums[kind])
        pieces.clear()
        return found

    def length(self, kind: TokenKind) -> int:
        """How many characters of a kind have been sent."""
        return self.lengths[kind]

    def rest(self, kind: TokenKind, text: str) -> str | None:
        """What ``text``, which is all of a kind so far, has besides what was sent. None: it does not begin with that.

        >>> sent = Sent()
        >>> sent.add("text", "Hel")
        >>> sent.rest("text", "Hello"), sent.rest("text", "Good")
        ('lo', None)
        """
        length = self.lengths[kind]
        if len(text) < length or crc32(text[:length].encode("utf-8", "surrogatepass")) != self._sum(kind):
            return None
        return text[length:]
