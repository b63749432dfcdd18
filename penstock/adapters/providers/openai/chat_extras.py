"""What the chunks of a chat completion have besides text, calls, finish and usage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from penstock.adapters.providers.openai.chat_media import AudioPieces, Pictures
from penstock.adapters.providers.openai.chat_reasoning import ReasoningEntries
from penstock.adapters.providers.openai.chat_sources import Sources
from penstock.adapters.providers.shared.blocks import CALL_EXTRAS
from penstock.adapters.providers.shared.json_values import decode_json, plain_json, text_of, whole_number
from penstock.adapters.providers.shared.logprobs import token_logprobs
from penstock.adapters.providers.shared.surrogates import replace_surrogates
from penstock.events import Logprobs, ServerToolCall, ServerToolResult, TokenLogprob
from penstock.ports import BlockDelta, Delta, EventDelta, MetadataDelta, ToolCallFragment

__all__ = ["ChatExtras"]

_NAMES = {
    "response_id": "id",
    "system_fingerprint": "system_fingerprint",
    "service_tier": "service_tier",
    "upstream_provider": "provider",
}
_LONGEST_TEXT = 4_096  # characters
_LARGEST_VALUE = 16_384  # bytes of JSON
_OUTPUTS = ("output", "search_results", "code_results", "browser_results")


class ChatExtras:
    """Reads the extras of choice 0. Nothing here changes text, calls, finish or usage.

    Attributes:
        reasoning: the entries of ``reasoning_details``.
        sources, pictures: what has been told of these.
    """

    def __init__(self, skip: Callable[[str, object], None]) -> None:
        self.reasoning = ReasoningEntries(skip)
        self.sources = Sources(skip)
        self.pictures = Pictures(skip)
        self._audio = AudioPieces(skip)
        self._skip = skip
        self._called: set[str] = set()  # ids of reported calls of server tools
        self._answered: set[str] = set()
        self._call_ids: dict[int | None, str] = {}
        self._told: dict[str, object] = {}

    # --- the delta -------------------------------------------------------------------------------------------------

    def read_delta(self, delta: dict[str, Any], out: list[Delta]) -> None:
        """Append what follows the text of a delta or message."""
        if (annotations := delta.get("annotations")) is not None:
            self.sources.read_annotations(annotations, out)
        if (images := delta.get("images")) is not None:
            self.pictures.read(images, out)
        if (audio := delta.get("audio")) is not None:
            self._audio.read(audio, out)
        if (tools := delta.get("executed_tools")) is not None:
            self._read_tools(tools, out)

    def close(self, out: list[Delta]) -> None:
        """Append what is complete now that nothing more can come."""
        self.reasoning.close(out)
        self._audio.close(out)

    def _read_tools(self, tools: object, out: list[Delta]) -> None:
        """Append Groq's own tools: the call when it is first seen, the result when it comes."""
        if not isinstance(tools, list):
            self._skip("executed_tools", tools)
        for position, tool in enumerate(tools if isinstance(tools, list) else ()):
            name = replace_surrogates(text_of(tool.get("type") or tool.get("name"))) if isinstance(tool, dict) else ""
            if not name:
                self._skip("executed_tools", tool)
                continue
            index = whole_number(tool.get("index"))
            number = position if index is None else index
            key = replace_surrogates(text_of(tool.get("id"))) or f"server_{number}"
            if key not in self._called:
                self._called.add(key)
                arguments = _parsed(tool.get("arguments"))
                out.append(EventDelta(ServerToolCall(id=key, name=name, input=arguments)))
            output = {field: tool[field] for field in _OUTPUTS if tool.get(field) not in (None, "")}
            if output and key not in self._answered:
                self._answered.add(key)
                told = output["output"] if list(output) == ["output"] else output
                out.append(EventDelta(ServerToolResult(id=key, name=name, output=plain_json(told))))

    # --- calls -----------------------------------------------------------------------------------------------------

    def read_call(self, call: dict[str, Any], fragment: ToolCallFragment, out: list[Delta]) -> None:
        """Append the block by which the call's ``extra_content`` is returned to the provider that sent it."""
        if fragment.id:
            self._call_ids[fragment.index] = fragment.id
        if fragment.signature:
            data = {"type": CALL_EXTRAS, "id": fragment.id or self._call_ids.get(fragment.index, "")}
            mended = plain_json(call["extra_content"])
            if isinstance(mended, dict):
                out.append(BlockDelta(data | {"extra_content": mended}))

    # --- probabilities ---------------------------------------------------------------------------------------------

    def read_logprobs(self, logprobs: object, out: list[Delta]) -> None:
        """Append the probabilities of the chunk's tokens. Together's bare number is skipped."""
        if not isinstance(logprobs, dict):
            self._skip("logprobs", logprobs)
            return
        tokens: list[TokenLogprob] = []
        for name in ("content", "refusal"):
            if (items := logprobs.get(name)) is not None:
                tokens += token_logprobs(items, self._skip)
        if tokens:
            out.append(EventDelta(Logprobs(tokens=tuple(tokens))))

    # --- the answer as a whole -------------------------------------------------------------------------------------

    def read_chunk(self, chunk: dict[str, Any], out: list[Delta]) -> None:
        """Append what a chunk says of the whole answer; nothing is reported twice."""
        self.sources.read_lists(chunk, out)
        if (images := chunk.get("images")) is not None:
            self.pictures.read(images, out)
        values: dict[str, object] = {name: text_of(chunk.get(field)) for name, field in _NAMES.items()}
        values["related_questions"] = chunk.get("related_questions")
        if filters := chunk.get("prompt_filter_results"):
            values["moderation"] = {"prompt_filter_results": filters}
        news = {name: value for name, value in values.items() if name not in self._told and _is_said(value)}
        usage = chunk.get("usage")
        if usage is None and isinstance(groq := chunk.get("x_groq"), dict):
            usage = groq.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        timings = chunk.get("timings") or chunk.get("time_info") or _times_of(usage)
        if isinstance(timings, dict) and timings:
            news["timings"] = timings
        if (cost := usage.get("cost")) is not None:
            news["cost"] = cost
        elif (ticks := usage.get("cost_in_usd_ticks")) is not None:
            news["cost"] = {"cost_in_usd_ticks": ticks}
        self._tell(news, out)

    def read_end(self, choice: dict[str, Any], out: list[Delta]) -> None:
        """Append what the chunk with the finish says of it."""
        news: dict[str, object] = {}
        if _is_said(reason := choice.get("native_finish_reason")):
            news["native_finish_reason"] = reason
        stop = choice.get("stop_reason", choice.get("matched_stop"))  # vLLM's name, SGLang's name
        if _is_said(stop) and isinstance(stop, (str, int)):
            news["stop_sequence"] = stop
        self._tell(news, out)

    def _tell(self, values: dict[str, object], out: list[Delta]) -> None:
        told: dict[str, object] = {}
        for name, value in values.items():
            if name in self._told and self._told[name] == value:
                continue
            self._told[name] = value
            mended = plain_json(value)
            if _is_small(mended):
                told[name] = mended
            else:
                self._skip(name, value)
        if told:
            out.append(MetadataDelta(told))


def _is_said(value: object) -> bool:
    return value is not None and value not in ("", [], {})


def _is_small(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_TEXT
    return len(msgspec.json.encode(value)) <= _LARGEST_VALUE


def _times_of(usage: dict[str, Any]) -> dict[str, float]:
    """Groq's durations, in seconds, which stand among the counts."""
    return {
        name: value
        for name, value in usage.items()
        if name in ("queue_time", "prompt_time", "completion_time", "total_time")
        and isinstance(value, (int, float))
        and not isinstance(value, bool)
    }


def _parsed(arguments: object) -> Any:
    if not isinstance(arguments, str):
        return plain_json(arguments)
    try:
        return plain_json(decode_json(arguments))
    except (ValueError, RecursionError):
        return replace_surrogates(arguments)
