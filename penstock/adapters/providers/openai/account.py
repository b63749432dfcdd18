"""What OpenAI's two dialects have in common, at OpenAI and elsewhere: URL and key, models, limits, errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from penstock.adapters.providers.shared.endpoint import OPENAI_URL, Endpoint
from penstock.adapters.providers.shared.errors import error_answer
from penstock.adapters.providers.shared.json_values import decode_json, text_of, without_halves
from penstock.adapters.providers.shared.rate_limits import quota_of
from penstock.errors import OptionError, ProtocolError, ProviderError
from penstock.ports import ChatCall, ProviderRequest, Quota, Secret

__all__ = ["OpenAiAccount"]

_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")


class OpenAiAccount:
    """Implements what is the same in both of OpenAI's `Provider`: all but `request`, `decoder` and resuming.

    Without a key none is sent, as local servers like it; OpenAI's own URL then refuses in `request`. Azure's hosts get
    the key as ``api-key``, all others as ``Authorization: Bearer``.

    Args:
        api_key: the key; None or empty is none.
        base_url: up to and with ``/v1``.
        organization: sent as ``OpenAI-Organization``.
        project: sent as ``OpenAI-Project``.
        headers: more of them, which may replace these; a `Secret` among them is shown nowhere.
        query: goes behind every URL's ``?``, as older Azure resources want their ``api-version``.
    """

    def __init__(
        self,
        api_key: Secret | None,
        base_url: str = OPENAI_URL,
        *,
        organization: str | None = None,
        project: str | None = None,
        headers: Mapping[str, str | Secret] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> None:
        self._endpoint = Endpoint(
            api_key,
            base_url,
            key_header=("api-key", "") if _is_azure(base_url) else ("Authorization", "Bearer "),
            organization=organization,
            project=project,
            headers=headers,
            query=query,
        )

    @property
    def base_url(self) -> str:
        """Where requests go, without a slash at its end."""
        return self._endpoint.base_url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url})"

    def models_request(self, page: str | None = None) -> ProviderRequest:
        """The GET request for the list of models, or for what follows the model ``page``.

        Raises:
            OptionError: there is no key for OpenAI's own URL.
        """
        return self._endpoint.get("models", {} if page is None else {"after": page})

    def models(self, body: bytes) -> tuple[list[str], str | None]:
        """Read the list, in the forms that OpenAI and those who are compatible give it; servers rarely cut it.

        Raises:
            ProtocolError: it is no list of models.
        """
        try:
            payload: Any = decode_json(body.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            raise ProtocolError("the list of models is no JSON") from None
        about = payload if isinstance(payload, dict) else {}
        listed = about.get("data", about.get("models", payload))  # "models" as Ollama and llama.cpp have it
        if not isinstance(listed, list):  # Together sends the list alone
            raise ProtocolError("the answer holds no list of models")
        names = [name for each in listed if (name := _model_name(each))]
        is_cut = about.get("has_more") is True and bool(names)
        return names, (without_halves(text_of(about.get("last_id"))) or names[-1]) if is_cut else None

    def quota(self, headers: Mapping[str, str]) -> Quota | None:
        """Read the ``x-ratelimit-…`` headers; None: nothing is told."""
        return quota_of(headers)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Map an HTTP error answer to a typed error."""
        return error_answer(status, headers, body)

    def _body(self, call: ChatCall, field: str, value: object, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The request's body: the model, what is said to it in ``field``, and the parameters as they are."""
        for name in ("model", field):
            if name in parameters:
                raise OptionError(name, type(parameters[name]), "given once, not as a parameter too")
        body = {"model": call.model, field: value, "stream": True, **parameters}
        if body["stream"] is not True:
            raise OptionError("stream", body["stream"], "True")
        return body


def _is_azure(base_url: str) -> bool:
    try:
        host = urlsplit(base_url).hostname or ""
    except ValueError:  # `Endpoint` refuses it in its own words
        return False
    return host.endswith(_AZURE_HOSTS)


def _model_name(listed: object) -> str:
    """A model's name as requests want it: an entry's ``id``, else its ``name``, or the entry itself."""
    if isinstance(listed, dict):
        listed = text_of(listed.get("id")) or text_of(listed.get("name")) or text_of(listed.get("model"))
    return without_halves(text_of(listed))
