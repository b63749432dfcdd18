"""The sound of a Responses answer, which is in events only: no item has it."""

from __future__ import annotations

from penstock.events import MediaPart
from penstock.gateway.projections.responses_wire import ResponsesWire

__all__ = ["ResponsesAudio"]


class ResponsesAudio:
    """Sends pieces of sound and of the words in it as they come; a whole one only if it had no pieces."""

    __slots__ = ("_has_data", "_has_words", "_is_open", "_wire")

    def __init__(self, wire: ResponsesWire) -> None:
        self._wire = wire
        self._is_open = self._has_data = self._has_words = False

    def play(self, part: MediaPart) -> None:
        """Send a piece, or the end."""
        if part.is_partial or not self._is_open:
            self._is_open = True
            if part.data:
                self._has_data = True
                self._wire.send("response.audio.delta", delta=part.data)
            if part.transcript:
                self._has_words = True
                self._wire.send("response.audio.transcript.delta", delta=part.transcript)
        if not part.is_partial:
            self.close()

    def close(self) -> None:
        """Send the end, if there is one to send."""
        if self._has_data:
            self._wire.send("response.audio.done")
        if self._has_words:
            self._wire.send("response.audio.transcript.done")
        self._is_open = self._has_data = self._has_words = False
