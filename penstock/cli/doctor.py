"""The command ``doctor``: what does something between this machine and a gateway do to streams?"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
import requests
import urllib3

from penstock.adapters.http.faults import body_failure, request_failure
from penstock.cli.failures import CommandLineError
from penstock.cli.terminal import Output
from penstock.config.secret import Secret

__all__ = ["Doctor", "read_base_url", "read_key"]

_CONNECT: Final = 10.0  # seconds
_SHORT, _SHORT_INTERVAL = 2.0, 0.2
_LEAVING: Final = 20.0  # seconds of silence after the first frame: a proxy that writes notices more than one that waits
_HELD: Final = 3.0  # seconds to wait for that frame
_LATE: Final = 0.125
"""The part of a probe's duration by which half of its frames may be late. If all frames are held back to the end, half
of them are late by half of the duration or more. If this machine is busy for a moment, few of them are late."""
_NOTICED: Final = 5.0  # seconds for the gateway to notice that a client has left
_AT_ONCE: Final = 1.0  # within which it should
_LOOK: Final = 0.05

_Mark: TypeAlias = Literal["ok", "problem", "left out"]


@dataclass(frozen=True, slots=True)
class _Probed:
    """What has come of a probe.

    Attributes:
        status: the HTTP status.
        headers: of the response, their names in lower case.
        frames: when each frame was sent by the gateway's clock, and when it came by this machine's.
        first: what the first frame says of the probe.
        silence: seconds from the last byte to the end.
        seconds: from the response's head to its end.
        fault: why it has not ended by its last frame; None: it has.
    """

    status: int
    headers: dict[str, str]
    frames: list[tuple[float, float]]
    first: dict[str, Any]
    silence: float = 0.0
    seconds: float = 0.0
    fault: str | None = None

    @property
    def lateness(self) -> list[float]:
        """How much later than the most punctual one each frame has come."""
        delays = [came - sent for sent, came in self.frames]
        return [delay - min(delays) for delay in delays]


class _Unreachable(Exception):
    """No response came. Its text says why."""


class Doctor:
    """One run of the command. The checks need no extra; the gateway must be Penstock's.

    Args:
        url: the gateway's base URL.
        key_env: the environment variable with a key of scope ``read``.
        quick: leave out the long probe.
        seconds: the length of the long probe.

    Raises:
        CommandLineError: the URL or the variable is wrong.
    """

    def __init__(self, url: str, key_env: str | None, *, quick: bool, seconds: float) -> None:
        self._url = read_base_url(url)
        self._key = read_key(key_env)
        self._quick = quick
        self._seconds = seconds
        self._session = requests.Session()
        self._host = urlsplit(self._url).hostname or ""
        self._heartbeat = 15.0
        self._found_problem = False

    def run(self) -> int:
        """Print a line for each check; return the exit code: 1 if there is a problem.

        Raises:
            OSError: standard output cannot be written.
        """
        output = Output()
        with self._session:
            for name, mark, text in self._checks():
                self._found_problem |= mark == "problem"
                output.write(f"{mark:<9} {name}: {text}\n")
        return 1 if self._found_problem else 0

    def _checks(self) -> Iterator[tuple[str, _Mark, str]]:
        try:
            reached = self._check_reach()
            yield "reach", *reached
            if reached[0] == "problem":
                return
            plain = self._probe(_SHORT, _SHORT_INTERVAL, "identity")
            if plain.status != 200:
                yield "key", "problem", _refusal(plain.status)
                return
            self._heartbeat = float(plain.first.get("heartbeat", self._heartbeat))
            yield "buffering", *_check_buffering(plain)
            yield "compression", *_check_compression(self._probe(0.0, 1.0, "gzip, deflate, br, zstd"))
            yield "disconnects", *self._check_disconnects()
            if self._quick:
                yield "time limits", "left out", "whether a stream is cut after a minute is checked without --quick"
            else:
                yield "time limits", *self._check_time_limits()
        except _Unreachable as error:
            yield "reach", "problem", str(error)

    # --- the checks ----------------------------------------------------------------------------------------------

    def _check_reach(self) -> tuple[_Mark, str]:
        with self._get("/live", timeout=_CONNECT) as response:
            is_gateway = response.status_code == 200 and _decoded(response.content).get("status") == "ok"
        if not is_gateway:
            return "problem", (
                f"{self._url}/live answers {response.status_code}, not as a gateway of Penstock; if the gateway is"
                " mounted at a path, give its URL with the path"
            )
        with self._get("/ready", timeout=_CONNECT) as response:
            if response.status_code == 503:
                return "problem", "the gateway is shutting down (/ready answers 503)"
        via = ", ".join(filter(None, [response.headers.get("server"), response.headers.get("via")]))
        return "ok", f"{self._url} is a gateway of Penstock" + (f"; responses pass through {via}" if via else "")

    def _check_disconnects(self) -> tuple[_Mark, str]:
        probe_id = f"doctor_{secrets.token_hex(8)}"
        left = self._probe(_LEAVING, _LEAVING, "identity", probe_id=probe_id, leave=True)
        if left.status != 200:
            return "problem", f"a probe was answered with {left.status}"
        until = time.monotonic() + _NOTICED
        while True:
            with self._get(f"/v1/doctor/seen?id={probe_id}", timeout=_CONNECT) as response:
                seen = _decoded(response.content)
            if response.status_code == 404:
                return "problem", (
                    "the gateway does not know the probe: requests go to several gateways, or something answers from a"
                    " cache; run doctor against one gateway"
                )
            if seen.get("state") == "left":
                after = float(seen.get("after") or 0.0) - left.seconds
                if after <= _AT_ONCE:
                    return "ok", "the gateway notices at once when a client leaves"
                return "problem", f"the gateway noticed only after {after:.1f} s that the client had left; {_ABORT}"
            if time.monotonic() > until:
                return "problem", f"{_NOTICED:g} s after the client had left, the gateway still served it; {_ABORT}"
            time.sleep(_LOOK)

    def _check_time_limits(self) -> tuple[_Mark, str]:
        long = self._probe(self._seconds, self._heartbeat, "identity")
        if long.fault is None and long.status == 200:
            return "ok", (
                f"a stream of {self._seconds:g} s with a sign of life every {self._heartbeat:g} s was not cut"
            )
        if long.status != 200:
            return "problem", f"it was answered with {long.status} after {long.seconds:.1f} s; {_TIMEOUTS}"
        if len(long.frames) <= 1 and self._heartbeat < self._seconds:
            return "problem", (
                f"the stream was cut after {long.silence:.1f} s of silence ({long.fault}); {_TIMEOUTS}, or set"
                f" gateway.heartbeat below {long.silence:.1f} s"
            )
        return "problem", f"the stream was cut after {long.seconds:.1f} s ({long.fault}); {_TIMEOUTS}"

    # --- requests ------------------------------------------------------------------------------------------------

    def _probe(
        self, seconds: float, interval: float, encoding: str, *, probe_id: str = "", leave: bool = False
    ) -> _Probed:
        """Read a probe to its end, or leave it after the first frame, or when that does not come."""
        query = f"?seconds={seconds:g}&interval={interval:g}" + (f"&id={probe_id}" if probe_id else "")
        wait = _HELD if leave else max(seconds, interval) + _CONNECT  # all of it may come at the end
        begun = time.monotonic()
        try:
            response = self._get(f"/v1/doctor/probe{query}", timeout=wait, encoding=encoding)
        except _Unreachable:
            if not leave:
                raise
            return _Probed(200, {}, [], {}, seconds=time.monotonic() - begun)  # the response's head is held back too
        with response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            probed = _Probed(response.status_code, headers, [], {}, seconds=time.monotonic() - begun)
            if response.status_code != 200 or headers.get("content-encoding", "identity") != "identity":
                return probed
            return _read(response.raw, probed, begun, wait, leave=leave)

    def _get(self, path: str, *, timeout: float, encoding: str = "identity") -> requests.Response:
        headers = {"accept-encoding": encoding, "accept": "text/event-stream, application/json"}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key.reveal()}"
        try:
            return self._session.get(
                f"{self._url}{path}",
                headers=headers,
                stream=True,
                timeout=(_CONNECT, timeout),
                allow_redirects=False,
                auth=_no_auth,
            )
        except (OSError, urllib3.exceptions.HTTPError, ValueError) as error:
            failure = request_failure(error, self._host, sent=False, connect_timeout=_CONNECT, wait_limit=timeout)
            raise _Unreachable(str(failure)) from None


def _read(raw: Any, probed: _Probed, begun: float, wait: float, *, leave: bool) -> _Probed:
    """Read the frames as they come."""
    data = b""
    last = time.monotonic()
    fault: str | None = "the connection was closed without the last frame"
    try:
        while piece := raw.read1(65_536, decode_content=False):
            last = time.monotonic()
            *frames, data = (data + piece).split(b"\n\n")
            for frame in frames:
                fields = _decoded(frame.partition(b"data: ")[2])
                if frame.startswith(b"event: end\n") and fields.get("state") == "complete":
                    fault = None
                elif "at" in fields:
                    probed.frames.append((float(fields["at"]), last - begun))
                    if "heartbeat" in fields:
                        probed.first.update(fields)
            if leave and probed.frames:
                break
    except (OSError, urllib3.exceptions.HTTPError) as error:
        fault = str(body_failure(error, chunked=True, wait_limit=wait))
    now = time.monotonic()
    return _Probed(
        probed.status, probed.headers, probed.frames, probed.first, now - last, now - begun, None if leave else fault
    )


def _no_auth(request: Any) -> Any:
    """Keeps requests from taking a password from ``.netrc`` in place of the key."""
    return request


def _check_buffering(probed: _Probed) -> tuple[_Mark, str]:
    if probed.fault is not None:
        return "problem", f"the stream was cut after {probed.seconds:.1f} s ({probed.fault}); {_TIMEOUTS}"
    lateness = probed.lateness
    late = max(lateness)
    if statistics.median(lateness) > _LATE * probed.frames[-1][0]:
        return "problem", f"frames are held back for up to {late:.1f} s; {_BUFFERING}"
    return "ok", f"{len(lateness)} frames came one by one, at most {math.ceil(late * 1000)} ms late"


def _check_compression(probed: _Probed) -> tuple[_Mark, str]:
    coding = probed.headers.get("content-encoding", "identity")
    if coding == "identity":
        return "ok", "streams are not compressed on the way"
    return "problem", f"something between compresses streams ({coding}), which may hold frames back; {_COMPRESSION}"


_BUFFERING: Final = "nginx: proxy_buffering off;"
_COMPRESSION: Final = "nginx: gzip off; or no text/event-stream in gzip_types"
_ABORT: Final = "nginx: proxy_ignore_client_abort off;"
_TIMEOUTS: Final = "nginx: proxy_read_timeout 3600s;"


def _refusal(status: int) -> str:
    if status == 401:
        return "the gateway wants a key; name the environment variable that has it: --key-env NAME"
    if status == 403:
        return "the key does not have the scope read"
    if status == 421:
        return "the gateway does not answer this host name; set gateway.hosts, or gateway.keys"
    if status == 404:
        return "this gateway is older than penstock doctor: it has no probe"
    return f"a probe is answered with {status}"


def _decoded(data: bytes) -> dict[str, Any]:
    with contextlib.suppress(msgspec.DecodeError, UnicodeError):
        value = msgspec.json.decode(data)
        if isinstance(value, dict):
            return value
    return {}


def read_base_url(url: str, where: str = "") -> str:
    """A gateway's base URL as it was given, without a slash at its end.

    Args:
        url: the text.
        where: the beginning of the error, such as ``"--url: "``.

    Raises:
        CommandLineError: it is none. The text is not shown, since it may have a password.
    """
    try:
        parts = urlsplit(url)
        is_fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_fine = False
    if not is_fine or not url.isprintable() or any(mark in url for mark in "@?# "):
        raise CommandLineError(f"{where}URL must be like https://host/path, without user, query or fragment")
    return url.rstrip("/")


def read_key(variable: str | None) -> Secret | None:
    """The key in an environment variable; None: no variable is named.

    Raises:
        CommandLineError: the variable is not set, or has no key.
    """
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise CommandLineError(f"--key-env names {variable!r}, an environment variable that is not set")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise CommandLineError(f"the key in {variable} has characters that no key has")
    return Secret(key)
