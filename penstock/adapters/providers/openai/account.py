"""What both of OpenAI's dialects share, at OpenAI and elsewhere: URL and key, models, rate limits, errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from penstock.adapters.providers.shared.endpoint import Endpoint
from penstock.adapters.providers.shared.errors import error_response
from penstock.adapters.providers.shared.json_values import decode_json, text_of
from penstock.adapters.providers.shared.rate_limits import parse_quota
from penstock.adapters.providers.shared.surrogates import replace_surrogates
from penstock.config.providers import KnownProvider, known_provider
from penstock.errors import ProtocolError, ProviderError
from penstock.ports import ProviderRequest, Quota, Secret

__all__ = ["OPENAI_URL", "OpenAiAccount"]

_OPENAI: Final = known_provider("openai")
OPENAI_URL: Final = _OPENAI.home_url
_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")


class OpenAiAccount:
    """Implements what OpenAI's two `Provider` classes share: everything except `request`, `decoder` and resuming.

    Without a key none is sent, as local servers expect; OpenAI's own URL then refuses in `request`. Azure's hosts get
    the key as ``api-key``, all others as ``Authorization: Bearer``.

    Args:
        api_key: the key; None or empty sends none.
        base_url: up to and including ``/v1``.
        known: the known provider that this is; its home URL may need a key.
        organization: sent as ``OpenAI-Organization``.
        project: sent as ``OpenAI-Project``.
        headers: more headers, which replace others of the same name; a `Secret` among them is shown nowhere.
        query: appended to every URL after ``?``; older Azure resources need their ``api-version`` there.

    Raises:
        OptionError: the URL, the key or a header is malformed.
    """

    def __init__(
        self,
        api_key: Secret | None,
        base_url: str = OPENAI_URL,
        *,
        known: KnownProvider = _OPENAI,
        organization: str | None = None,
        project: str | None = None,
        headers: Mapping[str, str | Secret] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> None:
        named = {"OpenAI-Organization": organization, "OpenAI-Project": project}
        self._endpoint = Endpoint(
            api_key,
            base_url,
            known=known,
            key_header=("api-key", "") if _is_azure(base_url) else ("Authorization", "Bearer "),
            dialect_headers={name: value for name, value in named.items() if value},
            headers=headers,
            query=query,
        )

    @property
    def base_url(self) -> str:
        """Where requests go, without a trailing slash."""
        return self._endpoint.base_url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url})"

    def models_request(self, page: str | None = None) -> ProviderRequest:
        """Build the GET request for the list of models, or for the models after ``page``.

        Raises:
            OptionError: there is no key for OpenAI's own URL.
        """
        return self._endpoint.get("models", {} if page is None else {"after": page})

    def models(self, body: bytes) -> tuple[list[str], str | None]:
        """Read the list of models, in OpenAI's form and in those of compatible servers, which rarely send pages.

        Raises:
            ProtocolError: it is not a list of models.
        """
        try:
            payload: Any = decode_json(body.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            raise ProtocolError("the list of models is not JSON") from None
        fields = payload if isinstance(payload, dict) else {}
        entries = fields.get("data", fields.get("models", payload))  # Ollama and llama.cpp call it "models"
        if not isinstance(entries, list):  # Together sends the bare list
            raise ProtocolError("the response contains no list of models")
        names = [name for entry in entries if (name := _model_name(entry))]
        if fields.get("has_more") is not True or not names:
            return names, None
        return names, replace_surrogates(text_of(fields.get("last_id"))) or names[-1]

    def quota(self, headers: Mapping[str, str]) -> Quota | None:
        """Read the ``x-ratelimit-…`` headers; None: there are none."""
        return parse_quota(headers)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Map an HTTP error response to a typed error."""
        return error_response(status, headers, body)


def _is_azure(base_url: str) -> bool:
    try:
        host = urlsplit(base_url).hostname or ""
    except ValueError:  # `Endpoint` refuses it with a better message
        return False
    return host.endswith(_AZURE_HOSTS)


def _model_name(entry: object) -> str:
    """Return a model's name as requests use it: an entry's ``id``, else its ``name``, or the entry itself."""
    if isinstance(entry, dict):
        entry = text_of(entry.get("id")) or text_of(entry.get("name")) or text_of(entry.get("model"))
    return replace_surrogates(text_of(entry))
