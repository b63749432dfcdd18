"""OpenAI's Responses API, and the servers that speak it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from penstock.adapters.providers.openai.account import OpenAiAccount
from penstock.adapters.providers.openai.responses_decoder import ResponsesDecoder
from penstock.adapters.providers.openai.responses_request import responses_body
from penstock.config.options import RequestOptions
from penstock.ports import ChatCall, Decoder, ProviderRequest

__all__ = ["OpenAiResponses"]


class OpenAiResponses(OpenAiAccount):
    """Implements `Provider` for ``POST {base_url}/responses``; see `OpenAiAccount` for keys and headers.

    ``ChatCall.input`` is the API's ``input``, or chat messages, which are converted to it.
    """

    name = "openai-responses"

    def request(self, call: ChatCall) -> ProviderRequest:
        """Build the request. A resumable call asks for a response that runs in the background and is stored.

        Raises:
            OptionError: there is no key for OpenAI's own URL, or a parameter is not allowed or cannot be encoded.
        """
        return self._endpoint.request("responses", responses_body(call))

    def decoder(self, options: RequestOptions) -> ResponsesDecoder:
        """Make a decoder for one response."""
        return ResponsesDecoder(options.max_event_bytes, options.raw)

    def resume(self, decoder: Decoder) -> tuple[ProviderRequest, ResponsesDecoder] | None:
        """Build the request for everything after ``decoder``'s last event, and the decoder that continues there.

        ``decoder`` must not be fed any more, and all deltas that it returned must have been processed.

        Returns:
            None if the response does not run in the background, is over, or has not begun.
        """
        if not isinstance(decoder, ResponsesDecoder) or (point := decoder.resume_point) is None:
            return None
        response_id, sequence = point
        return self._kept(response_id, starting_after=str(sequence)), decoder.resumed()

    def kept_as(self, metadata: Mapping[str, Any]) -> str | None:
        """The id of a response that runs in the background; others are not kept while they run."""
        response_id = metadata.get("response_id")
        return response_id if metadata.get("background") is True and isinstance(response_id, str) else None

    def replay(self, name: str) -> ProviderRequest:
        """Build the request for all events of the response with that id.

        Raises:
            OptionError: there is no key for OpenAI's own URL.
        """
        return self._kept(name)

    def _kept(self, response_id: str, **query: str) -> ProviderRequest:
        path = f"responses/{quote(response_id, safe='')}"
        return self._endpoint.get(path, {"stream": "true", **query}, accept="text/event-stream")
