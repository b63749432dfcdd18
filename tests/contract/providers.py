"""What the contract tests share: each provider by name, how it is reached, and what it sends for a script."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

import penstock
from penstock.adapters.loopback.faults import StreamFault
from penstock.adapters.loopback.script import Answer, Replies, Script, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.config.limits import BreakerOptions, RetryBudgetOptions
from penstock.config.settings import ProviderOptions
from penstock.events import FinishReason, ReasoningBlock, ToolCall, Usage
from penstock.testing import Collector

KEY = "sk-contract-0123456789"
HELLO = [{"role": "user", "content": "Hello there"}]
FAST = penstock.StreamOptions(max_buffer_size=100_000, batch_size=64, flush_interval=0.01, rate_limit=None)
ONCE = penstock.RequestOptions(max_retries=0)
SOON = penstock.RequestOptions(max_retries=3, retry_base_delay=0.001)
PATIENCE = 30.0

WORDS = tuple(f"{number} " for number in range(20))
TEXT = "".join(WORDS)
FIVE = "".join(WORDS[:5])
ANSWER = Answer(tokens=WORDS)
REASONED = Answer(tokens=WORDS, reasoning="so it is", signature="c2ln")
CALLED = Answer("a b c", tool_calls=(ScriptedCall("f", '{"city":"Zürich"}', id="call_1"),))


def on_the_way(*faults: StreamFault, **more: Any) -> Answer:
    """`ANSWER` with these faults."""
    return ANSWER.replace(faults=faults, **more)


@dataclass(frozen=True, eq=False)
class Wire:
    """One provider: its name, its API's path, and what its dialect can express."""

    name: str
    path: str
    key_header: str
    finish: Mapping[str, tuple[FinishReason, str]]
    """Penstock's finish reason and the provider's, for the script's."""

    has_refusals: bool = False
    signs_calls: bool = False
    sends_whole_calls: bool = False
    model_in_path: bool = False
    tells_errors_kind: bool = True
    """Whether an error inside the stream has a kind as well as a message."""

    def url(self, server: LoopbackProvider) -> str:
        """Its base URL at ``server``."""
        return server.base_url if self.name.startswith("openai") else server.url

    def usage(self, told: Usage) -> Usage:
        """The part of ``told`` that its dialect can express."""
        return told

    def text(self, answer: Answer) -> str:
        """The text of ``answer``; in dialects without refusals, a refusal is text."""
        return ("" if self.has_refusals else answer.refusal) + answer.full_text

    def refusal(self, answer: Answer) -> str:
        """Its refusal."""
        return answer.refusal if self.has_refusals else ""

    def blocks(self, answer: Answer, number: int) -> tuple[ReasoningBlock, ...]:
        """The signed reasoning that must be sent back; ``number`` is the request's."""
        return ()

    def call(self, call: ScriptedCall) -> ToolCall:
        """A call as it is reported, with arguments as JSON without blanks."""
        assert call.id is not None
        return ToolCall(
            id=call.id,
            name=call.name,
            arguments=parsed(call.arguments),
            arguments_raw=call.arguments,
            signature=(call.signature or "") if self.signs_calls else "",
            signed_by=self.name if self.signs_calls and call.signature else "",
        )


def parsed(text: str) -> Any:
    """``text``, parsed by Python's own parser."""
    return json.loads(text)


class _Responses(Wire):
    def blocks(self, answer: Answer, number: int) -> tuple[ReasoningBlock, ...]:
        item = f"rs_loopback_{number}"
        signature = answer.signature or ""
        block = ReasoningBlock(
            kind="reasoning", text=answer.reasoning, signature=signature, id=item, provider=self.name
        )
        return (block,) if answer.reasoning else ()


class _Anthropic(Wire):
    def usage(self, told: Usage) -> Usage:
        return Usage(
            input_tokens=told.input_tokens,
            output_tokens=told.output_tokens,
            cached_tokens=told.cached_tokens or 0,
            cache_write_tokens=0,
        )

    def blocks(self, answer: Answer, number: int) -> tuple[ReasoningBlock, ...]:
        block = ReasoningBlock(
            kind="thinking", text=answer.reasoning, signature=answer.signature or "", provider=self.name
        )
        return (block,) if answer.signature else ()

    def call(self, call: ScriptedCall) -> ToolCall:
        raw = "" if call.arguments == "{}" else call.arguments  # empty arguments are reported as none
        assert call.id is not None
        return ToolCall(id=call.id, name=call.name, arguments=parsed(call.arguments), arguments_raw=raw)


class _Ollama(Wire):
    def usage(self, told: Usage) -> Usage:
        return Usage(input_tokens=told.input_tokens, output_tokens=told.output_tokens)


class _Gemini(Wire):
    def usage(self, told: Usage) -> Usage:
        return Usage(
            input_tokens=told.input_tokens,
            output_tokens=told.output_tokens,
            total_tokens=told.total_tokens,
            reasoning_tokens=told.reasoning_tokens or None,  # it omits a 0
            cached_tokens=told.cached_tokens or None,
        )

    def blocks(self, answer: Answer, number: int) -> tuple[ReasoningBlock, ...]:
        signed = answer.signature and not answer.tool_calls  # else the first call has it
        block = ReasoningBlock(kind="thought", signature=answer.signature or "", provider=self.name)
        return (block,) if signed else ()


class _Chat(Wire):
    def usage(self, told: Usage) -> Usage:
        return msgspec.structs.replace(told, audio_input_tokens=0, audio_output_tokens=0, service_tier="default")


OPENAI = _Chat(
    name="openai",
    path="/v1/chat/completions",
    key_header="authorization",
    finish={
        "stop": ("stop", "stop"),
        "length": ("length", "length"),
        "tool_calls": ("tool_calls", "tool_calls"),
        "content_filter": ("content_filter", "content_filter"),
        "refused": ("stop", "stop"),
    },
    has_refusals=True,
)
RESPONSES = _Responses(
    name="openai-responses",
    path="/v1/responses",
    key_header="authorization",
    finish={
        "stop": ("stop", "completed"),
        "length": ("length", "max_output_tokens"),
        "tool_calls": ("tool_calls", "completed"),
        "content_filter": ("content_filter", "content_filter"),
        "refused": ("refusal", "completed"),
    },
    has_refusals=True,
)
ANTHROPIC = _Anthropic(
    name="anthropic",
    path="/v1/messages",
    key_header="x-api-key",
    finish={
        "stop": ("stop", "end_turn"),
        "length": ("length", "max_tokens"),
        "tool_calls": ("tool_calls", "tool_use"),
        "content_filter": ("refusal", "refusal"),
        "refused": ("refusal", "refusal"),
    },
)
OLLAMA = _Ollama(
    name="ollama",
    path="/api/chat",
    key_header="authorization",
    finish={
        "stop": ("stop", "stop"),
        "length": ("length", "length"),
        "tool_calls": ("tool_calls", "stop"),
        "content_filter": ("stop", "stop"),  # it has none
        "refused": ("stop", "stop"),
    },
    sends_whole_calls=True,
    tells_errors_kind=False,
)
GEMINI = _Gemini(
    name="gemini",
    path="/v1beta/models/{}:streamGenerateContent",
    key_header="x-goog-api-key",
    finish={
        "stop": ("stop", "STOP"),
        "length": ("length", "MAX_TOKENS"),
        "tool_calls": ("tool_calls", "STOP"),
        "content_filter": ("content_filter", "SAFETY"),
        "refused": ("stop", "STOP"),
    },
    signs_calls=True,
    sends_whole_calls=True,
    model_in_path=True,
)

WIRES: Sequence[Wire] = (OPENAI, RESPONSES, ANTHROPIC, OLLAMA, GEMINI)
EVERY = pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])


class House:
    """A system with all providers at one server, and with breaker and retry budget disabled."""

    def __init__(self, server: LoopbackProvider, request: penstock.RequestOptions = ONCE) -> None:
        self.server = server
        options = {
            wire.name: ProviderOptions(base_url=wire.url(server), api_key=KEY)  # type: ignore[arg-type]
            for wire in WIRES
        }
        self.system = penstock.System(
            penstock.Settings(
                providers=options,
                chat=FAST,
                response=FAST,
                request=request,
                breaker=BreakerOptions(enabled=False),
                retry_budget=RetryBudgetOptions(ratio=None),
            )
        )

    def ask(self, wire: Wire, model: str, messages: Any = HELLO, **more: Any) -> penstock.Stream:
        """Call ``wire``'s provider."""
        return self.system.chat(model, messages, provider=wire.name, **more)

    def watch(self, wire: Wire, model: str, messages: Any = HELLO, **more: Any) -> Collector:
        """The same, and keep the events."""
        return Collector(self.ask(wire, model, messages, **more))

    def requests(self, model: str, path: str | None = None) -> list[Any]:
        """The server's requests for that model, in order."""
        return [each for each in self.server.requests if each.model == model and path in (None, each.path)]


@contextmanager
def house(server: LoopbackProvider, request: penstock.RequestOptions = ONCE) -> Iterator[House]:
    """A running `House`; fails if it leaves a thread."""
    made = House(server, request)
    made.system.start()
    try:
        yield made
    finally:
        assert made.system.stop() == 0


@contextmanager
def serving(models: Mapping[str, Replies], **more: Any) -> Iterator[LoopbackProvider]:
    """A server with these ``models`` that requires the key."""
    with LoopbackProvider(Script(models=models), api_key=KEY, **more) as server:
        yield server


def completed(collector: Collector) -> penstock.StreamCompleted:
    """The end of a stream that must have completed; checks the promises about its events."""
    end = collector.wait_for_terminal(PATIENCE)
    collector.check()
    assert isinstance(end, penstock.StreamCompleted), getattr(end, "error", end)
    assert collector.text == end.text
    return end


def failed(collector: Collector) -> penstock.StreamFailed:
    """The end of a stream that must have failed, likewise."""
    end = collector.wait_for_terminal(PATIENCE)
    collector.check()
    assert isinstance(end, penstock.StreamFailed), end
    assert isinstance(end.error, penstock.ProviderError)
    assert end.partial == end.error.partial == collector.text
    return end
