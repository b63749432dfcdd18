"""What Gemini says besides text and calls: probabilities, parts that go back, counts, metadata, unknown fields."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from penstock.actors.agent.history import Round
from penstock.actors.call.answer import OutcomeBuilder
from penstock.adapters.providers.gemini.decoder import GeminiDecoder
from penstock.adapters.providers.gemini.provider import Gemini
from penstock.config.options import Raw
from penstock.events import (
    Citation,
    Logprobs,
    MediaPart,
    ProviderEvent,
    ReasoningBlock,
    ServerToolResult,
    TokenLogprob,
    Usage,
)
from penstock.ports import (
    BlockDelta,
    BlockStart,
    ChatCall,
    Delta,
    ErrorDelta,
    EventDelta,
    FinishDelta,
    MetadataDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    Secret,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)
from tests.unit.adapters.providers.common import nested, telling_depths

CODE = {"executableCode": {"language": "PYTHON", "code": "1"}}
RAN = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}
PICTURE = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}


def chunk(*parts: Any, finish: str | None = None, **others: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts)}} | others
    return {"candidates": [candidate | ({"finishReason": finish} if finish else {})]}


def body(*chunks: Any) -> bytes:
    return b"".join(b"data: %s\r\n\r\n" % json.dumps(one).encode() for one in chunks)


def decode(*chunks: Any, size: int = 1_000_000, raw: Raw = "none") -> tuple[GeminiDecoder, list[Delta]]:
    decoder, deltas, data = GeminiDecoder(1_000_000, raw), [], body(*chunks)
    for start in range(0, len(data), size):
        deltas += decoder.feed(data[start : start + size])
    return decoder, deltas + decoder.close()


def metadata(*chunks: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for delta in decode(*chunks)[1]:
        values |= delta.values if isinstance(delta, MetadataDelta) else {}
    return values


def usages(*chunks: Any) -> list[Usage]:
    return [delta.usage for delta in decode(*chunks)[1] if isinstance(delta, UsageDelta)]


# --- probabilities -------------------------------------------------------------------------------------------------


def chosen(*tokens: tuple[str, float], tops: Any = ()) -> dict[str, Any]:
    return {
        "chosenCandidates": [{"token": token, "tokenId": 7, "logProbability": value} for token, value in tokens],
        "topCandidates": [
            {"candidates": [{"token": token, "logProbability": value} for token, value in top]} for top in tops
        ],
    }


def test_probabilities_come_directly_after_their_text() -> None:
    first = chosen(("He", -0.5), ("llo", -1), tops=[[("He", -0.5), ("Hi", -2.5)], []])
    last = chosen((" you", -0.25), tops=[[(" you", -0.25)]])
    _, deltas = decode(
        chunk({"text": "Hello"}, logprobsResult=first),
        chunk({"text": " you"}, finish="STOP", logprobsResult=last, avgLogprobs=-0.6),
    )
    assert deltas == [
        TextDelta("Hello"),
        EventDelta(
            Logprobs(
                tokens=(
                    TokenLogprob(token="He", logprob=-0.5, top=(("He", -0.5), ("Hi", -2.5))),
                    TokenLogprob(token="llo", logprob=-1.0),
                )
            )
        ),
        TextDelta(" you"),
        EventDelta(Logprobs(tokens=(TokenLogprob(token=" you", logprob=-0.25, top=((" you", -0.25),)),))),
        FinishDelta("stop", "STOP"),
        MetadataDelta({"avg_logprobs": -0.6}),
    ]


def test_zeros_and_empty_texts_that_google_leaves_out_are_there() -> None:
    tokens = {"chosenCandidates": [{"token": "a"}, {"tokenId": 1, "logProbability": -1}, {"token": "\ud83d"}]}
    _, deltas = decode(chunk({"text": "a"}), chunk({"text": "b"}, logprobsResult=tokens))
    (event,) = [delta.event for delta in deltas if isinstance(delta, EventDelta)]
    assert isinstance(event, Logprobs)
    assert [(each.token, each.logprob) for each in event.tokens] == [("a", 0.0), ("", -1.0), ("\ufffd", 0.0)]


NO_OBJECT: tuple[Any, ...] = (5, "x", [], True)
NO_LIST: tuple[Any, ...] = (5, "x", {}, True)
NO_TOKEN: tuple[Any, ...] = (None, 5, "x", [], {}, {"token": 5})
NO_NUMBER: tuple[Any, ...] = ("-1", True, None, [], {})
NO_TOPS: tuple[Any, ...] = ([], [None], [5], [{"candidates": 5}], [{"candidates": [None, {}, {"token": 5}]}])


@pytest.mark.parametrize(
    ("value", "count", "skipped"),
    [
        *((odd, 0, 1) for odd in NO_OBJECT),
        *(({"chosenCandidates": odd}, 0, 1) for odd in NO_LIST),
        *(({"chosenCandidates": [odd, {"token": "a"}]}, 1, 1) for odd in NO_TOKEN),
        *(({"chosenCandidates": [{"token": "a", "logProbability": odd}]}, 0, 1) for odd in NO_NUMBER),
        *(({"chosenCandidates": [{"token": "a"}], "topCandidates": odd}, 1, 1) for odd in NO_LIST),
        *(({"chosenCandidates": [{"token": "a"}], "topCandidates": odd}, 1, 0) for odd in NO_TOPS),
        ({}, 0, 0),
        (None, 0, 0),
    ],
)
def test_probabilities_that_are_none_are_counted(value: Any, count: int, skipped: int) -> None:
    decoder, deltas = decode(chunk({"text": "a"}), chunk({"text": "b"}, finish="STOP", logprobsResult=value))
    events = [delta.event for delta in deltas if isinstance(delta, EventDelta)]
    assert sum(len(event.tokens) for event in events if isinstance(event, Logprobs)) == count
    assert not any(token.top for event in events if isinstance(event, Logprobs) for token in event.tokens)
    assert decoder.skipped == skipped
    assert deltas[-1] == FinishDelta("stop", "STOP")


@pytest.mark.parametrize("number", ["1e400", "-Infinity", "NaN", '"-Infinity"'])
def test_a_logarithm_that_is_no_number_is_counted(number: str) -> None:
    tokens = f'{{"chosenCandidates":[{{"token":"a","logProbability":{number}}},{{"token":"b"}}]}}'
    data = f'data: {{"candidates":[{{"content":{{"parts":[{{"text":"ab"}}]}},"logprobsResult":{tokens}}}]}}\n\n'
    decoder = GeminiDecoder(1_000_000)
    assert decoder.feed(data.encode()) == [
        TextDelta("ab"),
        EventDelta(Logprobs(tokens=(TokenLogprob(token="b", logprob=0.0),))),
    ]
    assert decoder.skipped == 1


def test_probabilities_of_other_answers_are_no_events() -> None:
    other = chunk({"text": "b"}, logprobsResult=chosen(("b", -1)), avgLogprobs=-1)
    other["candidates"][0]["index"] = 1
    assert not any(isinstance(delta, (EventDelta, MetadataDelta)) for delta in decode(other)[1])


# --- parts that go back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    [
        CODE,
        CODE | {"thoughtSignature": "s"},
        RAN,
        {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "id": "a", "args": {"queries": ["q"]}}, "thoughtSignature": "s"},
        {"toolResponse": {"toolType": "GOOGLE_SEARCH_WEB", "id": "a", "response": {}}, "thoughtSignature": "s"},
        PICTURE | {"thoughtSignature": "s"},
        {"fileData": {"fileUri": "gs://f", "mimeType": "x/y"}, "thoughtSignature": "s"},
    ],
)
def test_parts_of_googles_tools_and_signed_ones_go_back_as_they_came(part: dict[str, Any]) -> None:
    decoder, deltas = decode(chunk({"text": "a"}), chunk(part), chunk({"text": "b"}))
    assert [delta.data for delta in deltas if isinstance(delta, BlockDelta)] == [part]
    assert isinstance(deltas[1], EventDelta)
    assert deltas[2:] == [BlockDelta(part), BlockStart("text"), TextDelta("b")]
    assert decoder.skipped == 0


@pytest.mark.parametrize("part", [PICTURE, {"fileData": {"fileUri": "gs://f"}}, {"text": "a"}, {"text": ""}])
def test_other_parts_do_not_go_back(part: dict[str, Any]) -> None:
    assert not any(isinstance(delta, BlockDelta) for delta in decode(chunk(part), chunk(part, finish="STOP"))[1])


def test_a_call_has_its_signature_itself() -> None:
    call = {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "s"}
    assert decode(chunk(call))[1] == [ToolCallFragment(index=0, name="f", arguments="{}", signature="s")]


def test_all_signatures_of_an_answer_go_back_in_order() -> None:
    thought = {"text": "hm", "thought": True, "thoughtSignature": "1"}
    said = {"text": "a", "thoughtSignature": "2"}
    bare = {"thoughtSignature": "4", "thought": False}
    decoder, deltas = decode(chunk(thought, said), chunk(CODE, RAN), chunk({"text": "b"}, bare, finish="STOP"))
    assert [delta for delta in deltas if not isinstance(delta, EventDelta)] == [
        ReasoningDelta("hm"),
        ReasoningBlockDelta(ReasoningBlock(kind="thought", text="hm", signature="1")),
        BlockDelta(thought),
        TextDelta("a"),
        ReasoningBlockDelta(ReasoningBlock(kind="thought", signature="2")),
        BlockDelta(said),
        BlockDelta(CODE),
        BlockDelta(RAN),
        BlockStart("text"),
        TextDelta("b"),
        ReasoningBlockDelta(ReasoningBlock(kind="thought", signature="4")),
        BlockDelta(bare | {"text": ""}),
        FinishDelta("stop", "STOP"),
    ]
    assert decoder.skipped == 0


def test_a_signed_part_that_is_not_understood_goes_back_and_is_counted() -> None:
    part = {"newThing": {"x": 1}, "thoughtSignature": "s"}
    for raw, count in (("none", 0), ("unknown", 1)):
        decoder, deltas = decode(chunk(part), raw=raw)  # type: ignore[arg-type]
        events = [delta.event for delta in deltas if isinstance(delta, EventDelta)]
        assert events == [ProviderEvent(type="newThing", payload=part)] * count
        assert deltas[-1] == BlockDelta(part)
        assert decoder.skipped == 1


def test_parts_of_other_answers_do_not_go_back() -> None:
    other = chunk({"text": "b", "thoughtSignature": "s"}, CODE, RAN)
    other["candidates"][0]["index"] = 1
    assert not any(isinstance(delta, (BlockDelta, ReasoningBlockDelta, EventDelta)) for delta in decode(other)[1])


def test_a_part_that_goes_back_can_be_written_as_json() -> None:
    odd = {"executableCode": {"code": "\ud83d", "x\udce9": 1}, "thoughtSignature": "s\ud83d"}
    (block,) = [delta for delta in decode(chunk(odd))[1] if isinstance(delta, BlockDelta)]
    assert block.data == {"executableCode": {"code": "\ufffd", "x\ufffd": 1}, "thoughtSignature": "s\ufffd"}


@pytest.mark.parametrize("field", ["executableCode", "codeExecutionResult", "toolCall", "toolResponse", "newThing"])
def test_a_part_nested_too_deeply_is_counted_or_goes_back_whole(field: str) -> None:
    for depth in telling_depths():
        part = f'{{"{field}":{{"response":{nested(depth)}}},"thoughtSignature":"s"}}'
        data = f'data: {{"candidates":[{{"content":{{"parts":[{part}]}}}}]}}\n\n'
        decoder = GeminiDecoder(4_000_000)
        deltas = decoder.feed(data.encode())
        for delta in deltas:
            if isinstance(delta, BlockDelta):
                json.dumps(delta.data)
        assert any(isinstance(delta, BlockDelta) for delta in deltas) or decoder.skipped


NO_SIGNATURE: tuple[Any, ...] = (5, True, [], {})


@pytest.mark.parametrize(
    ("part", "skipped"),
    [
        *(({"text": "a", "thoughtSignature": odd}, 1) for odd in NO_SIGNATURE),
        ({"text": "a", "thoughtSignature": ""}, 0),
        ({"text": "a", "thoughtSignature": None}, 0),
        ({"text": "a", "thought": "yes"}, 0),
    ],
)
def test_a_signature_that_is_none_is_counted(part: dict[str, Any], skipped: int) -> None:
    decoder, deltas = decode(chunk(part))
    assert deltas == [TextDelta("a")]
    assert decoder.skipped == skipped


@pytest.mark.parametrize("text", [None, 5, True, [], {}])
def test_a_text_that_is_none_hides_nothing_else_in_the_part(text: object) -> None:
    decoder, deltas = decode(chunk({"text": text}), chunk({"text": text} | PICTURE))
    assert deltas == [EventDelta(MediaPart(kind="image", mime="image/png", data="aGk="))]
    assert decoder.skipped == 1


@pytest.mark.parametrize("value", [None, 5, "x", [], True])
@pytest.mark.parametrize(
    "field", ["executableCode", "codeExecutionResult", "toolCall", "toolResponse", "inlineData", "fileData", "new"]
)
def test_the_content_of_a_part_that_is_none_is_counted(field: str, value: object) -> None:
    decoder, deltas = decode(chunk({"text": "a"}), chunk({field: value}))
    assert deltas == [TextDelta("a")]
    assert decoder.skipped == 1


@pytest.mark.parametrize("odd", [5, "x", [], True])
@pytest.mark.parametrize("name", ["id", "toolType", "args", "response", "outcome", "output"])
def test_any_field_of_a_tool_may_be_odd(name: str, odd: object) -> None:
    for field in ("executableCode", "codeExecutionResult", "toolCall", "toolResponse"):
        _, deltas = decode(chunk({field: {name: odd}}))
        assert [type(delta) for delta in deltas] == [EventDelta, BlockDelta]
        json.dumps([delta.data for delta in deltas if isinstance(delta, BlockDelta)])


# --- pictures ------------------------------------------------------------------------------------------------------


def test_pictures_between_texts_separate_them() -> None:
    _, deltas = decode(chunk({"text": "a"}), chunk(PICTURE), chunk({"text": "b"}))
    picture = EventDelta(MediaPart(kind="image", mime="image/png", data="aGk="))
    assert deltas == [TextDelta("a"), picture, BlockStart("text"), TextDelta("b")]


def test_a_picture_of_a_thought_is_a_preview() -> None:
    (delta,) = decode(chunk(PICTURE | {"thought": True}))[1]
    assert delta == EventDelta(MediaPart(kind="image", mime="image/png", data="aGk=", is_partial=True))


def test_the_words_of_a_sound_go_with_it() -> None:
    sound = {"inlineData": {"mimeType": "audio/wav", "data": "aA=="}, "audioTranscription": {"text": "Hello"}}
    (delta,) = decode(chunk(sound))[1]
    assert delta == EventDelta(MediaPart(kind="audio", mime="audio/wav", data="aA==", transcript="Hello"))


def test_a_result_without_an_output_is_told_whole() -> None:
    _, deltas = decode(chunk({"codeExecutionResult": {"outcome": "OUTCOME_FAILED"}}))
    event = deltas[0].event if isinstance(deltas[0], EventDelta) else None
    assert isinstance(event, ServerToolResult)
    assert (event.output, event.status, event.is_error) == ({"outcome": "OUTCOME_FAILED"}, "OUTCOME_FAILED", True)


# --- counts --------------------------------------------------------------------------------------------------------

COUNTS = {"promptTokenCount": 100, "candidatesTokenCount": 10, "totalTokenCount": 110}
DETAILS = {
    "promptTokensDetails": [
        {"modality": "TEXT", "tokenCount": 10},
        {"modality": "AUDIO", "tokenCount": 20},
        {"modality": "IMAGE", "tokenCount": 30},
        {"modality": "VIDEO", "tokenCount": 35},
        {"modality": "DOCUMENT", "tokenCount": 5},
    ],
    "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 9}, {"modality": "AUDIO"}],
    "cacheTokensDetails": [{"modality": "VIDEO", "tokenCount": 35}],
    "toolUsePromptTokensDetails": [{"modality": "TEXT", "tokenCount": 700}],
}


def test_counts_by_modality_are_told_and_the_others_are_in_the_metadata() -> None:
    counts = COUNTS | DETAILS | {"cachedContentTokenCount": 35, "toolUsePromptTokenCount": 700, "thoughtsTokenCount": 3}
    last = chunk({"text": "a"}, finish="STOP") | {"usageMetadata": counts | {"serviceTier": "flex", "newCount": 1}}
    assert usages(last) == [
        Usage(
            input_tokens=100,
            output_tokens=10,
            total_tokens=110,
            reasoning_tokens=3,
            cached_tokens=35,
            tool_input_tokens=700,
            audio_input_tokens=20,
            image_input_tokens=30,
            audio_output_tokens=0,
            image_output_tokens=9,
            service_tier="flex",
        )
    ]
    assert metadata(last) == {"usage_details": DETAILS | {"newCount": 1}}


NO_TIER: tuple[Any, ...] = (None, 5, "", "x" * 65, [], {})


@pytest.mark.parametrize(
    ("given", "tier"),
    [
        ({"serviceTier": "standard"}, "standard"),
        ({"trafficType": "ON_DEMAND"}, "ON_DEMAND"),
        ({"trafficType": "ON_DEMAND_FLEX"}, "flex"),
        ({"trafficType": "ON_DEMAND_PRIORITY"}, "priority"),
        ({"trafficType": "PROVISIONED_THROUGHPUT"}, "PROVISIONED_THROUGHPUT"),
        ({"trafficType": "ON_DEMAND", "serviceTier": "flex"}, "flex"),
        *(({name: odd}, None) for name in ("serviceTier", "trafficType") for odd in NO_TIER),
    ],
)
def test_the_tier_is_that_of_vertex_too(given: dict[str, Any], tier: str | None) -> None:
    (usage,) = usages(chunk({"text": "a"}) | {"usageMetadata": COUNTS | given})
    assert usage == Usage(input_tokens=100, output_tokens=10, total_tokens=110, service_tier=tier)


def test_later_counts_do_not_erase_the_details() -> None:
    first = chunk({"text": "a"}) | {"usageMetadata": COUNTS | DETAILS | {"serviceTier": "flex"}}
    bare = chunk({"text": "b"}) | {"usageMetadata": {"trafficType": "ON_DEMAND"}}
    grown = chunk({"text": "c"}) | {"usageMetadata": COUNTS | {"candidatesTokenCount": 20}}
    told = usages(first, first | {"promptFeedback": {}}, bare, first, grown, grown)
    assert [usage.output_tokens for usage in told] == [10, 20]
    assert {(usage.audio_input_tokens, usage.image_output_tokens, usage.service_tier) for usage in told} == {
        (20, 9, "flex"),
    }


def test_counts_without_a_total_are_told_too() -> None:
    chunks = [chunk({"text": "a"}) | {"usageMetadata": {"candidatesTokenCount": count}} for count in (1, 2, 2, 3)]
    assert [usage.output_tokens for usage in usages(*chunks)] == [1, 2, 3]


@pytest.mark.parametrize("name", [*COUNTS, *DETAILS])
@pytest.mark.parametrize("odd", [None, True, -1, 1.5, 10**30, "7", [], [None], [5], [{}], [{"modality": []}], {}])
def test_a_count_that_is_none_is_not_reported(name: str, odd: object) -> None:
    plain = {"thoughtsTokenCount": 3}
    for chunks in ([chunk({"text": "a"})], [chunk({"text": "a"}), chunk({"text": "a"})]):
        chunks[-1]["usageMetadata"] = plain | {name: odd}
        assert usages(*chunks) == [Usage(reasoning_tokens=3)]


@pytest.mark.parametrize("odd", [5, "x", [], True])
def test_counts_that_are_no_object_are_counted(odd: object) -> None:
    decoder, deltas = decode(chunk({"text": "a"}), chunk({"text": "b"}) | {"usageMetadata": odd})
    assert deltas == [TextDelta("a"), TextDelta("b")]
    assert decoder.skipped == 1


# --- the answer as a whole -----------------------------------------------------------------------------------------

RATINGS = [{"category": "HARM", "probability": "LOW", "blocked": True}]


def test_what_is_said_of_the_whole_answer_can_be_read() -> None:
    first = chunk({"text": "a"}) | {
        "responseId": "r1",
        "createTime": "2026-01-01T00:00:00Z",
        "modelVersion": "gemini-x",
        "modelStatus": {"modelStage": "PREVIEW"},
        "promptFeedback": {"safetyRatings": RATINGS},
    }
    last = chunk(finish="SAFETY", finishMessage="No.", safetyRatings=RATINGS, avgLogprobs=-2)
    decoder, deltas = decode(first, chunk({"text": "b"}) | {"responseId": "r1"}, last, last)
    assert [delta.values for delta in deltas if isinstance(delta, MetadataDelta)] == [
        {
            "response_id": "r1",
            "create_time": "2026-01-01T00:00:00Z",
            "model_status": {"modelStage": "PREVIEW"},
            "prompt_feedback": {"safetyRatings": RATINGS},
        },
        {"finish_message": "No.", "moderation": {"safetyRatings": RATINGS}, "avg_logprobs": -2},
    ]
    assert (decoder.model, decoder.skipped) == ("gemini-x", 0)


def test_the_first_response_gives_what_all_of_them_repeat() -> None:
    """An answer that is cut off has it too."""
    one = chunk({"text": "a"}) | {"responseId": "r1", "modelVersion": "m", "usageMetadata": COUNTS | DETAILS}
    decoder, deltas = decode(one)
    assert MetadataDelta({"response_id": "r1", "usage_details": DETAILS}) in deltas
    assert decoder.model == "m"


OF_CHUNK = ("responseId", "createTime", "modelVersion", "modelStatus", "promptFeedback", "usageMetadata", "candidates")
OF_CANDIDATE = (
    *("finishMessage", "safetyRatings", "avgLogprobs", "finishReason", "index", "content", "logprobsResult"),
    *("groundingMetadata", "citationMetadata", "urlContextMetadata"),
)


@pytest.mark.parametrize("name", [*OF_CHUNK, *OF_CANDIDATE])
def test_a_field_of_another_type_is_counted_and_a_missing_or_null_one_is_not(name: str) -> None:
    values: tuple[Any, ...] = (5, [5], "x", {"x": 1}, True)
    for odd in values:
        fine = {"createTime": str, "responseId": str, "modelVersion": str, "finishMessage": str, "finishReason": str}
        kind: Any = fine.get(name, dict)
        kind = {"safetyRatings": list, "candidates": list, "avgLogprobs": int, "index": int}.get(name, kind)
        if isinstance(odd, kind) and odd is not True:
            continue
        given: dict[str, Any] = {name: odd}
        first = chunk({"text": "b"}) | given if name in OF_CHUNK else chunk({"text": "b"}, **given)
        decoder, deltas = decode(first, chunk({"text": "a"}))
        assert decoder.skipped == 1, odd
        assert not any(isinstance(delta, (MetadataDelta, EventDelta)) for delta in deltas)
    first = chunk({"text": "b"}) | {name: None} if name in OF_CHUNK else chunk({"text": "b"}, **{name: None})
    decoder, _ = decode(first, chunk({"text": "a"}))
    assert decoder.skipped == 0


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("finish_message", "finishMessage", "x" * 4_097),
        ("moderation", "safetyRatings", [{"x": "y" * 16_384}]),
        ("grounding", "groundingMetadata", {"searchEntryPoint": {"renderedContent": "y" * 16_384}}),
    ],
)
def test_a_value_that_is_too_long_is_left_out_and_counted(name: str, field: str, value: Any) -> None:
    decoder, deltas = decode(chunk({"text": "a"}, **{field: value}), chunk({"text": "a"}, **{field: value}))
    assert deltas == [TextDelta("a"), TextDelta("a")]
    assert decoder.skipped == 1
    assert name not in metadata(chunk({"text": "a"}, **{field: value}))


def test_metadata_nested_too_deeply_is_left_out() -> None:
    for depth in telling_depths():
        for field in ("safetyRatings", "groundingMetadata", "urlContextMetadata"):
            value = {"safetyRatings": f"[{nested(depth)}]", "groundingMetadata": nested(depth)}.get(
                field, f'{{"urlMetadata":[{{"retrievedUrl":"u","x":{nested(depth)}}}]}}'
            )
            data = f'data: {{"candidates":[{{"content":{{"parts":[{{"text":"a"}}]}},"{field}":{value}}}]}}\n\n'
            decoder = GeminiDecoder(4_000_000)
            deltas = decoder.feed(data.encode() * 2)
            told = [delta.values for delta in deltas if isinstance(delta, MetadataDelta)]
            json.dumps(told)
            assert len(told) == 1 or (depth > 100 and decoder.skipped)


def test_half_a_character_in_metadata_is_replaced() -> None:
    assert metadata(chunk({"text": "a"}, finishMessage="\ud83d") | {"responseId": "r\ud83d"}) == {
        "response_id": "r\ufffd",
        "finish_message": "\ufffd",
    }


# --- unknown fields ------------------------------------------------------------------------------------------------


def test_unknown_fields_are_no_surprise_but_can_be_asked_for() -> None:
    part = {"text": "b", "partMetadata": {"p": 1}}
    chunks = [chunk({"text": "a"}, tokenCount=3) | {"newTop": 1}, chunk(part, newCandidate=[2]) | {"newTop": "\ud83d"}]
    decoder, deltas = decode(*chunks)
    assert deltas == [TextDelta("a"), TextDelta("b")]
    assert decoder.skipped == 0
    decoder, deltas = decode(*chunks, raw="unknown")
    assert [(delta.event.type, delta.event.payload) for delta in deltas if isinstance(delta, EventDelta)] == [  # type: ignore[union-attr]
        *(("tokenCount", 3), ("newTop", 1)),
        *(("partMetadata", {"p": 1}), ("newCandidate", [2]), ("newTop", "\ufffd")),
    ]
    assert [delta for delta in deltas if not isinstance(delta, EventDelta)] == [TextDelta("a"), TextDelta("b")]
    assert decoder.skipped == 0


@pytest.mark.parametrize("size", [20, 1_000_000])
def test_unknown_fields_of_every_response_can_be_asked_for(size: int) -> None:
    _, deltas = decode(*(chunk({"text": "a"}) | {"newTop": number} for number in range(3)), size=size, raw="unknown")
    told = [delta.event for delta in deltas if isinstance(delta, EventDelta)]
    assert told == [ProviderEvent(type="newTop", payload=number) for number in range(3)]


# --- however it is cut ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", ["none", "unknown", "all"])
@pytest.mark.parametrize("size", [1, 7])
def test_all_of_it_is_the_same_however_the_bytes_are_cut(size: int, raw: Raw) -> None:
    chunks = [
        chunk({"text": "hm", "thought": True}) | {"responseId": "r", "modelVersion": "m"},
        chunk({"text": "é🌊", "thoughtSignature": "1"}, logprobsResult=chosen(("é🌊", -1))) | {"usageMetadata": COUNTS},
        chunk(CODE | {"thoughtSignature": "2"}, finish="STOP"),
        chunk(RAN, PICTURE | {"thoughtSignature": "3"}),
        chunk({"text": "b"}) | {"usageMetadata": COUNTS | {"candidatesTokenCount": 20}},
        chunk({"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "4"}),
        chunk({"text": "", "thoughtSignature": "5"}, finish="STOP", finishMessage="ok")
        | {"usageMetadata": COUNTS | DETAILS | {"candidatesTokenCount": 30}},
    ]
    decoder, whole = decode(*chunks, raw=raw)
    assert (decoder.skipped, decoder.finished) == (0, True)
    assert len([delta for delta in whole if isinstance(delta, BlockDelta)]) == 5
    assert decode(*chunks, size=size, raw=raw)[1] == whole
    data = body(*chunks)
    for end in range(0, len(data), 3):
        decoder = GeminiDecoder(1_000_000, raw)
        deltas = decoder.feed(data[:end]) + decoder.close()
        assert deltas == whole[: len(deltas)]
        assert decoder.finished == any(isinstance(delta, FinishDelta) for delta in deltas)


# --- anything ------------------------------------------------------------------------------------------------------

ODD: tuple[Any, ...] = (None, True, -1, 0, 1.5, 3.0, 10**30, "", "STOP", "\ud83d", [], {}, [1], {"x": 1}, [{}], "é🌊")
EVERYTHING = chunk(
    {"text": "hm", "thought": True, "thoughtSignature": "s"},
    {"text": "é🌊", "thoughtSignature": "s"},
    CODE | {"thoughtSignature": "s"},
    RAN,
    {"toolCall": {"toolType": "GOOGLE_MAPS", "id": "a", "args": {}}},
    {"toolResponse": {"toolType": "GOOGLE_MAPS", "id": "a", "response": {"x": 1}}},
    {"functionCall": {"name": "f", "id": "1", "args": {"x": 1}}, "thoughtSignature": "s"},
    {"functionCall": {"name": "f", "partialArgs": [{"jsonPath": "$.a[0]", "stringValue": "x"}], "willContinue": True}},
    PICTURE | {"thoughtSignature": "s", "audioTranscription": {"text": "x"}},
    {"text": "b"},
    finish="STOP",
    finishMessage="x",
    avgLogprobs=-1.5,
    safetyRatings=[{"category": "X"}],
    logprobsResult=chosen(("a", -1), tops=[[("a", -1)]]),
    groundingMetadata={
        "groundingChunks": [{"web": {"uri": "u", "title": "t"}}, {"retrievedContext": {"ragChunk": {"text": "x"}}}],
        "groundingSupports": [
            {
                "segment": {"startIndex": 0, "endIndex": 2, "text": "é", "partIndex": 1},
                "groundingChunkIndices": [0, 1],
                "confidenceScores": [0.5, 1],
            }
        ],
        "webSearchQueries": ["q"],
    },
    citationMetadata={"citationSources": [{"startIndex": 0, "endIndex": 2, "uri": "u"}], "citations": [{"title": "t"}]},
    urlContextMetadata={"urlMetadata": [{"retrievedUrl": "u", "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_SUCCESS"}]},
) | {
    "usageMetadata": COUNTS | DETAILS | {"serviceTier": "x", "trafficType": "y"},
    "promptFeedback": {"safetyRatings": [{}]},
    "modelStatus": {"modelStage": "X"},
    "responseId": "r",
    "createTime": "t",
    "modelVersion": "m",
}


def bent(value: Any, chance: float, dice: random.Random) -> Any:
    """Return ``value`` with something in it that no server sends."""
    if dice.random() < chance:
        return dice.choice(ODD)
    if isinstance(value, dict):
        return {name: bent(each, chance, dice) for name, each in value.items() if dice.random() > chance / 2}
    return [bent(each, chance, dice) for each in value] if isinstance(value, list) else value


@pytest.mark.seeds(3)
def test_whatever_comes_can_be_told_and_what_must_go_back_can_be_sent(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(150):
        chance = dice.choice((0.003, 0.01, 0.04))
        data = body(*(bent(EVERYTHING, chance, dice) for _ in range(3)))
        decoder = GeminiDecoder(4_000_000, dice.choice(("none", "unknown")))
        builder, text = OutcomeBuilder(), ""
        cited: list[Citation] = []
        builder.provider = "gemini"
        for delta in decoder.feed(data) + decoder.close():
            if isinstance(delta, ErrorDelta):
                continue
            msgspec.json.encode(delta)
            if isinstance(delta, BlockStart):
                builder.extras.start_block(delta, len(text), has_said=bool(text))
            cited += (event for event in builder.note(delta, len(text)) or () if isinstance(event, Citation))
            text += delta.text if isinstance(delta, TextDelta) else ""
        outcome = builder.outcome()
        for citation in cited:
            assert (citation.start is None) == (citation.end is None)
            if citation.start is not None and citation.end is not None:
                assert 0 <= citation.start < citation.end <= len(text)
        calls = tuple(call for call in outcome.tool_calls if call.arguments is not None)
        (message, *_) = Round(calls, ("x",) * len(calls), text, (), outcome.provider_blocks).messages()
        call = ChatCall(model="gemini-3", input=[message], provider="gemini")
        (sent, *_) = json.loads(Gemini(Secret("k")).request(call).body)["contents"] or ({"parts": []},)
        answer = [part for part in sent["parts"] if "text" in part and part.get("thought") is not True]
        assert "".join(part["text"] for part in answer) == (text if text.strip() else "")
