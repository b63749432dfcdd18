"""What recorded answers have besides text and calls is told as their side files say, wherever the bytes are split.

The side files are made by ``tests/corpus/derive_extras.py``, which shares no code with the decoders.
"""

from __future__ import annotations

import ast
import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from penstock.adapters.providers.anthropic.decoder import MessagesDecoder
from penstock.adapters.providers.gemini.decoder import GeminiDecoder
from penstock.adapters.providers.ollama.decoder import OllamaDecoder
from penstock.adapters.providers.openai.chat_decoder import ChatDecoder
from penstock.adapters.providers.openai.responses_decoder import ResponsesDecoder
from penstock.ports import Decoder, Delta, ErrorDelta, KeepAlive
from tests.contract.extras import Collected, collect
from tests.corpus.derive_extras import CORPUS, with_extras

LIMIT = 4 * 1_048_576
BYTE_BY_BYTE_UP_TO = 12_000
CUTS = 6
ENDS = 12

DECODERS: dict[str, Callable[[int], Decoder]] = {
    "chat": ChatDecoder,
    "responses": ResponsesDecoder,
    "messages": MessagesDecoder,
    "gemini": GeminiDecoder,
    "gemini-json": GeminiDecoder,
    "ollama": OllamaDecoder,
}
LISTS = ("citations", "server_tools", "media", "reasoning_blocks", "provider_blocks", "call_types")


def _side_files() -> Iterator[Any]:
    for path in sorted(CORPUS.glob("*/*.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        yield pytest.param(facts, id=f"{facts['api']}:{path.parent.name}/{path.stem[-60:]}")


RECORDINGS = list(_side_files())


def _with(name: str) -> list[Any]:
    return [each for each in RECORDINGS if name in each.values[0].get("expect_extras", {})]


def _body(facts: dict[str, Any]) -> bytes:
    file: str = facts["file"]
    return (CORPUS / file).read_bytes()


def _decode(facts: dict[str, Any], chunks: Iterable[bytes]) -> list[Delta]:
    decoder = DECODERS[facts["api"]](LIMIT)
    deltas: list[Delta] = []
    for chunk in chunks:
        deltas += decoder.feed(chunk)
    return deltas + decoder.close()


def _told(deltas: list[Delta]) -> list[object]:
    shown = (repr(delta.error) if isinstance(delta, ErrorDelta) else delta for delta in deltas)
    return [delta for delta in shown if not isinstance(delta, KeepAlive)]


def _collected(facts: dict[str, Any]) -> Collected:
    return collect(_decode(facts, [_body(facts)]))


def _expected(facts: dict[str, Any], name: str) -> Any:
    return facts.get("expect_extras", {}).get(name)


def _same_fields(items: list[Any], expected: list[Any]) -> list[Any]:
    """The items with the fields of the expected ones only: those that the recording has."""
    if len(items) != len(expected):
        return items
    return [
        {name: item.get(name) for name in wanted} if isinstance(wanted, dict) else item
        for item, wanted in zip(items, expected, strict=True)
    ]


def test_all_side_files_say_what_is_derived_from_their_recordings() -> None:
    stale = [facts["file"] for (facts,) in (each.values for each in RECORDINGS) if with_extras(facts) != facts]
    assert stale == []


def test_the_side_files_are_derived_without_any_code_of_ours() -> None:
    sources = list(CORPUS.glob("*.py"))
    assert len(sources) >= 7
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.partition(".")[0] == "penstock"], source.name


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_extras_are_told_in_order(facts: dict[str, Any], name: str) -> None:
    expected = _expected(facts, name) or []
    assert _same_fields(_collected(facts).of(name), expected) == expected


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_text_is_told_in_its_parts(facts: dict[str, Any]) -> None:
    assert _collected(facts).parts == (_expected(facts, "parts") or [])


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_probabilities_come_directly_after_their_text(facts: dict[str, Any]) -> None:
    expected, collected = _expected(facts, "logprobs"), _collected(facts)
    tokens = collected.tokens
    if expected is None:
        assert tokens == []
        return
    assert len(tokens) == expected["count"]
    assert [tokens[0].token, round(tokens[0].logprob, 6)] == expected["first"]
    assert [tokens[-1].token, round(tokens[-1].logprob, 6)] == expected["last"]
    assert round(sum(token.logprob for token in tokens), 6) == expected["sum"]
    assert sum(len(token.top) for token in tokens) == expected["alternatives"]
    if expected["join_to"] is not None:
        assert "".join(token.token for token in tokens) == collected.texts[expected["join_to"]]
        assert collected.late_tokens == 0


@pytest.mark.parametrize("facts", _with("metadata"))
def test_what_a_recording_says_of_the_whole_answer_is_told(facts: dict[str, Any]) -> None:
    expected, told = dict(_expected(facts, "metadata")), _collected(facts).metadata
    ids = _expected(facts, "response_ids")
    if ids:
        assert told["response_id"] in ids
        del expected["response_id"]
    for name in ("timings", "moderation"):
        if name in expected:  # the decoder may tell more
            assert {key: told[name].get(key) for key in expected[name]} == expected.pop(name)
    assert {name: told.get(name) for name in expected} == expected


@pytest.mark.parametrize("facts", _with("usage"))
def test_the_unusual_counts_of_a_recording_are_told(facts: dict[str, Any]) -> None:
    expected, usage = _expected(facts, "usage"), _collected(facts).usage
    assert {name: getattr(usage, name) for name in expected} == expected


@pytest.mark.sample(4)
@pytest.mark.parametrize("facts", RECORDINGS)
def test_the_extras_of_a_recording_are_the_same_however_it_is_cut(facts: dict[str, Any]) -> None:
    body = _body(facts)
    whole = _told(_decode(facts, [body]))
    if len(body) <= BYTE_BY_BYTE_UP_TO:
        assert _told(_decode(facts, (body[at : at + 1] for at in range(len(body))))) == whole
    cuts = random.Random(facts["file"])
    for _ in range(CUTS):
        edges = [0, *sorted(cuts.randrange(len(body) + 1) for _ in range(cuts.choice((1, 40)))), len(body)]
        assert _told(_decode(facts, (body[start:end] for start, end in itertools.pairwise(edges)))) == whole


@pytest.mark.sample(3)
@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recording_cut_short_tells_a_beginning_of_the_same_extras(facts: dict[str, Any]) -> None:
    body = _body(facts)
    whole = _collected(facts)
    cuts = random.Random(facts["file"])
    ends = [*(cuts.randrange(len(body)) for _ in range(ENDS)), max(0, len(body) - 3)]
    for end in ends:
        cut = collect(_decode(facts, [body[:end]]))
        assert [_cut_at(cut.written, each) for each in whole.order[: len(cut.order)]] == cut.order
        assert _begins(whole.spans, cut.spans)
        assert set(cut.metadata) <= set(whole.metadata)
        assert all(whole.texts[kind].startswith(text) for kind, text in cut.texts.items())


def _cut_at(written: int, each: tuple[str, Any]) -> tuple[str, Any]:
    """What is told of it if the answer ends after ``written`` characters: a citation ends with the text."""
    name, item = each
    if name == "citations" and item["span"] and item["span"][0] < written < item["span"][1]:
        return name, {**item, "span": [item["span"][0], written]}
    return each


def _begins(whole: list[dict[str, Any]], cut: list[dict[str, Any]]) -> bool:
    """Whether the spans of a cut answer are those of the whole one; the last of each kind may be shorter."""
    last = {span["kind"]: span for span in cut}
    return len(cut) <= len(whole) and all(
        {**full, "end": None} == {**span, "end": None}
        and (span["end"] == full["end"] or (span is last[span["kind"]] and span["end"] < full["end"]))
        for full, span in zip(whole, cut, strict=False)
    )


def test_the_corpus_has_extras_of_every_kind() -> None:
    least = {"citations": 9, "server_tools": 17, "media": 4, "logprobs": 4, "reasoning_blocks": 26, "parts": 6}
    assert {name: len(_with(name)) for name in least} == least
    assert {facts["api"] for (facts,) in (each.values for each in _with("metadata"))} == set(DECODERS) - {"gemini-json"}
