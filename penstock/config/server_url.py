"""The URL of a Valkey or Redis server: what may be in it, and how it is shown without secrets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from penstock.config.checks import Masked, type_of
from penstock.errors import OptionError

__all__ = ["ServerUrl", "parse_server_url", "shown_url"]

_SCHEMES: Final = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix"}
_KINDS: Final = ("", "sentinel", "cluster")
_FORMS: Final = (
    "redis://host:port/database, rediss://… with TLS, unix:///path/of/socket, redis+sentinel://host:port/service or "
    "redis+cluster://host:port; valkey may stand for redis"
)
_HOST: Final = re.compile(r"\[[0-9A-Fa-f:.%]+\]|[^\s:\[\]/@,]+")
_PORTS: Final = {"": 6379, "cluster": 6379, "sentinel": 26379}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUrl:
    """The parts of a URL.

    Attributes:
        kind: ``"sentinel"``: the hosts are Sentinels; ``"cluster"``: the host is a node of a Redis cluster; ``""``: the
            host, or the socket, is the server.
        is_tls: whether connections use TLS.
        hosts: names or addresses, each with its port; empty for a socket.
        path: of a Unix domain socket, else empty.
        service: the name by which Sentinels know the servers, else empty.
        database: its number.
        user: None: the server's default user.
        password: None: there is none.
        arguments: further arguments for redis-py's connections, from the query.
        name: the URL without user, password and query.
    """

    kind: Literal["", "sentinel", "cluster"]
    is_tls: bool
    hosts: tuple[tuple[str, int], ...]
    path: str
    service: str
    database: int
    user: str | None
    password: str | None = field(repr=False)
    arguments: Mapping[str, Any] = field(repr=False)
    name: str


def shown_url(url: str) -> str:
    """A server's URL without user, password, and the values of its query that may be secret.

    Nothing is assumed about the form of the URL: it may be one that is refused.

    >>> shown_url("rediss://me:secret@host:6379/0?ssl_cert_reqs=none&password=secret")
    'rediss://***@host:6379/0?ssl_cert_reqs=none&password=***'
    """
    before, mark, rest = url.rpartition("@")
    if not mark:
        scheme, colons, rest = url.partition("://")
        start = scheme + colons if colons else ""
        rest = rest if colons else scheme
        location, slash, path = rest.partition("/")
        host, colon, port = location.rpartition(":")
        if colon and not port.partition("?")[0].isdigit() and not host.startswith("["):  # user:password, no host
            location = f"{host}:***"
        rest = location + slash + path
    else:
        scheme, colons, _ = before.partition("://")
        start = f"{scheme}://***@" if colons else "***@"
    rest, question, query = rest.partition("?")
    return start + rest + question + "&".join(map(_shown_parameter, query.split("&")))


def _shown_parameter(text: str) -> str:
    name, equals, value = text.partition("=")
    known = _PARAMETERS.get(name)
    return text if not value or (known is not None and not known.is_secret) else f"{name}{equals}***"


def parse_server_url(option: str, url: object) -> ServerUrl:
    """Parse the URL of a server.

    Args:
        option: its name, for errors.
        url: see `ServerUrl` and the page "Many nodes".

    Raises:
        OptionError: it is none, or has a part that is not allowed. The error has no secret.
    """
    if not isinstance(url, str):
        raise OptionError(option, type_of(url), _FORMS)
    refuse = _Refusal(option, Masked(shown_url(url)))
    try:
        parts = urlsplit(url)
    except ValueError:  # a bracket that is not closed
        raise refuse(_FORMS) from None
    scheme, plus, kind = parts.scheme.partition("+")
    family = _SCHEMES.get(scheme)
    if family is None or kind not in _KINDS or (plus and not kind) or (family == "unix" and kind):
        raise refuse(_FORMS)
    if not url[len(parts.scheme) :].startswith("://") or not url.isprintable() or " " in url:
        raise refuse(_FORMS)
    if parts.fragment or "#" in url or "@" in parts.path or "@" in parts.query:
        raise refuse("'@', '/', '?' and '#' in a user, a password or a value written as %40, %2F, %3F and %23")
    given, arguments = _parameters(parts, family, refuse)
    database = given.pop("db", None)
    hosts: tuple[tuple[str, int], ...] = ()
    path = service = number = ""
    if family == "unix":
        path = _socket(parts, refuse)
    else:
        hosts = _hosts(parts.netloc.rpartition("@")[2], kind, refuse)
        number = parts.path.strip("/")
        if kind == "sentinel":
            service, _, number = number.partition("/")
            if not service:
                raise refuse(
                    "the name of a service: redis+sentinel://host:port,host:port/service or …/service/database"
                )
    user, password = (unquote(each) if each else None for each in (parts.username, parts.password))
    return ServerUrl(
        kind=kind,  # type: ignore[arg-type]
        is_tls=family == "rediss",
        hosts=hosts,
        path=path,
        service=unquote(service),
        database=_database(number, database, kind, refuse),
        user=given.get("username", user),
        password=given.get("password", password),
        arguments=arguments,
        name=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}",
    )


class _Refusal:
    """Makes the errors for one URL, each with what would be allowed."""

    def __init__(self, option: str, got: Masked) -> None:
        self._option = option
        self._got = got

    def __call__(self, allowed: str) -> OptionError:
        return OptionError(self._option, self._got, allowed)


def _socket(parts: SplitResult, refuse: _Refusal) -> str:
    if parts.netloc.rpartition("@")[2] or len(parts.path) < 2:
        raise refuse(
            "a whole path after three slashes: unix:///path/of/socket, or unix://user:password@/path/of/socket"
        )
    return unquote(parts.path)


def _hosts(location: str, kind: str, refuse: _Refusal) -> tuple[tuple[str, int], ...]:
    found = []
    for each in location.split(",") if kind == "sentinel" else [location]:
        match = _HOST.match(each)
        if match is None:
            raise refuse("the name or the address of a host after ://, as in redis://localhost:6379")
        rest = each[match.end() :]
        port = rest[1:] if rest.startswith(":") else ""
        if rest and not (re.fullmatch(r"[0-9]{1,5}", port) and 1 <= int(port) <= 65_535):
            raise refuse(
                "a port from 1 to 65535 after the host"
                if "," not in rest
                else "one host; only redis+sentinel:// takes several"
            )
        found.append((unquote(match.group().strip("[]")), int(port) if port else _PORTS[kind]))
    return tuple(found)


def _database(number: str, parameter: int | None, kind: str, refuse: _Refusal) -> int:
    if number and not re.fullmatch(r"[0-9]{1,9}", number):
        where = "/service/database" if kind == "sentinel" else "host:port/database"
        raise refuse(f"a whole number as the database, as in {where}")
    if number and parameter is not None and int(number) != parameter:
        raise refuse("one number of a database: in the path or as db=")
    database = int(number) if number else parameter or 0
    if database and kind == "cluster":
        raise refuse("no database but 0 on a cluster")
    return database


# --- the query -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Parameter:
    read: Callable[[str], Any]  # raises ValueError
    allowed: str
    is_secret: bool = False


def _text(value: str) -> str:
    if not value:
        raise ValueError
    return value


def _seconds(value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value) or not 0 < float(value) <= 86_400:
        raise ValueError
    return float(value)


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            raise ValueError
        return int(value)

    return read


def _switch(value: str) -> bool:
    if value.lower() not in ("true", "yes", "1", "false", "no", "0"):
        raise ValueError
    return value.lower() in ("true", "yes", "1")


def _certificates(value: str) -> str:
    if value not in ("none", "optional", "required"):
        raise ValueError
    return value


_FILE: Final = _Parameter(_text, "the path of a file")
_TIME: Final = _Parameter(_seconds, "a number of seconds above 0, at most 86400")
_PARAMETERS: Final[Mapping[str, _Parameter]] = {
    "db": _Parameter(_whole(0, 10**9), "a whole number"),
    "username": _Parameter(_text, "a name", is_secret=True),
    "password": _Parameter(_text, "a text", is_secret=True),
    "client_name": _Parameter(_text, "a name"),
    "socket_timeout": _TIME,
    "socket_connect_timeout": _TIME,
    "health_check_interval": _Parameter(_whole(0, 86_400), "a whole number of seconds from 0 to 86400"),
    "max_connections": _Parameter(_whole(1, 1_000_000), "a whole number from 1 to 1000000"),
    "ssl_ca_certs": _FILE,
    "ssl_ca_path": _Parameter(_text, "the path of a folder"),
    "ssl_certfile": _FILE,
    "ssl_keyfile": _FILE,
    "ssl_password": _Parameter(_text, "a text", is_secret=True),
    "ssl_cert_reqs": _Parameter(_certificates, "none, optional or required"),
    "ssl_check_hostname": _Parameter(_switch, "true or false"),
}
"""What redis-py's connections take from a URL, without what would change how answers are read."""
_OWN: Final[tuple[str, ...]] = ("db", "username", "password")


def _parameters(parts: SplitResult, family: str, refuse: _Refusal) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters that are parts of a URL too, and the further arguments of connections."""
    known = [name for name in _PARAMETERS if family == "rediss" or not name.startswith("ssl_")]
    found: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        parameter = _PARAMETERS.get(name)
        if parameter is None:
            raise refuse(f"only these parameters: {', '.join(known)}")
        if name not in known:
            raise refuse(f"{name} only with TLS: rediss://, rediss+sentinel:// or rediss+cluster://")
        if name in found:
            raise refuse(f"{name} once")
        try:
            found[name] = parameter.read(value)
        except ValueError:
            raise refuse(f"as {name}, {parameter.allowed}") from None
    own = {name: found.pop(name) for name in _OWN if name in found}
    return own, found
