"""What a response's status and headers mean, and what of it must not be shown. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from penstock.errors import ApiError, PenstockError, ProtocolError

__all__ = ["Redactor", "host_of", "refusal_of"]

_NOT_A_STREAM = ("text/html", "text/xml", "application/xml", "application/xhtml+xml", "image/", "multipart/")
_USUAL_CODINGS = ("gzip", "x-gzip", "deflate")
_PACKAGES = {"br": "brotli", "zstd": "zstandard"}
"""What urllib3 needs for a content coding."""
_SHORTEST_SECRET = 4
"""Shorter keys ("x", "key") are not replaced: they are not secret, and replacing them would garble the text."""
_SHORTEST_PREFIX = 8
_STARS = "***"


def refusal_of(
    status: int, headers: Mapping[str, str], host: str, codings: Collection[str] = _USUAL_CODINGS
) -> PenstockError | None:
    """Return the error for a response that is not an event stream; None: it may be one.

    Args:
        status: below 400; the provider itself maps the others.
        headers: found by their names in lower case.
        host: named in the error.
        codings: the content codings that can be decoded.
    """
    if not 200 <= status < 300:
        location = headers.get("location")
        if status < 300 or location is None:
            return ApiError(status, "unexpected status")
        target = host_of(location)
        return ApiError(status, f"redirects are not followed{f' (to {target})' if target else ''}", code="redirect")
    if "," in headers.get("content-encoding", ""):  # each coding may expand what the previous one returned
        return ProtocolError(f"{host} sent several content codings at once")
    coding = headers.get("content-encoding", "").strip().lower()
    if coding and coding not in {"identity", *codings}:
        package = _PACKAGES.get(coding)
        hint = f"; install the package {package} to read it" if package else ""
        return ProtocolError(f"{host} sent the content coding {coding!r}, which cannot be decoded here{hint}")
    content_type = headers.get("content-type", "").lower()
    if content_type.startswith(_NOT_A_STREAM):
        return ProtocolError(f"{host} sent {content_type.partition(';')[0]} instead of an event stream")
    return None


def host_of(url: str) -> str:
    """Return a URL's host and port without the user; ``""`` if it has none or is malformed."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


class Redactor:
    """Replaces the values of a request's secret headers with stars, since providers repeat keys in their errors.

    Args:
        secret_headers: the values as they are sent. The part after a word such as ``Bearer`` is a secret by itself.
    """

    def __init__(self, secret_headers: Mapping[str, str]) -> None:
        parts = {part for text in secret_headers.values() for part in (text, text.rpartition(" ")[2])}
        self._secrets = sorted((part for part in parts if len(part) >= _SHORTEST_SECRET), key=len, reverse=True)

    def redact_text(self, text: str) -> str:
        """Return ``text`` without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, _STARS)
        return text

    def redact_body(self, body: bytes) -> bytes:
        """Return ``body`` without secrets."""
        for secret in self._secrets:
            body = body.replace(secret.encode(), _STARS.encode())
        return body

    def redact_error(self, error: PenstockError) -> None:
        """Remove secrets from an error's arguments and attributes, in place."""
        error.args = tuple(self._redact_message(arg) for arg in error.args)
        for name, value in vars(error).items():
            if (shown := self._redact_message(value)) != value:
                setattr(error, name, shown)

    def _redact_message(self, value: object) -> object:
        if not isinstance(value, str):
            return value
        value = self.redact_text(value)
        # A message that was truncated may end with the beginning of a secret.
        for secret in self._secrets:
            for length in range(len(secret) - 1, _SHORTEST_PREFIX - 1, -1):
                if value.endswith(secret[:length]):
                    return value[:-length] + _STARS
        return value
