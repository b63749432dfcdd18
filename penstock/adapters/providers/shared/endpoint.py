"""Where a provider is and how a request to it is built: URL, headers, key, JSON body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from penstock.config.checks import STARS, Options
from penstock.config.settings import Settings
from penstock.errors import OptionError
from penstock.ports import ProviderRequest, Secret

__all__ = ["OPENAI_URL", "Endpoint"]

OPENAI_URL = "https://api.openai.com/v1"
_JSON = "application/json"


class Endpoint:
    """Where to send requests, and with which key. The key's text is in none of its attributes' reprs.

    Args:
        api_key: None or empty sends none, which only ``home`` refuses.
        base_url: where requests go; paths are appended.
        home: the provider's own URL, where a key is a must.
        key_header: the header that carries the key, and what stands before it there.
        key_variable: where the provider's users usually have the key.
        headers: more of them, sent with every request, in the place of ours (the key's too) where they have the same
            name; one that is a `Secret` is shown nowhere.
        query: goes behind every URL's ``?`` (Azure's ``api-version``).
    """

    def __init__(
        self,
        api_key: Secret | None,
        base_url: str,
        *,
        home: str = OPENAI_URL,
        key_header: tuple[str, str] = ("Authorization", "Bearer "),
        key_variable: str = "OPENAI_API_KEY",
        organization: str | None = None,
        project: str | None = None,
        headers: Mapping[str, str | Secret] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> None:
        self.base_url = _checked_url(base_url)
        self._query = dict(query or {})
        self._key = _checked_key(api_key)
        self._home = home
        self._key_header = key_header
        self._key_variable = key_variable
        self._headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if organization:
            self._headers["OpenAI-Organization"] = organization
        if project:
            self._headers["OpenAI-Project"] = project
        self._more_secrets: dict[str, Secret] = {}
        given = {name.lower() for name in headers or {}}
        self._has_own_key = key_header[0].lower() in given
        self._headers = {name: value for name, value in self._headers.items() if name.lower() not in given}
        for name, value in (headers or {}).items():
            if isinstance(value, Secret):
                self._more_secrets[name] = value
            else:
                self._headers[name] = value
        _check_headers({**self._headers, **{name: value.reveal() for name, value in self._more_secrets.items()}})

    def request(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> ProviderRequest:
        """Build the POST of ``body`` as JSON, with ``headers`` of this one request where there are any.

        Raises:
            OptionError: the key is missing where it cannot be, or a value of ``body`` cannot be JSON.
        """
        for name, value in body.items():  # msgspec would write them as JSON
            if isinstance(value, (Options, Settings)):
                raise OptionError(name, type(value), "a parameter of the request; ours go in options, request_options")
        if headers:
            _check_headers(headers)
        return ProviderRequest(
            url=self._url(path, {}),
            body=_encoded(body),
            headers={**self._headers, **headers} if headers else self._headers,
            secret_headers=self._secrets(),
        )

    def get(self, path: str, query: Mapping[str, str] | None = None, accept: str = _JSON) -> ProviderRequest:
        """Build the GET of ``path``, with ``query`` behind it.

        Raises:
            OptionError: the key is missing where it cannot be.
        """
        headers = {name: value for name, value in self._headers.items() if name != "Content-Type"}
        return ProviderRequest(
            url=self._url(path, query or {}),
            body=b"",
            method="GET",
            headers={**headers, "Accept": accept},
            secret_headers=self._secrets(),
        )

    def _url(self, path: str, query: Mapping[str, str]) -> str:
        words = urlencode({**self._query, **query})
        return f"{self.base_url}/{path}" + (("&" if "?" in path else "?") + words if words else "")

    def _secrets(self) -> dict[str, Secret]:
        if self._key is not None and not self._has_own_key:
            name, before = self._key_header
            return {name: Secret(before + self._key.reveal()), **self._more_secrets}
        if self._more_secrets or self._has_own_key:
            return self._more_secrets
        if urlsplit(self.base_url).hostname == urlsplit(self._home).hostname:
            raise OptionError("api_key", None, f"a key of {self._home}; set {self._key_variable} or give api_key")
        return {}


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not (name.isascii() and name.isprintable() and value.isascii() and value.isprintable()):
            raise OptionError("headers", name, "names and values of printable ASCII")


def _checked_url(base_url: str) -> str:
    allowed = "an http:// or https:// URL without user, query or fragment"
    if any(mark in base_url for mark in "@?#"):
        raise OptionError("base_url", STARS, allowed)  # there may be a password or a key in it
    if any(char <= " " or char == "\x7f" for char in base_url):
        raise OptionError("base_url", base_url, allowed)
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        raise OptionError("base_url", base_url, allowed) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise OptionError("base_url", base_url, allowed)
    return base_url.rstrip("/")


def _checked_key(key: Secret | None) -> Secret | None:
    if key is None or not key:
        return None
    text = key.reveal()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise OptionError("api_key", key, "printable ASCII without blanks or line ends (pasted with its newline?)")
    return key


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, RecursionError):
        pass
    for name, value in body.items():  # say which; never show it, it may be what the user wrote to the model
        try:
            msgspec.json.encode(value)
        except (TypeError, ValueError, RecursionError):
            raise OptionError(name, type(value), "what can be written as JSON") from None
    raise OptionError("parameters", type(body), "what can be written as JSON")
