"""A log store in Valkey or Redis: streams that every node reads, and that another node takes over when one dies."""

from __future__ import annotations

import secrets
import threading
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

import msgspec

from penstock.adapters.journals.local import answer_of, check_append
from penstock.adapters.journals.valkey_appends import Appender
from penstock.adapters.journals.valkey_commands import RemoteCommands
from penstock.adapters.journals.valkey_engine import Engine
from penstock.adapters.journals.valkey_entries import id_text, read_entry
from penstock.adapters.journals.valkey_follower import Follower
from penstock.adapters.journals.valkey_listener import Listener
from penstock.config.checks import check_choice, check_number
from penstock.config.logs import get_logger
from penstock.errors import OptionError, StoreError
from penstock.ports import (
    EMPTY,
    NODE_NUMBERS,
    Append,
    Claim,
    Durability,
    Entry,
    EntryId,
    Limit,
    LogWatcher,
    NodeInfo,
    Registration,
    Request,
    StoreStatistics,
    StoreView,
)

__all__ = ["ValkeyJournal"]

_PARTS: Final = 16  # of the requests, on a cluster
_PAGE: Final = 1_000  # entries in one answer
_KEPT_AT_ONCE: Final = 500
_CLAIMED_AT_ONCE: Final = 100  # a call stops the server meanwhile
_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(tuple[str, bytes]).decode
_decode_node = msgspec.json.Decoder(NodeInfo).decode


class ValkeyJournal:
    """Keeps streams in Valkey 8 or Redis 7.0 and later, for any number of nodes. Implements `penstock.ports.LogStore`.

    Needs the extra ``cluster`` (redis-py). The first instance on a server puts a library of functions into it. Names of
    keys begin with ``prefix``, and each has a hash tag.

    Args:
        url: ``redis://[user:password@]host:port/database``, ``rediss://`` with TLS, ``unix:///path/of/socket``;
            ``redis+sentinel://host:port,host:port/service`` asks Sentinels for the primary; ``redis+cluster://host:port``
            is any node of a cluster. ``valkey`` may stand for ``redis``. A query may have further arguments: see the
            page "Many nodes".
        durability: when readers get an event. ``"async"``: once the server has it in memory. ``"sync"``: once
            ``replicas`` and, if ``on_disk``, the server's disk have it too.
        replicas: how many replicas must confirm an append at the level ``"sync"``, 0 … 16.
        on_disk: whether the append-only files must have it (WAITAOF: Valkey, or Redis 7.2 and later).
        confirm_within: seconds to wait for that, 0.001 … 60; later an append fails with `StoreUnavailable`, and may be
            repeated.
        keep: seconds for which a log is kept after its end, 1 … 10 years.
        prefix: of all names; two systems on one server need two. 1 to 64 characters without braces.
        timeout: seconds for one answer, 0.01 … 600.
        patience: seconds for which a request is repeated while the server is away or busy, 0 … 600.
        owner_wait: seconds for which `command` waits for a log to have an owner, 0 … 600: the lease and a second.
        arguments: of redis-py's connections, for instance ``ssl_ca_certs`` or ``sentinel_kwargs``.

    Raises:
        OptionError: a value is not allowed. The error has no part of the URL that may be secret.
        StoreIncompatible: the server is too old, has no such database, refuses the user, or removes keys when it
            is full.
        StoreReadOnly: it is a replica.
        StoreUnavailable: it does not answer.
    """

    def __init__(
        self,
        url: str,
        *,
        durability: Durability = "async",
        replicas: int = 1,
        on_disk: bool = False,
        confirm_within: float = 0.05,
        keep: float = 86_400.0,
        prefix: str = "ps",
        timeout: float = 5.0,
        patience: float = 1.0,
        owner_wait: float = 4.0,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        check_choice("durability", durability, ("async", "sync"))
        check_number("replicas", replicas, 0, 16, whole=True)
        check_number("confirm_within", confirm_within, 0.001, 60)
        check_number("keep", keep, 1, 3_650 * 86_400)
        check_number("timeout", timeout, 0.01, 600)
        check_number("patience", patience, 0, 600)
        check_number("owner_wait", owner_wait, 0, 600)
        if not 0 < len(prefix) <= 64 or "{" in prefix or "}" in prefix:
            raise OptionError("prefix", prefix, "1 to 64 characters without braces")
        is_sync = durability == "sync"
        if is_sync and not replicas and not on_disk:
            raise OptionError("replicas", replicas, "1 or more for the level sync, unless on_disk is set")
        self._durability: Durability = durability
        self._prefix = prefix
        self._engine = Engine(url, arguments or {}, timeout, patience)
        confirm = (replicas, on_disk, confirm_within) if is_sync else None
        self._appender = Appender(self._engine, self._key_of, confirm, keep, self._open_and_close)
        self._listener = Listener(self._engine, prefix)
        replies = f"{prefix}:reply:{{{uuid.uuid4().hex}}}".encode()
        self._commands = RemoteCommands(self._engine, self._listener, self._channel_of, replies, owner_wait)
        self._parts = _PARTS if self._engine.is_cluster else 1
        self._nodes = (f"{prefix}:until:{{nodes}}", f"{prefix}:says:{{nodes}}")
        self._number = f"{prefix}:number:{{nodes}}"
        self._close_lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ValkeyJournal {self.name!r}, {self._durability}>"

    @property
    def name(self) -> str:
        """The URL without user and password."""
        return self._engine.name

    @property
    def durability(self) -> Durability:
        """As given."""
        return self._durability

    @property
    def is_shared(self) -> bool:
        """Yes."""
        return True

    # --- names ---------------------------------------------------------------------------------------------------

    def _named(self, kind: str, name: str) -> bytes:
        if "}" in name or "%" in name:  # it would end the hash tag
            name = name.replace("%", "%25").replace("}", "%7D")
        return f"{self._prefix}:{kind}:{{{name}}}".encode()

    def _key_of(self, log: str) -> bytes:
        return self._named("log", log)

    def _channel_of(self, log: str) -> bytes:
        return self._named("cmd", log)

    def _part_of(self, request: str) -> int:
        return zlib.crc32(request.encode()) % self._parts if self._parts > 1 else 0

    def _request_keys(self, part: int, node: str, *others: str) -> list[bytes]:
        """The keys of a part's requests, in the order in which the functions take them."""
        names = ["body", "owner", "wait", "kept", *(f"of:{one}" for one in (node, *others))]
        return [f"{self._prefix}:req:{{{part}}}:{name}".encode() for name in names]

    # --- logs ----------------------------------------------------------------------------------------------------

    def append(self, log: str, expected: EntryId, entry: Entry) -> EntryId:
        """Append one entry; see `penstock.ports.LogStore.append`."""
        return answer_of(self.append_all([Append(log, expected, entry)]))

    def append_all(self, appends: Sequence[Append]) -> Sequence[EntryId | StoreError]:
        """Append entries in one round trip to each primary; see `penstock.ports.LogStore.append_all`."""
        for append in appends:
            check_append(append)
        return self._appender.append_all(appends)

    def _open_and_close(self, append: Append) -> None:
        """Enter and end the requests of an entry that is stored."""
        if append.opens is not None:
            self.enqueue(append.opens, append.node)
        if append.closes:
            keys = self._request_keys(self._part_of(append.closes), append.node)
            self._engine.call("finish", keys, append.closes)

    def read(self, log: str, after: EntryId = EMPTY, limit: int | None = None) -> Sequence[Entry]:
        """Read a log; see `penstock.ports.LogStore.read`. At the level ``sync`` its last entries may be unconfirmed."""
        entries: list[Entry] = []
        left = _PAGE if limit is None else limit
        while left > 0:
            start = b"(%b" % id_text(entries[-1].id if entries else after)
            count = min(left, _PAGE)
            page = self._range(log, start, count)
            entries += page
            if len(page) < count:
                break
            left = _PAGE if limit is None else limit - len(entries)
        return entries

    def _range(self, log: str, start: bytes, count: int) -> list[Entry]:
        key = self._key_of(log)
        found: Any = self._engine.run(key, lambda client: client.xrange(key, min=start, count=count))
        return [read_entry(self.name, log, id, fields) for id, fields in found]

    def tail(self, log: str) -> EntryId:
        """The tail of a log; see `penstock.ports.LogStore.tail`."""
        return self._last(log, b"+")

    def _last(self, log: str, before: bytes) -> EntryId:
        key = self._key_of(log)
        found: Any = self._engine.run(key, lambda client: client.xrevrange(key, max=before, count=1))
        return EntryId.parse(found[0][0].decode()) if found else EMPTY

    def watch(self, log: str, after: EntryId, watcher: LogWatcher) -> Registration:
        """Watch a log. The watcher is called by the thread of the store's subscriptions."""
        key = self._key_of(log)

        def read(start: EntryId, count: int) -> Sequence[Entry]:
            entries = self._range(log, id_text(start), count)
            self._appender.confirm(key)
            return entries

        def before(id: EntryId) -> EntryId:
            return self._last(log, b"(%b" % id_text(id))

        follower = Follower(watcher, after, read, before, lambda one: self._listener.remove(key, one))
        self._listener.add(key, follower)
        return follower

    def trim(self, log: str, before: EntryId) -> int:
        """Remove old entries; see `penstock.ports.LogStore.trim`."""
        return int(self._engine.call("trim", [self._key_of(log)], id_text(before)))

    def forget(self, log: str) -> bool:
        """Remove a log; see `penstock.ports.LogStore.forget`."""
        return bool(self._engine.call("forget", [self._key_of(log)]))

    # --- requests ------------------------------------------------------------------------------------------------

    def enqueue(self, request: Request, node: str | None = None) -> bool:
        """Enter a request; see `penstock.ports.LogStore.enqueue`."""
        keys = self._request_keys(self._part_of(request.id), node or "")
        body = _encode((request.log, request.data))
        return bool(self._engine.call("enqueue", keys, request.id, body, node or "", uuid.uuid4().hex[:16]))

    def claim(self, node: str, limit: int, lease: float) -> Sequence[Claim]:
        """Claim requests; see `penstock.ports.LogStore.claim`."""
        self._engine.check_open()
        within = round(lease * 1000)
        shares = {0: limit} if self._parts == 1 else self._shares(limit, within)
        found: list[Any] = []
        for part, share in shares.items():
            while share > 0:
                some = min(share, _CLAIMED_AT_ONCE)
                more = self._engine.call("claim", self._request_keys(part, node), node, some, within)
                found += more
                share = share - some if len(more) == some else 0
        return self._claims(found)

    def _shares(self, limit: int, within: int) -> Mapping[int, int]:
        """How many requests to claim from each part, so that they are the oldest of all."""
        due: list[tuple[int, int]] = []
        for part in range(self._parts):
            numbers = self._engine.call("due", self._request_keys(part, ""), limit, within)
            due += [(int(number), part) for number in numbers]
        return Counter(part for _, part in sorted(due)[:limit])

    def _claims(self, found: Sequence[Any]) -> list[Claim]:
        claims = []
        for _, id, deliveries, body in sorted(found, key=lambda one: int(one[0])):
            try:
                log, data = _decode_request(body)
            except msgspec.MsgspecError:  # it can never be carried out, and must not keep the others from it
                get_logger().error("stored_request_damaged", store=self.name, request=id.decode(errors="replace"))
                self._engine.call("finish", self._request_keys(self._part_of(id.decode()), ""), id)
                continue
            claims.append(Claim(Request(id.decode(), log, data), deliveries, self._is_cancelled(log)))
        return claims

    def _is_cancelled(self, log: str) -> bool:
        key = self._named("cancel", log)
        return bool(self._engine.run(key, lambda client: client.exists(key)))

    def keep(self, node: str, requests: Sequence[str]) -> Sequence[str]:
        """Renew claims; see `penstock.ports.LogStore.keep`."""
        parts: dict[int, list[str]] = {}
        for request in requests:
            parts.setdefault(self._part_of(request), []).append(request)
        kept: set[str] = set()
        for part, ids in parts.items():
            keys = self._request_keys(part, node)
            for index in range(0, len(ids), _KEPT_AT_ONCE):
                found = self._engine.call("keep", keys, node, *ids[index : index + _KEPT_AT_ONCE])
                kept.update(id.decode() for id in found)
        return [request for request in requests if request in kept]

    def release(self, node: str, request: str) -> bool:
        """End a request; see `penstock.ports.LogStore.release`."""
        keys = self._request_keys(self._part_of(request), node)
        return bool(self._engine.call("release", keys, node, request))

    def hand_over(self, node: str, request: str, to: str) -> bool:
        """Give a claim away; see `penstock.ports.LogStore.hand_over`."""
        keys = self._request_keys(self._part_of(request), node, to)
        return bool(self._engine.call("hand_over", keys, node, request, to))

    def held(self, node: str) -> Sequence[Claim]:
        """The claims of a node; see `penstock.ports.LogStore.held`."""
        parts = [self._engine.call("held", self._request_keys(part, node), node) for part in range(self._parts)]
        return self._claims([found for part in parts for found in part])

    # --- commands ------------------------------------------------------------------------------------------------

    def command(self, log: str, command: bytes, timeout: float) -> bytes:
        """Have a command carried out; see `penstock.ports.LogStore.command`.

        A log that nothing serves gets ``owner_wait`` seconds to be taken over first.
        """
        return self._commands.send(log, command, timeout)

    def serve(self, log: str, carry_out: Callable[[bytes], bytes]) -> Registration:
        """Carry out commands; see `penstock.ports.LogStore.serve`."""
        return self._commands.serve(log, carry_out)

    def cancel(self, log: str, lease: float) -> None:
        """Mark a log as cancelled; see `penstock.ports.LogStore.cancel`."""
        key = self._named("cancel", log)
        self._engine.run(key, lambda client: client.set(key, b"1", px=max(1, round(lease * 1000))))

    # --- shared by all nodes -------------------------------------------------------------------------------------

    def take(self, limit: Limit, cost: float = 1.0) -> float:
        """Take from a limit; see `penstock.ports.LogStore.take`. If the answer is lost, it may be taken twice."""
        check_number("cost", cost, 0, limit.burst)
        key = self._named("lim", limit.key)
        wait = self._engine.call("take", [key], float(cost), float(limit.per_second), float(limit.burst))
        return int(wait) / 1e6

    def new_number(self) -> int:
        """The number of a node; see `penstock.ports.LogStore.new_number`.

        The server counts, from a random number on: if it loses its data, the next numbers are unlikely to be those of
        nodes that still run.
        """
        key = self._number
        first = secrets.randbelow(NODE_NUMBERS)
        self._engine.run(key, lambda client: client.set(key, first, nx=True))
        return int(self._engine.run(key, lambda client: client.incr(key))) % NODE_NUMBERS

    def announce(self, info: NodeInfo, lease: float) -> None:
        """Enter a node; see `penstock.ports.LogStore.announce`."""
        self._engine.call("announce", self._nodes, info.node, msgspec.json.encode(info), round(lease * 1000))

    def view(self) -> StoreView:
        """The nodes; see `penstock.ports.LogStore.view`. Looks at all requests."""
        infos = []
        for said in self._engine.call("living", self._nodes):
            try:
                infos.append(_decode_node(said))
            except msgspec.MsgspecError:
                get_logger().warning("node_not_understood", store=self.name)
        held: dict[str, int] = {}
        for part in range(self._parts):
            flat = self._engine.call("counts", self._request_keys(part, ""))
            for node, count in zip(flat[::2], flat[1::2], strict=True):
                held[node.decode()] = held.get(node.decode(), 0) + count
        waiting = held.pop("", 0)
        nodes = {info.node: info for info in sorted(infos, key=lambda info: info.node)}
        return StoreView(nodes, held, waiting, self._engine.engine)

    def statistics(self) -> StoreStatistics:
        """The counters; what the server holds is not known."""
        return msgspec.structs.replace(self._appender.counts, commands_refused=self._commands.threads.refused)

    def close(self) -> None:
        """Close all connections, and end the threads."""
        with self._close_lock:
            if not self._engine.closed.is_set():
                self._engine.close()
                self._listener.close()
