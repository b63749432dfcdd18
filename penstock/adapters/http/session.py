"""The requests session that all threads of a reader share."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import requests
from requests.cookies import RequestsCookieJar

from penstock.adapters.http.connection import CancellableAdapter

__all__ = ["SharedSession"]


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None  # otherwise `send` reads a redirect's whole body to prepare the next request, even if unasked


class SharedSession:
    """The one `requests.Session` of all threads, without the work that a session repeats for each request."""

    def __init__(self, connections: int) -> None:
        self._session = _Session()
        self._session.cookies = _NoCookies()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, CancellableAdapter(connections))
        self._settings: dict[tuple[str, str, bool | str], dict[str, Any]] = {}

    def __call__(
        self, prepared: requests.PreparedRequest, timeout: tuple[float, float], verify: bool | str
    ) -> requests.Response:
        """Send a request; return once the response's headers are there. Implements `Transport`."""
        url = prepared.url or ""
        parts = urlsplit(url)
        origin = (parts.scheme, parts.netloc, verify)
        settings = self._settings.get(origin)
        if settings is None:
            # Reads a dozen environment variables and, on some systems, the registry: 50–100 µs.
            settings = dict(self._session.merge_environment_settings(url, {}, True, verify, None))
            self._settings[origin] = settings
        return self._session.send(prepared, timeout=timeout, allow_redirects=False, **settings)

    def close(self) -> None:
        self._session.close()


class _NoCookies(RequestsCookieJar):
    """A cookie jar that stays empty: requests of different users share the session."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        return
