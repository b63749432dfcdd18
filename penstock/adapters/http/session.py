"""The requests session that all threads of a reader share."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.cookies import RequestsCookieJar
from requests.utils import select_proxy

from penstock.adapters.http.connection import CancellableAdapter
from penstock.adapters.http.handle import current

__all__ = ["SharedSession", "is_this_machine"]


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
        self._settings: dict[tuple[str, str, bool | str], tuple[dict[str, Any], str]] = {}

    def __call__(
        self, prepared: requests.PreparedRequest, timeout: tuple[float, float], verify: bool | str
    ) -> requests.Response:
        """Send a request; return once the response's headers are there. Implements `Transport`."""
        url = prepared.url or ""
        parts = urlsplit(url)
        origin = (parts.scheme, parts.netloc, verify)
        known = self._settings.get(origin)
        if known is None:
            # Reads a dozen environment variables and, on some systems, the registry: 50–100 µs.
            settings: dict[str, Any] = dict(self._session.merge_environment_settings(url, {}, True, verify, None))
            if is_this_machine(parts.hostname or ""):  # as in Go: a proxy cannot reach it, and must not see the prompt
                settings["proxies"] = {}
            known = self._settings[origin] = settings, _shown(select_proxy(url, settings["proxies"]))
        settings, proxy = known
        if current.handle is not None:
            current.handle.proxy = proxy
        return self._session.send(prepared, timeout=timeout, allow_redirects=False, **settings)

    def close(self) -> None:
        self._session.close()


def is_this_machine(host: str) -> bool:
    """Whether a host is ``localhost`` or a loopback address.

    >>> [is_this_machine(host) for host in ("localhost", "127.8.0.1", "::1", "example.org", "10.0.0.1")]
    [True, True, True, False, False]
    """
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(proxy: str | None) -> str:
    """A proxy's URL without user, password, path and query."""
    if not proxy:
        return ""
    scheme, _, rest = proxy.rpartition("://")
    place = re.split("[/?#]", rest.rpartition("@")[2])[0]
    return f"{scheme}://{place}" if scheme else place


class _NoCookies(RequestsCookieJar):
    """A cookie jar that stays empty: requests of different users share the session."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        return
