"""URLs at real servers: a Unix socket, a database, a password; and the errors of servers that are not reached."""

import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from penstock.adapters.journals.valkey import ValkeyJournal
from penstock.errors import StoreIncompatible, StoreUnavailable
from penstock.ports import EMPTY, EntryId, OwnerMark
from tests.integration.engines import PROGRAMS, Server, free_port


@pytest.fixture(params=PROGRAMS)
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server with a Unix socket, ``a socket``, and the password ``secret``."""
    settings = () if sys.platform == "win32" else ("--unixsocket", "a socket")
    with Server(tmp_path / "s", request.param, settings) as server:
        server.ask("CONFIG", "SET", "requirepass", "secret")
        yield server


def _keys_in(server: Server, database: int) -> int:
    with server.client(db=database, password="secret") as client:
        return int(client.dbsize())


@pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets")
@pytest.mark.parametrize("form", ["unix://:secret@{path}?db=3", "unix://{path}?db=3&password=secret"])
def test_a_unix_socket_is_a_way_to_the_server(guarded: Server, form: str) -> None:
    url = form.format(path=quote(str(guarded.folder / "a socket")))
    with ValkeyJournal(url, patience=0) as store:
        store.append("log", EMPTY, OwnerMark(EntryId(1, 0), "node", "opened"))
        assert store.name == f"unix://{quote(str(guarded.folder / 'a socket'))}"
    assert _keys_in(guarded, 3) > 0
    assert _keys_in(guarded, 0) == 0


def test_the_query_of_a_url_has_the_database_and_the_password(guarded: Server) -> None:
    with ValkeyJournal(f"{guarded.url}?db=2&password=secret&client_name=me&socket_timeout=5", patience=0) as store:
        store.append("log", EMPTY, OwnerMark(EntryId(1, 0), "node", "opened"))
    assert _keys_in(guarded, 2) > 0
    assert _keys_in(guarded, 0) == 0


def test_a_database_that_the_server_does_not_have_is_named(guarded: Server) -> None:
    with pytest.raises(StoreIncompatible, match="no database of this number"):
        ValkeyJournal(f"{guarded.url}/9999?password=secret", patience=0)


def test_a_wrong_password_is_not_tried_again_and_not_shown(guarded: Server) -> None:
    with pytest.raises(StoreIncompatible, match="refuses the user or the password") as refused:
        ValkeyJournal(guarded.url.replace("//", "//:wrong@"), patience=600)
    assert "wrong" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://127.0.0.1:{port}", "refused"),
        ("redis+cluster://127.0.0.1:{port}", "refused"),
        ("redis+sentinel://127.0.0.1:{port}/main", "no Sentinel that answers knows a primary"),
        pytest.param(
            "unix:///nowhere/socket",
            "No such file",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets"),
        ),
    ],
)
def test_a_server_that_cannot_be_reached_is_an_error_that_says_why(url: str, why: str) -> None:
    pytest.importorskip("redis")
    with pytest.raises(StoreUnavailable, match=why):
        ValkeyJournal(url.format(port=free_port()), patience=0)
