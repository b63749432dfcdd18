"""OpenAI's Responses API, and the servers that speak it."""

from __future__ import annotations

from urllib.parse import quote

from penstock.adapters.providers.openai.account import OpenAiAccount
from penstock.adapters.providers.openai.responses_decoder import ResponsesDecoder
from penstock.adapters.providers.openai.responses_request import to_input, to_parameters
from penstock.config.options import RequestOptions
from penstock.ports import ChatCall, Decoder, ProviderRequest

__all__ = ["OpenAiResponses", "ResponsesDecoder"]


class OpenAiResponses(OpenAiAccount):
    """Implements `Provider` for ``POST {base_url}/responses``; see `OpenAiAccount` for keys and headers.

    ``ChatCall.input`` is the API's ``input``, or chat messages, which are turned into that.
    """

    name = "openai-responses"

    def request(self, call: ChatCall) -> ProviderRequest:
        """Build the request. A resumable one is for a response that runs in the background and is stored.

        Raises:
            OptionError: there is no key for OpenAI's own URL, or a parameter is not allowed or cannot be JSON.
        """
        parameters = to_parameters(call.parameters)
        if call.resumable:
            parameters = {"background": True, "store": True, **parameters}
        # What a response that is not stored has thought is known by its encrypted text only.
        said = to_input(call.input, is_stored=parameters.get("store") is not False)
        return self._endpoint.request("responses", self._body(call, "input", said, parameters))

    def decoder(self, options: RequestOptions) -> ResponsesDecoder:
        """A fresh decoder for one response."""
        return ResponsesDecoder(options.max_event_bytes)

    def resume(self, decoder: Decoder) -> tuple[ProviderRequest, ResponsesDecoder] | None:
        """The request for what follows all that ``decoder`` has told, and the decoder that goes on from there.

        None: the response does not run in the background, is over, or has not begun. ``decoder`` must not be fed any
        more, and everything it has told must have been taken.
        """
        point = decoder.resume_point if isinstance(decoder, ResponsesDecoder) else None
        if point is None or not isinstance(decoder, ResponsesDecoder):
            return None
        response_id, sequence = point
        query = {"stream": "true", "starting_after": str(sequence)}
        request = self._endpoint.get(f"responses/{quote(response_id, safe='')}", query, accept="text/event-stream")
        return request, decoder.resumed()
