"""OpenAI's Responses API, and the servers that speak it."""

from __future__ import annotations

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
        query = {"stream": "true", "starting_after": str(sequence)}
        request = self._endpoint.get(f"responses/{quote(response_id, safe='')}", query, accept="text/event-stream")
        return request, decoder.resumed()
