"""A provider's endpoint: base URL, headers and key, from which requests are built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from penstock.adapters.providers.shared.body import encode_body
from penstock.config.checks import STARS, Options
from penstock.config.logs import get_logger
from penstock.config.providers import KnownProvider
from penstock.config.settings import Settings
from penstock.errors import OptionError
from penstock.ports import ProviderRequest, Secret

__all__ = ["Endpoint"]

_JSON = "application/json"
_EVENT_STREAM = "text/event-stream"
_PATHS = ("/chat/completions", "/responses", "/messages", "/chat")
"""Paths that are appended to a base URL, and that users copy with it. ``/chat`` counts after ``/api`` only."""
_MOST_SAID = 1000
_said: set[str] = set()  # base URLs that were corrected, and are in the log


class Endpoint:
    """Builds requests to one base URL. No attribute's repr contains the key.

    Args:
        api_key: None or empty sends none, which is refused at the home URL of ``known`` if that needs a key.
        base_url: where requests go; paths are appended.
        known: its home URL may need a key; the error for a missing one names it.
        key_header: the header that carries the key, and the text before the key in it.
        dialect_headers: sent with every request, for instance the API's version.
        headers: the user's own, sent with every request. They replace others of the same name, also the key's. A
            `Secret` among them is shown nowhere.
        query: appended to every URL after ``?`` (Azure's ``api-version``).

    Raises:
        OptionError: the URL, the key or a header is malformed.
    """

    def __init__(
        self,
        api_key: Secret | None,
        base_url: str,
        *,
        known: KnownProvider,
        key_header: tuple[str, str] = ("Authorization", "Bearer "),
        dialect_headers: Mapping[str, str] | None = None,
        headers: Mapping[str, str | Secret] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> None:
        self.base_url = _checked_url(base_url)
        self._query = dict(query or {})
        self._key = _checked_key(api_key)
        self._known = known
        self._key_header = key_header
        given = {name.lower() for name in headers or {}}
        self._has_own_key = key_header[0].lower() in given
        defaults = {"Content-Type": _JSON, "Accept": _EVENT_STREAM, **(dialect_headers or {})}
        self._headers = {name: value for name, value in defaults.items() if name.lower() not in given}
        self._own_secrets: dict[str, Secret] = {}
        for name, value in (headers or {}).items():
            if isinstance(value, Secret):
                self._own_secrets[name] = value
            else:
                self._headers[name] = value
        _check_headers({**self._headers, **{name: value.reveal() for name, value in self._own_secrets.items()}})

    def request(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> ProviderRequest:
        """Build the POST of ``body`` as JSON; ``headers`` are added to this request only.

        Raises:
            OptionError: the key is missing where one is needed, or a value of ``body`` cannot be encoded as JSON.
        """
        for name, value in body.items():  # msgspec would encode them
            if isinstance(value, (Options, Settings)):
                kind = type(value).__name__
                message = f"{name}: {kind} is not a request parameter. Pass it as options= or request_options=."
                raise OptionError(name, type(value), "a parameter of the request", message=message)
        if headers:
            _check_headers(headers)
        return ProviderRequest(
            url=self._url(path, {}),
            body=encode_body(body),
            headers={**self._headers, **headers} if headers else self._headers,
            secret_headers=self._secret_headers(),
        )

    def get(self, path: str, query: Mapping[str, str] | None = None, accept: str = _JSON) -> ProviderRequest:
        """Build the GET of ``path`` with ``query``.

        Raises:
            OptionError: the key is missing where one is needed.
        """
        headers = {name: value for name, value in self._headers.items() if name != "Content-Type"}
        return ProviderRequest(
            url=self._url(path, query or {}),
            body=b"",
            method="GET",
            headers={**headers, "Accept": accept},
            secret_headers=self._secret_headers(),
        )

    def _url(self, path: str, query: Mapping[str, str]) -> str:
        encoded = urlencode({**self._query, **query})
        return f"{self.base_url}/{path}" + (("&" if "?" in path else "?") + encoded if encoded else "")

    def _secret_headers(self) -> dict[str, Secret]:
        if self._key is not None and not self._has_own_key:
            name, prefix = self._key_header
            return {name: Secret(prefix + self._key.reveal()), **self._own_secrets}
        if not self._own_secrets and not self._has_own_key:
            self._check_key_is_optional()
        return self._own_secrets

    def _check_key_is_optional(self) -> None:
        known = self._known
        if known.needs_key and urlsplit(self.base_url).hostname == urlsplit(known.home_url).hostname:
            message = f"No API key for {known.account or known.name}. Set {known.key_variables[0]} or pass api_key=."
            raise OptionError("api_key", None, f"a key for {known.home_url}", message=message)


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not (name.isascii() and name.isprintable() and value.isascii() and value.isprintable()):
            raise OptionError("headers", name, "names and values of printable ASCII")


def _checked_url(base_url: str) -> str:
    allowed = "an http:// or https:// URL without user, query or fragment"
    if "?" in base_url:
        raise OptionError("base_url", STARS, f"{allowed}; a query is passed as query= of the provider")
    if any(mark in base_url for mark in "@?#"):
        raise OptionError("base_url", STARS, allowed)  # it may contain a password or a key
    if any(char <= " " or char == "\x7f" for char in base_url):
        raise OptionError("base_url", base_url, allowed)
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        raise OptionError("base_url", base_url, allowed) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise OptionError("base_url", base_url, allowed)
    trimmed = trim_base_url(base_url)
    if trimmed != base_url.rstrip("/") and base_url not in _said and len(_said) < _MOST_SAID:
        _said.add(base_url)
        get_logger().warning("base_url_ends_in_a_path", base_url=base_url, used=trimmed)
    return trimmed


def trim_base_url(base_url: str) -> str:
    """Remove the path of a request from the end of a base URL, to which it would be appended again.

    >>> trim_base_url("https://h/v1/chat/completions/")
    'https://h/v1'
    """
    base_url = base_url.rstrip("/")
    for path in _PATHS:
        before = base_url.removesuffix(path)
        if before != base_url and (path != "/chat" or before.endswith("/api")) and urlsplit(before).netloc:
            return before.rstrip("/")
    return base_url


def _checked_key(key: Secret | None) -> Secret | None:
    if key is None or not key:
        return None
    text = key.reveal()
    if not text.isascii() or not text.isprintable() or " " in text:
        allowed = "printable ASCII without spaces or line breaks (was it pasted with a newline?)"
        raise OptionError("api_key", key, allowed)
    return key
