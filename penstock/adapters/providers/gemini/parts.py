"""The parts of a candidate's content: what each means, where one part of the text ends, and what must be sent back."""

from __future__ import annotations

from typing import Any, Final

from penstock.adapters.providers.gemini.metadata import Skip
from penstock.adapters.providers.gemini.partial_arguments import PartialArguments
from penstock.adapters.providers.gemini.places import WrittenText
from penstock.adapters.providers.shared.json_values import json_text, plain_json, text_of
from penstock.adapters.providers.shared.surrogates import replace_surrogates
from penstock.events import MediaKind, MediaPart, ReasoningBlock, ServerToolCall, ServerToolResult
from penstock.ports import (
    BlockDelta,
    BlockStart,
    Delta,
    EventDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallFragment,
)

__all__ = ["CONTENT_FIELDS", "KNOWN_FIELDS", "SIGNATURE", "THOUGHT", "TOOL_CALLS", "TOOL_RESULTS", "Parts"]

THOUGHT: Final = "thought"
"""The kind of Gemini's reasoning blocks. One with text is a thought; one without belongs to the answer's text."""
SIGNATURE: Final = "thoughtSignature"
"""The field of a part that must be sent back unchanged."""

TOOL_CALLS: Final = {"executableCode": "code_execution", "toolCall": "tool"}
"""Parts that are calls of Google's own tools, each with the tool's name where the part has none."""
TOOL_RESULTS: Final = {"codeExecutionResult": "code_execution", "toolResponse": "tool"}
"""Parts that are results of such calls."""

_MEDIA: Final = ("inlineData", "fileData")
_MEDIA_KINDS: Final[tuple[MediaKind, ...]] = ("image", "audio", "video")

CONTENT_FIELDS: Final = frozenset({"text", "functionCall", *TOOL_CALLS, *TOOL_RESULTS, *_MEDIA})
"""Fields of parts of which a part has one."""
KNOWN_FIELDS: Final = CONTENT_FIELDS | {"thought", SIGNATURE, "audioTranscription"}
"""Fields of parts that are understood."""


class Parts:
    """Reads the parts of one candidate.

    Attributes:
        text: the candidate's text so far.
        is_separated: whether something stands between the text so far and the next.
        calls: how many of the client's functions have been called.
        open_tools: id and name of the calls of Google's own tools that have no result.
    """

    __slots__ = ("_arguments", "_skip", "_tools", "calls", "is_separated", "open_tools", "text")

    def __init__(self, skip: Skip) -> None:
        self.text = WrittenText()
        self.is_separated = False
        self.calls = 0
        self.open_tools: list[tuple[str, str]] = []
        self._skip = skip
        self._tools = 0  # calls of Google's own tools so far
        self._arguments: PartialArguments | None = None  # of the call that is still arriving

    # --- text and thoughts -----------------------------------------------------------------------------------------

    def begin_text(self, *, is_thought: bool, out: list[Delta]) -> None:
        """Begin text, or a thought, that something separates from what came before."""
        self.is_separated = False
        if not is_thought:
            self.text.start_block()
        out.append(BlockStart("reasoning" if is_thought else "text"))

    def read(self, part: dict[str, Any], out: list[Delta]) -> None:
        """Append what a part says, and the part itself if it must be sent back."""
        signature = ""
        if (given := part.get(SIGNATURE)) is not None:
            signature = replace_surrogates(text_of(given))
            if not isinstance(given, str):
                self._skip(SIGNATURE, given, out)
        call = part.get("functionCall")
        if isinstance(call, dict):
            self.is_separated = True
            self._read_call(call, signature, out)
        elif isinstance(part.get("text"), str) or (signature and part.keys() <= {"text", "thought", SIGNATURE}):
            self._read_text(part, signature, out)
        elif self._read_tool(part, out):
            self._give_back(part, out)
        else:
            self.is_separated = True
            if not _read_media(part, out):
                self._skip(next((name for name in part if name not in ("thought", SIGNATURE)), ""), part, out)
            if signature:
                self._give_back(part, out)

    def _read_text(self, part: dict[str, Any], signature: str, out: list[Delta]) -> None:
        text = text_of(part.get("text"))
        is_thought = part.get("thought") is True
        if text:
            if self.is_separated:
                self.begin_text(is_thought=is_thought, out=out)
            if is_thought:
                out.append(ReasoningDelta(text))
            else:
                self.text.pieces.append(text)
                out.append(TextDelta(text))
        if signature:
            thought = replace_surrogates(text) if is_thought else ""
            out.append(ReasoningBlockDelta(ReasoningBlock(kind=THOUGHT, text=thought, signature=signature)))
            self._give_back({**part, "text": text}, out)  # the API refuses a part without content

    def _give_back(self, part: dict[str, Any], out: list[Delta]) -> None:
        mended = plain_json(part)
        if isinstance(mended, dict):
            out.append(BlockDelta(mended))
        else:  # nested too deeply to be sent
            self._skip("part", part, out)

    # --- Google's own tools ----------------------------------------------------------------------------------------

    def _read_tool(self, part: dict[str, Any], out: list[Delta]) -> bool:
        """Read a call or a result of one of Google's own tools; returns whether the part is one."""
        for field, name in TOOL_CALLS.items():
            if isinstance(value := part.get(field), dict):
                self._read_tool_call(value, name, out)
                return True
        for field, name in TOOL_RESULTS.items():
            if isinstance(value := part.get(field), dict):
                self._read_tool_result(value, name, out)
                return True
        return False

    def _read_tool_call(self, value: dict[str, Any], name: str, out: list[Delta]) -> None:
        given, name = _id_of(value), _tool_of(value) or name
        tool = (given or f"server_{self._tools}", name)
        self.is_separated = True
        self._tools += 1
        self.open_tools.append(tool)
        out.append(EventDelta(ServerToolCall(id=tool[0], name=name, input=_without_id(value))))

    def _read_tool_result(self, value: dict[str, Any], name: str, out: list[Delta]) -> None:
        given, name = _id_of(value), _tool_of(value) or name
        self.is_separated = True
        tool = next((one for one in self.open_tools if one[0] == given), None) or next(
            iter(self.open_tools), (given or f"server_{max(self._tools - 1, 0)}", name)
        )
        if tool in self.open_tools:
            self.open_tools.remove(tool)
        known = _without_id(value)
        output = known.get("output", known.get("response", known)) if isinstance(known, dict) else known
        status = replace_surrogates(text_of(value.get("outcome"))) or None
        is_error = status not in (None, "OUTCOME_OK")
        out.append(
            EventDelta(ServerToolResult(id=tool[0], name=tool[1], output=output, status=status, is_error=is_error))
        )

    # --- calls of the client's functions ---------------------------------------------------------------------------

    def _read_call(self, call: dict[str, Any], signature: str, out: list[Delta]) -> None:
        name = replace_surrogates(text_of(call.get("name"))) or None
        will_continue = call.get("willContinue") is True
        partial = call.get("partialArgs")
        arguments = self._arguments
        if name is None and arguments is None:
            self._skip("functionCall", call, out)
            return
        if name is not None:
            self.calls += 1
            if not will_continue and partial is None:
                self._arguments = None
                out.append(self._fragment(call, name, self._whole_arguments(call, out), signature))
                return
            arguments = self._arguments = PartialArguments()
            text = arguments.begin()
        else:
            text = ""
        assert arguments is not None
        for value in partial if isinstance(partial, list) else ():
            if isinstance(value, dict):
                skipped = arguments.skipped
                text += arguments.add(value)
                if arguments.skipped != skipped:
                    self._skip("partialArgs", value, out)
        if not will_continue:
            text += arguments.end()
            self._arguments = None
        if text or name:
            out.append(self._fragment(call, name, text, signature))

    def _whole_arguments(self, call: dict[str, Any], out: list[Delta]) -> str:
        arguments = call.get("args")
        try:
            return json_text(arguments if arguments is not None else {})
        except RecursionError:  # nested just deeply enough to be parsed but not encoded again
            self._skip("functionCall", call, out)
            return "{"  # invalid, so that the call is not run with other arguments

    def _fragment(self, call: dict[str, Any], name: str | None, text: str, signature: str) -> ToolCallFragment:
        """Make a fragment of the current call, numbered by its order: most calls have no id."""
        return ToolCallFragment(
            index=self.calls - 1,
            id=_id_of(call) or None,
            name=name,
            arguments=text,
            signature=signature,
        )


def _id_of(value: dict[str, Any]) -> str:
    return replace_surrogates(text_of(value.get("id")))


def _tool_of(value: dict[str, Any]) -> str:
    return replace_surrogates(text_of(value.get("toolType")))


def _without_id(value: dict[str, Any]) -> Any:
    return plain_json({name: item for name, item in value.items() if name != "id"})


def _read_media(part: dict[str, Any], out: list[Delta]) -> bool:
    """Read a picture, sound or file; returns whether the part is one. A picture of a thought precedes the final one."""
    for field in _MEDIA:
        value = part.get(field)
        if not isinstance(value, dict):
            continue
        mime = replace_surrogates(text_of(value.get("mimeType")))
        data, url = text_of(value.get("data")), replace_surrogates(text_of(value.get("fileUri")))
        if data or url:
            words = part.get("audioTranscription")
            out.append(
                EventDelta(
                    MediaPart(
                        kind=next((one for one in _MEDIA_KINDS if mime.startswith(one)), "file"),
                        mime=mime or None,
                        data=replace_surrogates(data),
                        url=url or None,
                        is_partial=part.get("thought") is True,
                        transcript=replace_surrogates(text_of(words.get("text"))) if isinstance(words, dict) else "",
                    )
                )
            )
            return True
    return False
