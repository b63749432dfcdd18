"""The official clients: what each reads from a stream, and what our decoders read from the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest
from google import genai
from google.genai import types as genai_types
from openai.lib.streaming.chat import ChatCompletionStreamState

from penstock.actors.call.toolcalls import ToolCallAccumulator
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.adapters.providers.anthropic.provider import AnthropicMessages
from penstock.adapters.providers.gemini.provider import Gemini
from penstock.adapters.providers.ollama.provider import OllamaChat
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.adapters.providers.openai.responses_provider import OpenAiResponses
from penstock.config.options import RequestOptions
from penstock.events import Usage
from penstock.ports import (
    Decoder,
    Delta,
    ErrorDelta,
    FinishDelta,
    Provider,
    ReasoningBlockDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)

CORPUS = Path(__file__).parent.parent / "corpus"
KEY = "sk-client"
USER: list[Any] = [{"role": "user", "content": "What is it?"}]


@dataclass
class Reading:
    """What a reader extracts from one answer. None: the reader cannot know this point."""

    text: str = ""
    text_accumulated: str | None = None
    """The whole text, if the client itself puts it together beside handing out deltas."""

    reasoning: str | None = ""
    refusal: str | None = ""
    tool_calls: list[tuple[str, Any]] = field(default_factory=list)
    """Name and arguments: the parsed JSON, or the text if it is not JSON."""

    call_ids: list[str | None] = field(default_factory=list)
    """The id of each call; None if the reader gets none."""

    finish_reason: str | None = None
    """The provider's own finish reason."""

    usage: dict[str, int | None] = field(default_factory=dict)
    signatures: list[str] | None = None
    error: Exception | None = None


def arguments_of(raw: str) -> Any:
    """The arguments as JSON; no bytes are no arguments."""
    try:
        return json.loads(raw or "{}")
    except ValueError:
        return raw


# --- ours ----------------------------------------------------------------------------------------------------------

PROVIDERS: dict[str, Provider] = {
    "chat": OpenAiChat(None, "http://127.0.0.1/v1"),
    "responses": OpenAiResponses(None, "http://127.0.0.1/v1"),
    "messages": AnthropicMessages(None, "http://127.0.0.1"),
    "ollama": OllamaChat(None, "http://127.0.0.1"),
    "gemini": Gemini(None, "http://127.0.0.1"),
    "gemini-json": Gemini(None, "http://127.0.0.1"),
}


def our_reading(api: str, chunks: Iterable[bytes]) -> Reading:
    """What Penstock's decoder of ``api`` reads."""
    decoder: Decoder = PROVIDERS[api].decoder(RequestOptions())
    reading = Reading(signatures=[])
    calls = ToolCallAccumulator()
    deltas: list[Delta] = []
    for chunk in chunks:
        deltas += decoder.feed(chunk)
    for delta in [*deltas, *decoder.close()]:
        match delta:
            case TextDelta(text=text):
                reading.text += text
            case ReasoningDelta(text=text):
                reading.reasoning = (reading.reasoning or "") + text
            case RefusalDelta(text=text):
                reading.refusal = (reading.refusal or "") + text
            case ToolCallFragment():
                calls.feed(delta)
            case FinishDelta(raw=raw):
                reading.finish_reason = raw
            case UsageDelta(usage=usage):
                reading.usage = usage_of(usage)
            case ReasoningBlockDelta(block=block) if reading.signatures is not None:
                reading.signatures.append(block.signature)
            case ErrorDelta(error=error):
                reading.error = error
    for call in calls.finish():
        reading.tool_calls.append((call.name, arguments_of(call.arguments_raw)))
        reading.call_ids.append(call.id)
    return reading


def usage_of(usage: Usage) -> dict[str, int | None]:
    """The counts that were sent."""
    counts = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    return {name: count for name, count in counts.items() if count is not None}


def _counts(**counts: int | None) -> dict[str, int | None]:
    return {name: count for name, count in counts.items() if count is not None}


# --- theirs --------------------------------------------------------------------------------------------------------


class OfficialClients:
    """The four clients, each with its connection to one loopback provider."""

    def __init__(self, provider: LoopbackProvider) -> None:
        self.openai = openai.OpenAI(api_key=KEY, base_url=provider.base_url, max_retries=0)
        self.anthropic = anthropic.Anthropic(api_key=KEY, base_url=provider.url, max_retries=0)
        self.ollama = ollama.Client(host=provider.url, headers={"Authorization": f"Bearer {KEY}"})
        options = genai_types.HttpOptions(base_url=provider.url)
        self.gemini = genai.Client(api_key=KEY, http_options=options)

    def close(self) -> None:
        """Close their connections."""
        self.openai.close()
        self.anthropic.close()
        self.ollama.close()  # type: ignore[no-untyped-call]
        self.gemini.close()

    def read(self, api: str, model: str) -> Reading:
        """What the client of ``api`` reads of a streamed answer; what it raises is part of that."""
        readers: dict[str, Callable[[Reading, str], None]] = {
            "chat": self._chat,
            "responses": self._responses,
            "messages": self._messages,
            "ollama": self._ollama,
            "gemini": self._gemini,
            "gemini-json": self._gemini,
        }
        reading = Reading()
        try:
            readers[api](reading, model)
        except Exception as error:
            reading.error = error
        return reading

    def iterate(self, api: str, model: str) -> Exception | None:
        """Read a stream with the plain iterator, without the client's accumulating helper; returns what that raises."""
        streams: dict[str, Callable[[], Iterable[Any]]] = {
            "chat": lambda: self.openai.chat.completions.create(model=model, messages=USER, stream=True),
            "responses": lambda: self.openai.responses.create(model=model, input="What is it?", stream=True),
            "messages": lambda: self.anthropic.beta.messages.create(
                model=model, max_tokens=10, messages=USER, stream=True
            ),
            "gemini": lambda: self.gemini.models.generate_content_stream(model=model, contents="What is it?"),
        }
        try:
            for _ in streams[api.removesuffix("-json")]():
                pass
        except Exception as error:
            return error
        return None

    def _chat(self, reading: Reading, model: str) -> None:
        state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
        calls: dict[Any, list[str]] = {}
        reading.reasoning = None  # OpenAI's client has no such field
        options: Any = {"include_usage": True}
        with self.openai.chat.completions.create(
            model=model, messages=USER, stream=True, stream_options=options
        ) as stream:
            for chunk in stream:
                if chunk.usage is not None:
                    usage = chunk.usage
                    reading.usage = _counts(
                        input_tokens=usage.prompt_tokens,
                        output_tokens=usage.completion_tokens,
                        total_tokens=usage.total_tokens,
                    )
                for choice in chunk.choices:
                    if choice.index == 0:
                        self._chat_choice(reading, calls, choice)
                reading.tool_calls = [(name, arguments_of(arguments)) for _, name, arguments in calls.values()]
                reading.call_ids = [call_id for call_id, _, _ in calls.values()]
                if reading.error is None:
                    self._accumulate(reading, state, chunk)

    @staticmethod
    def _chat_choice(reading: Reading, calls: dict[Any, list[str]], choice: Any) -> None:
        if isinstance(choice.delta.content, str):  # Mistral's may be a list, which this client passes on
            reading.text += choice.delta.content
        reading.refusal = (reading.refusal or "") + (choice.delta.refusal or "")
        reading.finish_reason = reading.finish_reason or choice.finish_reason
        for fragment in choice.delta.tool_calls or ():
            call = calls.setdefault(fragment.index, [fragment.id, fragment.function.name, ""])
            call[2] += fragment.function.arguments or ""

    @staticmethod
    def _accumulate(reading: Reading, state: ChatCompletionStreamState[None], chunk: Any) -> None:
        """What the client itself makes of the chunks; if that fails, its deltas can still be read."""
        try:
            state.handle_chunk(chunk)
        except Exception as error:
            reading.error, reading.text_accumulated = error, None
            return
        for answer in state.current_completion_snapshot.choices[:1]:
            reading.text_accumulated = answer.message.content or ""

    def _responses(self, reading: Reading, model: str) -> None:
        reading.reasoning = None
        with self.openai.responses.create(model=model, input="What is it?", stream=True) as stream:
            for event in stream:
                match event.type:
                    case "response.output_text.delta":
                        reading.text += event.delta
                    case "response.refusal.delta":
                        reading.refusal = (reading.refusal or "") + event.delta
                    case "response.output_item.done" if event.item.type == "function_call":
                        reading.tool_calls.append((event.item.name, arguments_of(event.item.arguments)))
                        reading.call_ids.append(event.item.call_id)
                    case "response.output_item.done" if event.item.type == "custom_tool_call":
                        reading.tool_calls.append((event.item.name, arguments_of(event.item.input)))
                        reading.call_ids.append(event.item.call_id)
                    case "response.completed" | "response.incomplete" | "response.failed":
                        cut = event.response.incomplete_details
                        reading.finish_reason = (cut.reason if cut else None) or event.response.status
                        usage = event.response.usage
                        if usage is not None:
                            reading.usage = _counts(
                                input_tokens=usage.input_tokens,
                                output_tokens=usage.output_tokens,
                                total_tokens=usage.total_tokens,
                            )

    def _messages(self, reading: Reading, model: str) -> None:
        reading.refusal = None
        with self.anthropic.beta.messages.stream(model=model, max_tokens=10, messages=USER) as stream:
            try:
                for _event in stream:
                    pass
            finally:
                self._read_message(reading, stream.current_message_snapshot)

    @staticmethod
    def _read_message(reading: Reading, message: Any) -> None:
        reading.signatures = []
        for block in message.content:
            match block.type:
                case "text":
                    reading.text += block.text
                case "thinking":
                    reading.reasoning = (reading.reasoning or "") + block.thinking
                    reading.signatures.append(block.signature)
                case "redacted_thinking":
                    reading.signatures.append(block.data)
                case "tool_use" | "server_tool_use" | "mcp_tool_use":
                    reading.tool_calls.append((block.name, block.input))
                    reading.call_ids.append(block.id)
        reading.finish_reason = message.stop_reason
        usage = message.usage
        reading.usage = _counts(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)

    def _ollama(self, reading: Reading, model: str) -> None:
        reading.refusal = None
        for line in self.ollama.chat(model=model, messages=USER, stream=True):
            reading.text += line.message.content or ""
            reading.reasoning = (reading.reasoning or "") + (line.message.thinking or "")
            for call in line.message.tool_calls or ():
                reading.tool_calls.append((call.function.name, dict(call.function.arguments)))
                reading.call_ids.append(None)  # it drops them
            reading.finish_reason = line.done_reason or reading.finish_reason
            if line.done:
                reading.usage = _counts(input_tokens=line.prompt_eval_count, output_tokens=line.eval_count)

    def _gemini(self, reading: Reading, model: str) -> None:
        reading.refusal = None
        for document in self.gemini.models.generate_content_stream(model=model, contents="What is it?"):
            for candidate in (document.candidates or ())[:1]:
                for part in (candidate.content.parts if candidate.content else None) or ():
                    if part.function_call is not None:
                        reading.tool_calls.append((part.function_call.name or "", part.function_call.args or {}))
                        reading.call_ids.append(part.function_call.id)
                    elif part.thought:
                        reading.reasoning = (reading.reasoning or "") + (part.text or "")
                    else:
                        reading.text += part.text or ""
                if candidate.finish_reason is not None:
                    reading.finish_reason = candidate.finish_reason.value
            usage = document.usage_metadata
            if usage is not None:
                reading.usage = _counts(
                    input_tokens=usage.prompt_token_count,
                    output_tokens=usage.candidates_token_count,
                    total_tokens=usage.total_token_count,
                )


@contextmanager
def connected_clients(provider: LoopbackProvider) -> Iterator[OfficialClients]:
    """Start the provider and the clients, which must connect directly, without the environment's proxy."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            patch.delenv(name, raising=False)
        with provider:
            clients = OfficialClients(provider)
            try:
                yield clients
            finally:
                clients.close()
