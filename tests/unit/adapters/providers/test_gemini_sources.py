"""The sources of Gemini's answers: grounding, recited texts, pages. Places in bytes become places in characters."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.adapters.providers.gemini.decoder import GeminiDecoder
from penstock.events import Citation, FinishReason
from penstock.ports import BlockStart, CitationDelta, Delta, EventDelta, FinishDelta, MetadataDelta, TextDelta
from tests.contract.extras import collect

PAGE = {"web": {"uri": "https://a", "title": "A", "domain": "a.example"}}
OTHER = {"web": {"uri": "https://b", "title": "B"}}


def chunk(*parts: Any, finish: str | None = None, **others: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts)}} | others
    return {"candidates": [candidate | ({"finishReason": finish} if finish else {})]}


def words(*pieces: str) -> list[dict[str, Any]]:
    return [chunk({"text": piece}) for piece in pieces]


def grounding(*supports: Any, chunks: Any = (PAGE, OTHER), **others: Any) -> dict[str, Any]:
    return {"groundingMetadata": {"groundingChunks": list(chunks), "groundingSupports": list(supports), **others}}


def support(start: object, end: object, *indices: object, **segment: object) -> dict[str, Any]:
    places = {name: value for name, value in (("startIndex", start), ("endIndex", end)) if value is not None}
    return {"segment": places | segment, "groundingChunkIndices": list(indices)}


def body(*chunks: Any) -> bytes:
    return b"".join(b"data: %s\r\n\r\n" % json.dumps(one).encode() for one in chunks)


def decode(*chunks: Any, size: int = 1_000_000) -> tuple[GeminiDecoder, list[Delta]]:
    decoder, deltas, data = GeminiDecoder(4_000_000), [], body(*chunks)
    for start in range(0, len(data), size):
        deltas += decoder.feed(data[start : start + size])
    return decoder, deltas + decoder.close()


def cited(*chunks: Any) -> list[Citation]:
    return [delta.citation for delta in decode(*chunks)[1] if isinstance(delta, CitationDelta)]


def spans(*chunks: Any) -> list[tuple[int | None, int | None]]:
    return [(citation.start, citation.end) for citation in cited(*chunks)]


def metadata(*chunks: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for delta in decode(*chunks)[1]:
        values |= delta.values if isinstance(delta, MetadataDelta) else {}
    return values


# --- grounding -----------------------------------------------------------------------------------------------------


def test_each_pair_of_a_place_and_a_source_is_a_citation_and_they_come_before_the_finish() -> None:
    said = grounding(support(None, 2, 0, 1), support(3, 5, 1))
    decoder, deltas = decode(*words("He", "llo"), chunk({"text": ""}, finish="STOP", **said))
    assert deltas == [
        TextDelta("He"),
        TextDelta("llo"),
        *(
            CitationDelta(citation)
            for citation in (
                Citation(
                    kind="url", url="https://a", title="A", start=0, end=2, location={"domain": "a.example", "index": 0}
                ),
                Citation(kind="url", url="https://b", title="B", start=0, end=2, location={"index": 1}),
                Citation(kind="url", url="https://b", title="B", start=3, end=5, location={"index": 1}),
            )
        ),
        FinishDelta("stop", "STOP"),
    ]
    assert decoder.skipped == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"web": {"uri": "u", "title": "t"}}, Citation(kind="url", url="u", title="t")),
        ({"web": {"title": "t"}}, Citation(kind="url", title="t")),
        (
            {"maps": {"uri": "u", "title": "t", "text": "x", "placeId": "places/1"}},
            Citation(kind="url", url="u", title="t", cited_text="x", location={"placeId": "places/1"}),
        ),
        (
            {"image": {"sourceUri": "u", "imageUri": "i", "title": "t", "domain": "d"}},
            Citation(kind="url", url="u", title="t", location={"imageUri": "i", "domain": "d"}),
        ),
        (
            {"retrievedContext": {"text": "x", "fileSearchStore": "s", "pageNumber": 3}},
            Citation(kind="file", cited_text="x", location={"fileSearchStore": "s", "pageNumber": 3}),
        ),
        (
            {"retrievedContext": {"uri": "gs://f", "documentName": "d", "ragChunk": {"text": "x", "pageSpan": {}}}},
            Citation(
                kind="file",
                url="gs://f",
                id="d",
                cited_text="x",
                location={"ragChunk": {"text": "x", "pageSpan": {}}},
            ),
        ),
        ({"new": {"uri": "u\ud83d", "extra": None}}, Citation(kind="url", url="u\ufffd")),
    ],
)
def test_sources_of_all_kinds_are_told(given: Any, expected: Citation) -> None:
    (citation,) = cited(*words("Hello"), chunk(finish="STOP", **grounding(support(0, 5, 0), chunks=[given])))
    assert citation == Citation(
        kind=expected.kind,
        url=expected.url,
        id=expected.id,
        title=expected.title,
        cited_text=expected.cited_text,
        start=0,
        end=5,
        location={**expected.location, "index": 0},
    )


def test_the_confidence_of_a_source_goes_with_it() -> None:
    said = {**support(0, 1, 0, 1), "confidenceScores": [0.9, "much"]}
    assert [each.location.get("confidence") for each in cited(chunk({"text": "a"}, **grounding(said)))] == [0.9, None]


def test_what_grounding_says_besides_is_metadata() -> None:
    said = grounding(support(0, 1, 1), webSearchQueries=["q"], searchEntryPoint={"renderedContent": "<b>"}, empty=[])
    assert metadata(chunk({"text": "a"}, finish="STOP", **said)) == {
        "grounding": {"webSearchQueries": ["q"], "searchEntryPoint": {"renderedContent": "<b>"}},
        "uncited_sources": [PAGE],
    }
    assert metadata(chunk({"text": "a"}, **grounding()), chunk(**grounding(support(0, 1, 0, 1)))) == {
        "uncited_sources": []
    }


def test_sources_that_are_repeated_are_told_once() -> None:
    first = grounding(support(0, 2, 0))
    longer = grounding(support(0, 2, 0), support(2, 4, 1), support(2, 4, 1))
    assert spans(chunk({"text": "ab"}, **first), chunk({"text": "cd"}, **longer), chunk(**longer)) == [(0, 2), (2, 4)]


def test_supports_may_come_after_their_sources() -> None:
    later = {"groundingMetadata": {"groundingSupports": [support(0, 2, 1)]}}
    (citation,) = cited(chunk({"text": "ab"}, **grounding()), chunk(finish="STOP", **later))
    assert (citation.url, citation.start, citation.end) == ("https://b", 0, 2)


def test_a_support_without_a_place_is_a_citation_all_the_same() -> None:
    assert spans(chunk({"text": "ab"}, **grounding({"groundingChunkIndices": [0]}))) == [(None, None)]


# --- places --------------------------------------------------------------------------------------------------------

TEXT = "é – 🌊 ß!"  # 2, 1, 3, 1, 4, 1, 2 and 1 bytes


def test_places_in_bytes_become_places_in_characters() -> None:
    encoded = [0, *(len(TEXT[:end].encode()) for end in range(1, len(TEXT) + 1))]
    said = [support(start, end, 0) for start in encoded for end in encoded if start < end]
    expected = [(start, end) for start in range(len(encoded)) for end in range(start + 1, len(encoded))]
    assert spans(*words(*TEXT), chunk(finish="STOP", **grounding(*said))) == expected
    assert spans(*words(TEXT), chunk(finish="STOP", **grounding(*said))) == expected


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 0),
        (None, None),
        (0, 16),
        (0, 10**30),
        (-1, 2),
        (2, 1),
        (15, 16),
        (1, 3),  # in the middle of a character
        (0, 4),
        ("0", 2),
        (0, "2"),
        (0.5, 2),
        (True, 2),
        ([], {}),
        (0, True),
    ],
)
def test_a_place_that_is_none_of_the_text_is_none(start: object, end: object) -> None:
    decoder, deltas = decode(*words(TEXT), chunk(finish="STOP", **grounding(support(start, end, 0))))
    (citation,) = [delta.citation for delta in deltas if isinstance(delta, CitationDelta)]
    assert (citation.start, citation.end, citation.url) == (None, None, "https://a")
    assert decoder.skipped == 0


def test_a_place_may_be_a_whole_number_with_a_point() -> None:
    assert spans(*words("abc"), chunk(**grounding(support(1.0, 3.0, 0)))) == [(1, 3)]


def test_halves_of_a_character_in_two_events_count_as_one() -> None:
    halves = b"".join(
        b'data: {"candidates":[{"content":{"parts":[{"text":"%s"}]}}]}\n\n' % each
        for each in (b"a", b"\\ud83c", b"\\udf0a", b"b\\ud83d", b"c")
    )
    said = body(
        chunk({"text": "d"}, **grounding(support(1, 5, 0), support(5, 6, 0), support(6, 9, 0), support(10, 11, 0)))
    )
    decoder = GeminiDecoder(1_000_000)
    collected = collect(decoder.feed(halves + said) + decoder.close())
    assert collected.texts["text"] == "a🌊b\ufffdcd"
    found = [each["span"] for each in collected.of("citations")]
    assert [collected.texts["text"][start:end] for start, end in found] == ["🌊", "b", "\ufffd", "d"]


def test_thoughts_do_not_count() -> None:
    thought = {"text": "Let me search.", "thought": True}
    said = grounding(
        support(0, 2, 0, text="It"), support(3, 5, 0, partIndex=1, text="is"), support(6, 9, 0, text="so.")
    )
    assert spans(chunk(thought), chunk(thought, {"text": "It is so."}, finish="STOP", **said)) == [
        *((0, 2), (3, 5), (6, 9)),
    ]


CODE = {"executableCode": {"language": "PYTHON", "code": "1"}}
RAN = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}


def placed(*chunks: Any) -> list[Any]:
    collected = collect(decode(*chunks)[1])
    found = [each["span"] for each in collected.of("citations")]
    return [span if span is None else collected.texts["text"][span[0] : span[1]] for span in found]


def test_with_code_between_texts_the_words_say_which_text_is_meant() -> None:
    said = grounding(
        support(0, 8, 0, text="Lét me "),
        support(0, 6, 0, text="It is "),  # counted in the second text
        support(13, 19, 1, text="It is "),  # counted in both
        support(6, 10, 0, text="sø."),
        support(6, 9, 0, text="søx"),  # nowhere
        support(0, 4, 1, text="what"),
        support(0, 3, 0),
    )
    chunks = [*words("Lét me ", "see: "), chunk(CODE), chunk(RAN), *words("It is ", "sø.")]
    assert placed(*chunks, chunk(finish="STOP", **said)) == ["Lét me ", "It is ", "It is ", "sø.", None, None, "Lé"]


def test_in_a_single_text_the_places_count_even_if_the_words_differ() -> None:
    assert placed(*words("Hello"), chunk(**grounding(support(0, 2, 0, text="HE")))) == ["He"]


def test_the_span_is_counted_from_the_present_block() -> None:
    said = grounding(support(0, 1, 0, text="a"), support(2, 3, 0, text="c"))
    chunks = [*words("ab"), chunk(CODE), chunk(RAN), *words("cd"), chunk(finish="STOP", **said)]
    deltas = decode(*chunks)[1]
    assert BlockStart("text") in deltas
    assert spans(*chunks) == [(-2, -1), (0, 1)]
    assert placed(*chunks) == ["a", "c"]


# --- recited texts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["citationSources", "citations"])
def test_recited_texts_are_cited(name: str) -> None:
    sources = [
        {"startIndex": 2, "endIndex": 5, "uri": "u", "license": "mit"},
        {"endIndex": 2, "title": "T", "publicationDate": {"year": 2020}},
        {"startIndex": 110, "endIndex": 239, "uri": "far"},
    ]
    first, second, far = cited(*words("hé", "llo"), chunk(citationMetadata={name: sources}))
    assert first == Citation(kind="url", url="u", start=None, end=None, location={"license": "mit"})
    assert second == Citation(
        kind="document", title="T", start=None, end=None, location={"publicationDate": {"year": 2020}}
    )
    assert (far.url, far.start, far.end) == ("far", None, None)
    first, second, _ = cited(*words("he", "llo"), chunk(citationMetadata={name: sources}))
    assert (first.start, first.end, second.start, second.end) == (2, 5, 0, 2)


def test_places_in_text_that_has_not_come_yet_are_none() -> None:
    source = {"startIndex": 0, "endIndex": 4, "uri": "u"}
    assert spans(chunk({"text": "ab"}, citationMetadata={"citationSources": [source]}), *words("cd")) == [(None, None)]


# --- pages ---------------------------------------------------------------------------------------------------------


def pages(*urls: tuple[str, str]) -> dict[str, Any]:
    listed = [{"retrievedUrl": url, "urlRetrievalStatus": f"URL_RETRIEVAL_STATUS_{status}"} for url, status in urls]
    return {"urlContextMetadata": {"urlMetadata": listed}}


def test_pages_that_were_read_are_cited_once_and_all_of_them_are_in_the_metadata() -> None:
    read = pages(("https://p", "SUCCESS"), ("https://q", "ERROR"), ("https://r", "PAYWALL"), ("https://p", "SUCCESS"))
    last = chunk({"text": "a"}, finish="STOP", **read)
    assert cited(chunk({"text": "x"}, **read), last) == [Citation(kind="url", url="https://p")]
    assert metadata(last) == {"url_context": read["urlContextMetadata"]["urlMetadata"]}


def test_a_page_that_the_grounding_names_is_not_cited_again() -> None:
    read = pages(("https://a", "SUCCESS"), ("https://p", "SUCCESS"))
    assert [each.url for each in cited(chunk({"text": "a"}, **grounding(support(0, 1, 0)), **read))] == [
        *("https://a", "https://p"),
    ]


# --- odd ones ------------------------------------------------------------------------------------------------------


NO_OBJECT: tuple[Any, ...] = (5, "x", [], True)
NO_LIST: tuple[Any, ...] = (5, "x", {}, True)
NO_ITEM: tuple[Any, ...] = (None, 5, "x", [])
NOTHING: tuple[Any, ...] = (None, {})
PLACES = ("groundingMetadata", "citationMetadata", "urlContextMetadata")


@pytest.mark.parametrize(
    ("name", "value", "skipped"),
    [
        *((name, value, 1) for name in PLACES for value in NO_OBJECT),
        *((name, value, 0) for name in PLACES for value in NOTHING),
        *(("groundingMetadata", {"groundingChunks": value}, 1) for value in NO_LIST),
        *(("groundingMetadata", {"groundingSupports": value}, 1) for value in NO_LIST),
        *(("groundingMetadata", {"groundingSupports": [value]}, 1) for value in NO_ITEM),
        *(("citationMetadata", {"citationSources": value}, 1) for value in NO_LIST),
        *(("citationMetadata", {"citations": [value]}, 1) for value in (*NO_ITEM, {}, {"uri": 5})),
        *(("urlContextMetadata", {"urlMetadata": value}, 1) for value in NO_LIST),
        *(("urlContextMetadata", {"urlMetadata": [value]}, 1) for value in (*NO_ITEM, {}, {"retrievedUrl": 5})),
    ],
)
def test_values_that_are_none_are_counted_and_the_answer_goes_on(name: str, value: Any, skipped: int) -> None:
    decoder, deltas = decode(*words("a"), chunk({"text": "b"}, finish="STOP", **{name: value}))
    deltas = [delta for delta in deltas if not isinstance(delta, MetadataDelta)]
    assert deltas == [TextDelta("a"), TextDelta("b"), FinishDelta("stop", "STOP")]
    assert decoder.skipped == skipped


@pytest.mark.parametrize("index", [None, -1, 2, 10**30, 0.5, "0", True, [], {}])
def test_an_index_of_no_source_is_counted(index: object) -> None:
    decoder, deltas = decode(*words("ab"), chunk(**grounding(support(0, 1, index, 0))))
    assert sum(isinstance(delta, CitationDelta) for delta in deltas) == 1
    assert decoder.skipped == 1


@pytest.mark.parametrize(
    "given", [None, 5, [], {}, {"web": None}, {"web": {}}, {"web": []}, {"new": {}}, {"web": {"uri": 5, "title": []}}]
)
def test_a_source_that_is_none_is_counted(given: object) -> None:
    decoder, deltas = decode(*words("ab"), chunk(**grounding(support(0, 1, 0), chunks=[given])))
    assert not any(isinstance(delta, CitationDelta) for delta in deltas)
    assert decoder.skipped == 1


@pytest.mark.parametrize("segment", [5, "x", [], True])
def test_a_place_that_is_no_object_is_counted(segment: object) -> None:
    decoder, deltas = decode(*words("ab"), chunk(**grounding({"segment": segment, "groundingChunkIndices": [0]})))
    assert [delta.citation.start for delta in deltas if isinstance(delta, CitationDelta)] == [None]
    assert decoder.skipped == 1


def test_there_are_so_many_citations_and_no_more() -> None:
    said = grounding(*(support(at, at + 1, 0, 1) for at in range(3_000)))
    decoder, deltas = decode(*words("a" * 3_000), chunk(finish="STOP", **said))
    assert sum(isinstance(delta, CitationDelta) for delta in deltas) == 4_096
    assert decoder.skipped == 3_000 - 2_048
    assert deltas[-1] == FinishDelta("stop", "STOP")


def test_a_source_that_is_named_twice_for_a_place_is_one() -> None:
    assert [each.url for each in cited(chunk({"text": "a"}, **grounding(support(0, 1, 0, 0, 1, 0))))] == [
        *("https://a", "https://b"),
    ]


def test_very_long_lists_of_sources_are_not_told_again_as_uncited() -> None:
    for count, is_told in ((1_000, True), (1_001, False)):
        listed = [{"web": {"uri": f"{number}"}} for number in range(count)]
        decoder, deltas = decode(chunk({"text": "a"}, **grounding(support(0, 1, 0), chunks=listed)))
        assert [type(delta) for delta in deltas] == [TextDelta, CitationDelta]  # 1,000 are longer than the metadata
        assert decoder.skipped == is_told


def test_sources_of_other_answers_are_no_events() -> None:
    other = chunk({"text": "b"}, **grounding(support(0, 1, 0)))
    other["candidates"][0]["index"] = 1
    decoder, deltas = decode(*words("a"), other)
    assert not any(isinstance(delta, (CitationDelta, EventDelta, MetadataDelta)) for delta in deltas)
    assert decoder.skipped == 0


@pytest.mark.parametrize("size", [1, 7, 64])
def test_sources_are_the_same_however_the_bytes_are_cut(size: int) -> None:
    said = grounding(support(0, 2, 0, text="é"), support(3, 7, 1), webSearchQueries=["q"]) | pages(("p", "SUCCESS"))
    chunks = [*words("é ", "🌊"), chunk(CODE), chunk(RAN), *words("x"), chunk({"text": ""}, finish="STOP", **said)]
    whole = decode(*chunks)[1]
    assert len([delta for delta in whole if isinstance(delta, CitationDelta)]) == 3
    assert decode(*chunks, size=size)[1] == whole
    data = body(*chunks)
    for end in range(0, len(data), 5):
        decoder = GeminiDecoder(1_000_000)
        deltas = decoder.feed(data[:end]) + decoder.close()
        assert deltas == whole[: len(deltas)]


REASONS: dict[str, FinishReason] = {"STOP": "stop", "RECITATION": "content_filter"}


@pytest.mark.parametrize("raw", REASONS)
def test_sources_come_with_any_finish(raw: str) -> None:
    deltas = decode(
        *words("ab"), chunk(finish=raw, citationMetadata={"citationSources": [{"endIndex": 1, "uri": "u"}]})
    )[1]
    assert deltas[-2:] == [CitationDelta(Citation(kind="url", url="u", start=0, end=1)), FinishDelta(REASONS[raw], raw)]
