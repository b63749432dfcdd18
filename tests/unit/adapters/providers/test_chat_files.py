"""Files and sounds in OpenAI's form, as providers with forms of their own are told."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.adapters.providers.anthropic.request import messages_body
from penstock.adapters.providers.chat_calls import to_chat_call
from penstock.adapters.providers.gemini.request import gemini_body
from penstock.adapters.providers.ollama.request import ollama_body
from penstock.errors import OptionError
from penstock.ports import ChatCall

PDF = "data:application/pdf;base64,QQ=="
FILES: list[tuple[dict[str, Any], Any, Any]] = [
    (
        {"filename": "a.pdf", "file_data": PDF},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "QQ=="},
            "title": "a.pdf",
        },
        {"inlineData": {"mimeType": "application/pdf", "data": "QQ=="}},
    ),
    (
        {"file_data": "QQ=="},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "QQ=="}},
        {"inlineData": {"mimeType": "application/pdf", "data": "QQ=="}},
    ),
    (
        {"filename": "a.txt", "file_data": "w6Q="},
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "ä"},
            "title": "a.txt",
        },
        {"inlineData": {"mimeType": "text/plain", "data": "w6Q="}},
    ),
    (
        {"file_data": "data:image/png;base64,QQ=="},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}},
        {"inlineData": {"mimeType": "image/png", "data": "QQ=="}},
    ),
    (
        {"file_url": "https://a.example/b.pdf?x=1"},
        {"type": "document", "source": {"type": "url", "url": "https://a.example/b.pdf?x=1"}},
        {"fileData": {"fileUri": "https://a.example/b.pdf?x=1", "mimeType": "application/pdf"}},
    ),
    (
        {"file_data": "https://[a"},
        {"type": "document", "source": {"type": "url", "url": "https://[a"}},
        {"fileData": {"fileUri": "https://[a"}},
    ),
]


@pytest.mark.parametrize("place", ["file", "input_file", "item"])
@pytest.mark.parametrize(("file", "block", "part"), FILES)
def test_a_file_in_openais_form_is_one_in_the_providers(place: str, file: Any, block: Any, part: Any) -> None:
    given = {"type": "file", "file": file} if place == "file" else {"type": "input_file", **file}
    call = ChatCall(model="m", input=[{"role": "user", "content": [given]}])
    call = to_chat_call(call) if place == "item" else call
    assert messages_body(call)["messages"][0]["content"] == [block]
    assert gemini_body(call)["contents"][0]["parts"] == [part]


@pytest.mark.parametrize("make", [messages_body, gemini_body, ollama_body])
@pytest.mark.parametrize("file", [{"file_id": "file-1"}, {}, {"file_data": ""}, {"file_data": "data:x"}])
def test_a_file_that_openai_keeps_is_refused_elsewhere(make: Any, file: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as raised:
        make(ChatCall(model="m", input=[{"role": "user", "content": [{"type": "input_file", **file}]}]))
    assert raised.value.field in ("file", "file_data")
    assert "file-1" not in str(raised.value)


def test_text_that_is_none_is_refused() -> None:
    file = {"type": "file", "file": {"filename": "a.txt", "file_data": "/w=="}}
    with pytest.raises(OptionError, match="UTF-8"):
        messages_body(ChatCall(model="m", input=[{"role": "user", "content": [file]}]))


def test_sounds_reach_gemini() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "mp3"}}
    made = gemini_body(ChatCall(model="m", input=[{"role": "user", "content": [sound]}]))
    assert made["contents"][0]["parts"] == [{"inlineData": {"mimeType": "audio/mp3", "data": "QQ=="}}]


def test_files_that_ollama_does_not_take_are_refused_and_pictures_are_not() -> None:
    def sent(part: dict[str, Any]) -> Any:
        return ollama_body(ChatCall(model="m", input=[{"role": "user", "content": [part]}]))["messages"][0]

    picture = {"type": "input_file", "file_data": "data:image/png;base64,QQ=="}
    assert sent(picture)["images"] == ["QQ=="]
    for part in ({"type": "file", "file": {"file_data": PDF}}, {"type": "input_audio", "input_audio": {}}):
        with pytest.raises(OptionError, match="text and images only"):
            sent(part)
