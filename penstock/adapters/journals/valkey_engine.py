"""The server of `ValkeyJournal`: connections to it, the functions in it, its errors, and trying again."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from penstock.config.server_url import ServerUrl, parse_server_url
from penstock.errors import (
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreIncompatible,
    StoreReadOnly,
    StoreUnavailable,
)

if TYPE_CHECKING:
    import redis

__all__ = ["Engine", "Results", "functions", "store_error"]

_T = TypeVar("_T")
Results = list[Any]
"""The answers to the commands of a pipeline; an error is among them as an exception."""

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
_chance: Final = random.Random()  # noqa: S311 - not the one of the module, which other code of the process may seed


def functions() -> tuple[str, str]:
    """The library of functions: its code, and the ending of the functions' names."""
    text = Path(__file__).with_name("valkey.lua").read_text("utf-8")
    version = hashlib.sha256(text.encode()).hexdigest()[:8]
    return text.replace("@", version), version


# --- errors ----------------------------------------------------------------------------------------------------------

_UNAVAILABLE: Final = {
    "BUSY": "a script of another program keeps the server busy",
    "LOADING": "the server reads its data from disk",
    "READONLY": "the server is a replica now",
    "NOREPLICAS": "the server has too few replicas",
    "MASTERDOWN": "the server has lost its primary",
    "CLUSTERDOWN": "a part of the cluster is down",
    "TRYAGAIN": "the cluster moves the key",
    "MOVED": "the cluster has moved the key",
    "ASK": "the cluster moves the key",
    "MISCONF": "the server cannot write its disk",
    "UNBLOCKED": "the server has changed its role",
}


def store_error(store: str, error: Exception) -> StoreError:
    """What an error of redis-py's means for the store. Never contains a value of the command."""
    import redis

    if isinstance(error, (redis.AuthenticationError, redis.exceptions.AuthorizationError)):
        return StoreIncompatible(store, "the server refuses the user or the password")
    kind = _kind(error)
    if isinstance(error, redis.BusyLoadingError):
        kind = "LOADING"
    if kind in ("NOPERM", "NOAUTH", "WRONGPASS") or isinstance(error, redis.exceptions.NoPermissionError):
        return StoreIncompatible(store, "the server does not permit its user what is needed")
    if kind == "OOM":
        return StoreFull(store)
    if kind == "MISCONF" and "space" in str(error):
        return StoreFull(store)
    if kind == "WRONGTYPE":
        return StoreDamaged(store, "a key is of another type; another program uses the same names")
    if "unknown command" in str(error):
        return StoreIncompatible(store, "the server lacks commands; Valkey, or Redis 7.0 or later, is needed")
    if "DB index" in str(error):
        return StoreIncompatible(store, "the server has no database of this number")
    return StoreUnavailable(store, _UNAVAILABLE.get(kind) or _why_unreachable(error))


def _why_unreachable(error: Exception) -> str:
    """What the operating system says of a connection that failed; else the name of the error."""
    import redis

    if type(error).__name__ == "MasterNotFoundError":
        return "no Sentinel that answers knows a primary of the service"
    if isinstance(error, redis.TimeoutError):
        return "no answer in time"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


_CODES: Final = {
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "TryAgainError": "TRYAGAIN",
    "MovedError": "MOVED",
    "AskError": "ASK",
}


def _kind(error: Exception) -> str:
    """The code with which a server begins its errors; redis-py has classes for some, and then removes it."""
    code = _CODES.get(type(error).__name__)
    if code is not None:
        return code
    first = str(error).split(" ", 1)[0].rstrip(":")
    return first if first.isupper() else ""


def _lacks_functions(error: object) -> bool:
    return isinstance(error, Exception) and "Function not found" in str(error)


# --- connecting ------------------------------------------------------------------------------------------------------


def _connect(place: ServerUrl, arguments: Mapping[str, Any]) -> Any:
    import redis

    scheme = "rediss" if place.is_tls else "redis"
    account = {"username": place.user, "password": place.password}
    if place.kind == "sentinel":
        return _at_sentinels(place, {**account, "db": place.database, **arguments})
    if place.path:
        return redis.Redis.from_url(f"unix://{quote(place.path)}", db=place.database, **{**account, **arguments})
    ((host, port),) = place.hosts
    url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    if place.kind == "cluster":
        return redis.RedisCluster.from_url(url, **{**account, **arguments})
    return redis.Redis.from_url(url, **{**account, "db": place.database, **arguments})


def _at_sentinels(place: ServerUrl, own: dict[str, Any]) -> Any:
    from redis.sentinel import Sentinel

    shared = {
        name: own[name] for name in ("socket_timeout", "socket_connect_timeout", "protocol", "retry") if name in own
    }
    tls = {name: value for name, value in place.arguments.items() if name.startswith("ssl_")}
    sentinel_arguments = {**shared, **tls, **own.pop("sentinel_kwargs", {})}
    if place.is_tls:
        own["ssl"] = True
        sentinel_arguments.setdefault("ssl", True)
    sentinel = Sentinel(place.hosts, sentinel_kwargs=sentinel_arguments)
    return sentinel.master_for(place.service, **own)


class Engine:
    """Connections to one server, or to the primaries of a cluster. Any thread may call it.

    Args:
        url: see `ValkeyJournal`.
        arguments: for redis-py's connections.
        timeout: seconds for one answer.
        patience: seconds for which a request is tried again.

    Raises:
        StoreError: it cannot be used.
    """

    def __init__(self, url: str, arguments: Mapping[str, Any], timeout: float, patience: float) -> None:
        place = parse_server_url("url", url)
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise ImportError("ValkeyJournal needs redis-py: pip install penstock[cluster]") from error
        self._redis = redis
        self._errors = (redis.RedisError, redis.exceptions.RedisClusterException, OSError)
        self._lost = (redis.ConnectionError, redis.TimeoutError, OSError)
        self.name = place.name
        self.is_cluster = place.kind == "cluster"
        self.timeout = timeout
        self.patience = patience
        self.closed = threading.Event()
        self._code, version = functions()
        self._suffix = f"_{version}".encode()
        self._names: dict[str, bytes] = {}
        self._client: Any = None
        usual: dict[str, Any] = {
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "protocol": 2,
            "max_connections": 1_000,
        }
        if not place.path:
            usual["socket_keepalive"] = True
        if not self.is_cluster:
            usual["retry"] = Retry(NoBackoff(), 0)  # `run` does that
        usual.update(place.arguments)
        usual.update(arguments)
        try:
            self._client = self._patiently(lambda: _connect(place, usual))
            self.engine = self.run("", self._look)
            for home in self.homes():
                self._patiently(lambda home=home: self._load(self.client_at(home)))  # type: ignore[misc]
        except BaseException:
            self.close()
            raise

    def _look(self, client: redis.Redis) -> str:
        """Whether the server will do; returns what it is."""
        facts: dict[str, Any] = client.info()
        redis_version = str(facts.get("redis_version", "0"))
        if int(redis_version.split(".")[0]) < 7:
            raise StoreIncompatible(self.name, f"it is Redis {redis_version}; Valkey, or Redis 7.0 or later, is needed")
        if facts.get("role") not in ("master", None):
            raise StoreReadOnly(self.name)
        if str(facts.get("maxmemory_policy", "")).startswith("allkeys"):
            policy = facts["maxmemory_policy"]
            raise StoreIncompatible(self.name, f"maxmemory-policy is {policy}, which removes live logs; set noeviction")
        if facts.get("cluster_enabled") and not self.is_cluster:
            raise StoreIncompatible(self.name, "it is part of a cluster; write redis+cluster:// in the URL")
        valkey_version = facts.get("valkey_version")
        return f"Valkey {valkey_version}" if valkey_version else f"Redis {redis_version}"

    def _load(self, client: redis.Redis) -> None:
        try:
            client.execute_command("FUNCTION", "LOAD", self._code)
        except self._redis.ResponseError as error:
            if "already exists" not in str(error):
                raise

    # --- where a key is ------------------------------------------------------------------------------------------

    def home_of(self, key: str | bytes) -> str:
        """The primary that has a key, by its address; "" if there is only one."""
        if not self.is_cluster:
            return ""
        try:
            return str(self._client.get_node_from_key(key).name)
        except (AttributeError, self._redis.exceptions.RedisClusterException):  # no node has the slot
            raise StoreUnavailable(self.name, _UNAVAILABLE["CLUSTERDOWN"]) from None

    def homes(self) -> list[str]:
        """All primaries."""
        return [node.name for node in self._client.get_primaries()] if self.is_cluster else [""]

    def client_at(self, home: str) -> redis.Redis:
        """The connections to a primary."""
        if not self.is_cluster:
            return self._client
        node = self._client.get_node(node_name=home)
        if node is None:
            raise StoreUnavailable(self.name, "the cluster has changed")
        client = self._client.get_redis_connection(node)
        assert client is not None
        return client

    def refresh(self) -> None:
        """Ask the cluster where everything is now."""
        if self.is_cluster and self._client is not None:
            with contextlib.suppress(*self._errors):
                self._client.nodes_manager.initialize()

    # --- asking --------------------------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise `StoreClosed` if it has been closed."""
        if self.closed.is_set():
            raise StoreClosed(self.name)

    def translated(self, error: Exception) -> StoreError:
        """What an error of redis-py's means here; raises any other again.

        A connection that is closed while another thread uses it may raise anything.
        """
        if self.closed.is_set():
            return StoreClosed(self.name)
        if isinstance(error, self._errors):
            return store_error(self.name, error)
        raise error

    def function(self, name: str) -> bytes:
        """The whole name of a function."""
        found = self._names.get(name)
        if found is None:
            found = self._names[name] = name.encode() + self._suffix
        return found

    def call(self, name: str, keys: Sequence[str | bytes], *arguments: str | bytes | int | float) -> Any:
        """Call a function; all keys have one hash tag."""
        whole = self.function(name)
        return self.run(keys[0], lambda client: client.execute_command("FCALL", whole, len(keys), *keys, *arguments))

    def run(self, key: str | bytes, work: Callable[[redis.Redis], _T]) -> _T:
        """Do something with the connections to the primary that has a key, again within `patience` if it fails.

        Raises:
            StoreError: it still fails, or cannot succeed.
        """
        return self._patiently(lambda: self._once(key, work))

    def _once(self, key: str | bytes, work: Callable[[redis.Redis], _T]) -> _T:
        client = self.client_at(self.home_of(key))
        try:
            return work(client)
        except self._redis.ResponseError as error:
            if not _lacks_functions(error):
                raise
            self._load(client)
            return work(client)

    def _patiently(self, work: Callable[[], _T]) -> _T:
        pauses = Pauses(self.patience, self.closed)
        while True:
            self.check_open()
            try:
                return work()
            except Exception as error:
                found = error if isinstance(error, StoreError) else self.translated(error)
                self.repair(error)
                if not found.retryable or not pauses.wait():
                    raise found from (None if found is error else error)

    def repair(self, error: Exception) -> None:
        """Do what makes the next try more likely to succeed."""
        if self.closed.is_set():
            return
        if self.is_cluster:
            self.refresh()
        elif _kind(error) in ("READONLY", "UNBLOCKED"):
            self._client.connection_pool.disconnect()  # behind the same name there may be another primary by now

    def pipeline(self, home: str, commands: Sequence[tuple[Any, ...]]) -> Results:
        """Send commands at once to a primary, over one connection; returns their answers.

        Raises:
            redis.RedisError: of all of them: the connection failed.
        """
        client = self.client_at(home)
        results = self._pipeline(client, commands)
        if any(_lacks_functions(result) for result in results):
            self._load(client)
            results = self._pipeline(client, commands)
        return results

    def _pipeline(self, client: redis.Redis, commands: Sequence[tuple[Any, ...]]) -> Results:
        with client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            results: Results = pipeline.execute(raise_on_error=False)
            return results

    def close(self) -> None:
        """Close all connections."""
        self.closed.set()
        if self._client is None:
            return
        with contextlib.suppress(*self._errors):
            self._client.close()
        if not self.is_cluster:
            self._client.connection_pool.disconnect()


class Pauses:
    """The times between tries: longer each time, with some chance in them, until ``patience`` seconds have passed."""

    def __init__(self, patience: float, closed: threading.Event) -> None:
        self._end = time.monotonic() + patience
        self._closed = closed
        self._pause = _FIRST_PAUSE

    def wait(self) -> bool:
        """Wait; returns False at once if the time is over."""
        left = self._end - time.monotonic()
        if left <= 0:
            return False
        self._closed.wait(min(left, self._pause * (0.5 + _chance.random())))
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return True
