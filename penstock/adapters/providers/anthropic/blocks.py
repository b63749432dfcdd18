"""The content blocks of a message: what each means, where one part of the text ends, and what must be sent back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from penstock.adapters.providers.anthropic.citations import parse_citation
from penstock.adapters.providers.shared.json_values import decode_json, json_text, plain_json, text_of
from penstock.adapters.providers.shared.surrogates import replace_surrogates
from penstock.events import Citation, ReasoningBlock, ServerToolCall, ServerToolResult
from penstock.ports import (
    BlockDelta,
    BlockStart,
    CitationDelta,
    Delta,
    EventDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    TextDelta,
    Thinking,
    ToolCallFragment,
)

__all__ = ["RETURNED", "RETURNED_ENDING", "SERVER_CALLS", "ContentBlocks", "Skip"]

Skip: TypeAlias = Callable[[str, object, list[Delta]], None]
"""Counts something that is not understood: its type, the thing itself, and where to put a `ProviderEvent`."""

SERVER_CALLS: Final = frozenset({"server_tool_use", "mcp_tool_use"})
"""Types of blocks that are calls of tools which the provider runs itself."""
RETURNED_ENDING: Final = "_tool_result"
"""The end of the type of every block that is the result of such a call."""
RETURNED: Final = frozenset({"thinking", "redacted_thinking", "container_upload", "compaction", "fallback", "tool_use"})
"""Other types of blocks that are given back as they came; ``tool_use`` only if a program of the model's called it."""


class _Thought:
    """A block of reasoning that has begun and not ended."""

    __slots__ = ("pieces", "signature")

    def __init__(self, signature: str) -> None:
        self.pieces: list[str] = []
        self.signature = signature


class _Block:
    """Another block that has begun and not ended, and that is given back.

    ``data`` is the block as it began, without lone surrogates; ``pieces``: the arguments so far, if it is a call.
    """

    __slots__ = ("data", "kind", "pieces")

    def __init__(self, kind: str, data: dict[str, Any]) -> None:
        self.kind = kind
        self.data = data
        self.pieces: list[str] = []


class ContentBlocks:
    """Reads the blocks of one message, which may be open at the same time.

    Attributes:
        has_text, has_reasoning: whether there is text, or reasoning, in the present part of the answer. The reader of
            the deltas sets them.
        model: the model that took over from one that declined; None: there is none.
    """

    def __init__(self, skip: Skip) -> None:
        self.has_text = False
        self.has_reasoning = False
        self.model: str | None = None
        self._skip = skip
        self._had_text = False  # in an earlier part
        self._last, self._last_index = "", 0  # the type of the block that began last, and its index
        self._thoughts: dict[int, _Thought] = {}
        self._open: dict[int, _Block] = {}
        self._streamed: set[int] = set()  # indices of calls with arguments in fragments
        self._citations: list[Citation] = []  # of the text under way: the API sends them before the text
        self._names: dict[str, str] = {}  # of the provider's own tools, by the id of the call
        self._nameless = 0  # how many ids have been made up

    # --- pieces ----------------------------------------------------------------------------------------------------

    def add_thinking(self, index: int, text: str, out: list[Delta]) -> None:
        """Add a piece of reasoning, which is not empty."""
        if thought := self._thoughts.get(index):
            thought.pieces.append(text)
        out.append(ReasoningDelta(text))

    def add_arguments(self, index: int, text: str, out: list[Delta]) -> None:
        """Add a piece of a call's arguments."""
        if not text:
            return
        if index not in self._streamed:  # not a call, or one that came whole
            event = {"type": "content_block_delta", "index": index}
            self._skip("input_json_delta", event | {"delta": {"type": "input_json_delta", "partial_json": text}}, out)
            return
        out.append(ToolCallFragment(index=index, arguments=text))
        if block := self._open.get(index):
            block.pieces.append(text)

    def add(self, index: int, delta: dict[str, Any], event: object, out: list[Delta]) -> None:
        """Add a piece of any kind; ``event`` is what it came in."""
        kind = text_of(delta.get("type"))
        block = self._open.get(index)
        if kind == "text_delta":
            self._add_text(text_of(delta.get("text")), out)
        elif kind == "thinking_delta":
            self._add_thinking(index, text_of(delta.get("thinking")), out)
        elif kind == "input_json_delta":
            self.add_arguments(index, text_of(delta.get("partial_json")), out)
        elif kind == "citations_delta":
            self._add_citation(delta.get("citation"), out)
        elif kind == "signature_delta" and index in self._thoughts:
            self._thoughts[index].signature = text_of(delta.get("signature"))
        elif kind == "compaction_delta" and block is not None and block.kind == "compaction":
            told = {name: replace_surrogates(text_of(delta.get(name))) for name in ("content", "encrypted_content")}
            block.data = {**block.data, **{name: text for name, text in told.items() if text}}
        else:
            self._skip(kind or "content_block_delta", event, out)

    def _add_text(self, text: str, out: list[Delta]) -> None:
        if text:
            self.has_text = True
            out.append(TextDelta(text))

    def _add_thinking(self, index: int, text: str, out: list[Delta]) -> None:
        if text:
            self.has_reasoning = True
            self.add_thinking(index, text, out)

    def _add_citation(self, given: object, out: list[Delta]) -> None:
        citation = parse_citation(given)
        if citation is None:
            self._skip("citations_delta", given, out)
        else:
            self._citations.append(citation)

    # --- the start of a block --------------------------------------------------------------------------------------

    def start(self, index: int, block: dict[str, Any], event: object, out: list[Delta]) -> None:
        """Begin a block; ``event`` is what it came in.

        Raises:
            RecursionError: something in it is nested just deeply enough to be parsed but not encoded again.
        """
        kind = text_of(block.get("type"))
        self._tell_citations(out)
        self._close_last(index, out)
        if kind == "text":
            self._start_text(block, out)
        elif kind == "thinking":
            self._start_thinking(index, block, out)
        elif kind == "tool_use" or kind in SERVER_CALLS:
            self._start_call(index, kind, block, out)
        elif kind == "redacted_thinking":
            out.append(Thinking())
            data = replace_surrogates(text_of(block.get("data")))
            out.append(ReasoningBlockDelta(ReasoningBlock(kind="redacted_thinking", signature=data)))
            if data:
                out.append(BlockDelta(_mended(block)))
        elif kind.endswith(RETURNED_ENDING) and text_of(block.get("tool_use_id")):
            self._tell_result(kind, _mended(block), out)
        elif kind == "compaction":
            self._open[index] = _Block(kind, _mended(block))
        elif kind in RETURNED:
            out.append(BlockDelta(_mended(block)))
            to = block.get("to")
            if kind == "fallback" and isinstance(to, dict):
                self.model = replace_surrogates(text_of(to.get("model"))) or self.model
        else:
            self._skip(kind or "content_block_start", event, out)
        self._last, self._last_index = kind, index

    def _start_text(self, block: dict[str, Any], out: list[Delta]) -> None:
        """Begin a block of text. Directly after another one it continues the text: citations make such borders."""
        if self.has_text and self._last != "text":
            self._start_part()
            out.append(BlockStart("text"))
        elif self.has_text or self._had_text:
            out.append(BlockStart("text", is_joint=False))
        self._add_text(text_of(block.get("text")), out)
        citations = block.get("citations")
        for citation in citations if isinstance(citations, list) else ():
            self._add_citation(citation, out)

    def _start_thinking(self, index: int, block: dict[str, Any], out: list[Delta]) -> None:
        if self.has_reasoning:
            self._start_part()
            out.append(BlockStart("reasoning"))  # before `Thinking`: it is not yet a sign that the reasoning has ended
        out.append(Thinking())
        self._thoughts[index] = _Thought(text_of(block.get("signature")))
        self._add_thinking(index, text_of(block.get("thinking")), out)

    def _start_part(self) -> None:
        self._had_text = self._had_text or self.has_text
        self.has_text = self.has_reasoning = False

    def _start_call(self, index: int, kind: str, block: dict[str, Any], out: list[Delta]) -> None:
        given = block.get("input")
        arguments = json_text(given) if given else ""
        is_server = kind in SERVER_CALLS
        caller = block.get("caller")
        if is_server or (isinstance(caller, dict) and caller.get("type") != "direct"):
            self._open[index] = _Block(kind, _mended(block))
        else:
            self._open.pop(index, None)
        if not arguments:
            self._streamed.add(index)
        else:
            self._streamed.discard(index)
        out.append(
            ToolCallFragment(
                index=index,
                id=replace_surrogates(text_of(block.get("id"))) or None,
                name=replace_surrogates(text_of(block.get("name"))) or None,
                arguments=arguments,
                is_server=is_server,
            )
        )

    def _tell_result(self, kind: str, block: dict[str, Any], out: list[Delta]) -> None:
        call_id, content = block["tool_use_id"], block.get("content")
        for index, other in tuple(self._open.items()):  # from servers that do not send the end of a block
            if other.data.get("id") == call_id:
                self.stop(index, out)
        name = self._names.get(call_id) or replace_surrogates(kind.removesuffix(RETURNED_ENDING))
        is_error = block.get("is_error") is True
        if isinstance(content, dict) and text_of(content.get("type")).endswith("_error"):
            is_error = True
        out.append(EventDelta(ServerToolResult(id=call_id, name=name, output=content, is_error=is_error)))
        out.append(BlockDelta(block))

    # --- the end of a block ----------------------------------------------------------------------------------------

    def stop(self, index: int, out: list[Delta]) -> None:
        """End a block."""
        self._tell_citations(out)
        thought = self._thoughts.pop(index, None)
        if thought is not None and thought.signature:
            _tell_thought(thought, out)
        block = self._open.pop(index, None)
        if block is None:
            return
        if block.kind == "compaction":
            out.append(BlockDelta(block.data | {"content": block.data.get("content") or None}))
        else:
            self._tell_call(block, out)

    def end(self, out: list[Delta], *, is_whole: bool = False) -> None:
        """End the message: report what waits for the end of a text.

        ``is_whole``: it was not cut off, so blocks without an end are complete too.
        """
        self._tell_citations(out)
        for index in sorted({*self._thoughts, *self._open}) if is_whole else ():
            self.stop(index, out)

    def _close_last(self, index: int, out: list[Delta]) -> None:
        """End the block that began last, if it has all it needs: some servers do not send the end of a block."""
        last = self._last_index
        thought, block = self._thoughts.get(last), self._open.get(last)
        is_signed = thought is not None and bool(thought.signature)
        if last != index and (is_signed or (block is not None and _is_complete("".join(block.pieces)))):
            self.stop(last, out)

    def _tell_citations(self, out: list[Delta]) -> None:
        out += [CitationDelta(citation, is_of_block=True) for citation in self._citations]
        self._citations.clear()

    def _tell_call(self, block: _Block, out: list[Delta]) -> None:
        """Tell a call whose arguments are complete. If they are not an object, an empty one is given back."""
        data, raw = block.data, "".join(block.pieces)
        given = _parsed(raw) if raw else data.get("input")
        call_id, name = text_of(data.get("id")), text_of(data.get("name"))
        if block.kind in SERVER_CALLS:
            if call_id:
                self._names[call_id] = name
            told = given if given is not None else {}
            out.append(EventDelta(ServerToolCall(id=call_id or self._made_up(), name=name, input=told)))
        if call_id:
            out.append(BlockDelta(data | {"input": given if isinstance(given, dict) else {}}))

    def _made_up(self) -> str:
        self._nameless += 1
        return f"server_{self._nameless - 1}"


def _tell_thought(thought: _Thought, out: list[Delta]) -> None:
    """Tell a block of reasoning that is complete and signed; an unsigned one is not given back."""
    text, signature = replace_surrogates("".join(thought.pieces)), replace_surrogates(thought.signature)
    out.append(ReasoningBlockDelta(ReasoningBlock(kind="thinking", text=text, signature=signature)))
    out.append(BlockDelta({"type": "thinking", "thinking": text, "signature": signature}))


def _is_complete(arguments: str) -> bool:
    try:
        return isinstance(decode_json(arguments), dict)
    except (ValueError, RecursionError):
        return False


def _parsed(raw: str) -> object:
    """The arguments as JSON, as text if they are none."""
    try:
        return plain_json(decode_json(raw))
    except (ValueError, RecursionError):
        return replace_surrogates(raw)


def _mended(block: dict[str, Any]) -> dict[str, Any]:
    """A block without lone surrogates.

    Raises:
        RecursionError: it is nested too deeply to be encoded again.
    """
    mended = plain_json(block)
    if not isinstance(mended, dict):
        raise RecursionError
    return mended
