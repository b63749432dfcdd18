"""OpenAI's chat completions, and every compatible server."""

from __future__ import annotations

from penstock.adapters.providers.openai.account import OpenAiAccount
from penstock.adapters.providers.openai.chat_decoder import ChatDecoder
from penstock.adapters.providers.openai.chat_request import chat_body
from penstock.config.options import RequestOptions
from penstock.ports import ChatCall, ProviderRequest

__all__ = ["OpenAiChat"]


class OpenAiChat(OpenAiAccount):
    """Implements `Provider` for ``POST {base_url}/chat/completions``; see `OpenAiAccount` for keys and headers."""

    name = "openai"

    def request(self, call: ChatCall) -> ProviderRequest:
        """Build the request. It asks for usage unless the parameter ``stream_options`` is None.

        Raises:
            OptionError: there is no key for OpenAI's own URL, or a parameter is not allowed or cannot be encoded.
        """
        return self._endpoint.request("chat/completions", chat_body(call))

    def decoder(self, options: RequestOptions) -> ChatDecoder:
        """Make a decoder for one response."""
        return ChatDecoder(options.max_event_bytes, options.raw)
