"""What `SqliteJournal` does besides what every log store does: one writer, damage, full disks, retention."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

import penstock
from penstock.adapters.journals.sqlite import SqliteJournal
from penstock.config.store import StoreOptions
from penstock.errors import (
    OptionError,
    StoreDamaged,
    StoreError,
    StoreIncompatible,
    StoreInUse,
    StoreUnavailable,
)
from penstock.ports import EMPTY, Append, EntryId, LogFrame, OwnerMark, Request
from tests.contract.log_stores import SettableClock


def mark(epoch: int = 1) -> OwnerMark:
    return OwnerMark(EntryId(epoch, 0), "n", "open", b"head")


def frame(seq: int, data: bytes = b"x" * 100, *, is_last: bool = False) -> LogFrame:
    return LogFrame(EntryId(1, seq), seq, data, is_last)


def write_log(store: SqliteJournal, log: str, frames: int, data: bytes = b"x" * 100) -> None:
    store.append(log, EMPTY, mark())
    for seq in range(1, frames + 1):
        store.append(log, EntryId(1, seq - 1), frame(seq, data, is_last=seq == frames))


def in_process(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# --- one writer ----------------------------------------------------------------------------------------------------


def test_a_second_store_in_the_process_is_refused(tmp_path: Path) -> None:
    first = SqliteJournal(tmp_path / "a.db")
    (tmp_path / "b").symlink_to(tmp_path)
    for path in (tmp_path / "a.db", tmp_path / "b" / "a.db"):
        with pytest.raises(StoreInUse, match="read_only=True"):
            SqliteJournal(path)
    first.append("s", EMPTY, mark())
    first.close()
    second = SqliteJournal(tmp_path / "a.db")
    assert second.tail("s") == EntryId(1, 0)
    second.close()


OPEN_IT = """
import sys, penstock
from penstock.adapters.journals.sqlite import SqliteJournal
try:
    store = SqliteJournal(sys.argv[1], read_only=sys.argv[2] == "ro")
except penstock.StoreError as error:
    print(type(error).__name__)
else:
    print(store.tail("s"))
    try:
        store.forget("s")
    except penstock.StoreError as error:
        print(type(error).__name__)
"""


def test_another_process_is_refused_or_only_reads(tmp_path: Path) -> None:
    store = SqliteJournal(tmp_path / "a.db")
    store.append("s", EMPTY, mark())
    assert in_process(OPEN_IT, tmp_path / "a.db", "rw").stdout.split() == ["StoreInUse"]
    assert in_process(OPEN_IT, tmp_path / "a.db", "ro").stdout.split() == ["1-0", "StoreReadOnly"]
    assert store.append("s", EntryId(1, 0), frame(1)) == EntryId(1, 1)
    store.close()
    assert in_process(OPEN_IT, tmp_path / "a.db", "ro").stdout.split() == ["1-1", "StoreReadOnly"]
    assert in_process(OPEN_IT, tmp_path / "a.db", "rw").stdout.split() == ["1-1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_system_that_cannot_start_closes_the_store_that_it_has_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "a.db")
    with monkeypatch.context() as patch:
        patch.setattr(SqliteJournal, "new_number", _fail)
        with pytest.raises(StoreUnavailable):
            penstock.System(penstock.Settings(store=StoreOptions(path=path))).start()
        given = SqliteJournal(tmp_path / "b.db")
        with pytest.raises(StoreUnavailable):
            penstock.System(penstock.Settings(), journal=given).start()
    SqliteJournal(path).close()
    assert given.tail("log") == EMPTY, "it is still the caller's"
    given.close()


def _fail(store: SqliteJournal) -> int:
    raise StoreUnavailable(store.name, "it is away")


def test_the_child_of_a_fork_cannot_use_it_and_does_not_keep_it(tmp_path: Path) -> None:
    script = """
import os, sys, penstock
from penstock.adapters.journals.sqlite import SqliteJournal
store = SqliteJournal(sys.argv[1])
read, write = os.pipe()
child = os.fork()
if not child:
    os.close(write)
    try:
        store.tail("s")
    except penstock.StoreInUse:
        os.write(1, b"refused\\n")
    os.read(read, 1)
    os._exit(0)
store.close()
SqliteJournal(sys.argv[1]).close()
os.write(1, b"opened again\\n")
os.close(write)
os.waitpid(child, 0)
"""
    done = in_process(script, tmp_path / "a.db")
    assert sorted(done.stdout.splitlines()) == ["opened again", "refused"], done.stderr


# --- files that are not what they should be --------------------------------------------------------------------------


def test_a_missing_directory_and_a_missing_file_have_typed_errors(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="no such directory"):
        SqliteJournal(tmp_path / "none" / "a.db")
    with pytest.raises(StoreUnavailable, match="no such file"):
        SqliteJournal(tmp_path / "a.db", read_only=True)
    assert not (tmp_path / "a.db").exists()
    with pytest.raises(StoreUnavailable, match="it is a directory; name a file"):
        SqliteJournal(tmp_path)
    for path in ("", ":memory:"):
        with pytest.raises(OptionError, match="path"):
            SqliteJournal(path)
        with pytest.raises(OptionError, match=r"path.* allowed: the path of a file, or None"):
            StoreOptions(path=path)
    assert not list(tmp_path.iterdir())


def test_what_is_not_a_file_is_refused_and_nothing_is_made_beside_it(tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("there are no such files")
    os.mkfifo(tmp_path / "a.db")
    for read_only in (False, True):
        with pytest.raises(StoreUnavailable, match="it is not a file"):
            SqliteJournal(tmp_path / "a.db", read_only=read_only)
    (tmp_path / "b").mkdir()
    with pytest.raises(StoreUnavailable, match="it is a directory"):
        SqliteJournal(tmp_path / "b", read_only=True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.db", "b"]


def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"not a database, but long enough to be one" * 100)
    before = (tmp_path / "a.db").read_bytes()
    with pytest.raises(StoreDamaged, match="not a SQLite database"):
        SqliteJournal(tmp_path / "a.db")
    assert (tmp_path / "a.db").read_bytes() == before
    other = sqlite3.connect(tmp_path / "b.db")
    other.execute("CREATE TABLE t (a)")
    other.close()
    with pytest.raises(StoreIncompatible, match="another program's"):
        SqliteJournal(tmp_path / "b.db")


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    SqliteJournal(tmp_path / "a.db").close()
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreIncompatible, match="99"):
        SqliteJournal(tmp_path / "a.db")


def zeros_in_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 * 2 : 4096 * 8] = bytes(4096 * 6)
    path.write_bytes(data)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: 4096 * 5 + 100])


@pytest.mark.parametrize("damage", [zeros_in_the_middle, cut_off])
def test_a_damaged_file_is_reported_and_not_written(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "a.db"
    store = SqliteJournal(path)
    write_log(store, "s", 200)
    store.close()
    damage(path)
    before = path.read_bytes()
    with pytest.raises(StoreDamaged, match="damaged"):
        SqliteJournal(path)
    assert path.read_bytes() == before


def test_a_changed_byte_in_an_entry_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteJournal(path)
    write_log(store, "s", 3, b"the text of an answer")
    write_log(store, "t", 3, b"another text")
    store.close()
    data = path.read_bytes()
    assert data.count(b"the text of an answer") == 3
    path.write_bytes(data.replace(b"the text of an answer", b"the TEXT of an answer", 1))
    store = SqliteJournal(path)
    with pytest.raises(StoreDamaged, match="of log 's' is not what was written") as raised:
        store.read("s")
    assert "TEXT" not in str(raised.value)
    assert len(store.read("t")) == 4
    store.close()


# --- no room, no permission ------------------------------------------------------------------------------------------

FILL_UP = """
import resource, sys, penstock
from penstock.adapters.journals.sqlite import SqliteJournal
from penstock.ports import Append, EMPTY, EntryId, LogFrame, OwnerMark
store = SqliteJournal(sys.argv[1], synchronous=sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
tails = {log: EMPTY for log in "abc"}
for log in tails:
    tails[log] = store.append(log, EMPTY, OwnerMark(EntryId(1, 0), "n"))
for seq in range(1, 10_000):
    try:
        answers = store.append_all(
            [Append(log, tail, LogFrame(EntryId(1, seq), seq, b"x" * 1000)) for log, tail in tails.items()]
        )
    except penstock.StoreFull:
        print("full", seq, *(store.tail(log).seq for log in tails), store.statistics().failures, flush=True)
        break
    tails = dict(zip(tails, answers))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("then", store.append("a", tails["a"], LogFrame(EntryId(1, seq), seq, b"")).seq)
sys.stdout.flush()
import os
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits of a file's size")
@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
def test_a_full_disk_is_a_typed_error_and_nothing_is_half_written(tmp_path: Path, synchronous: str) -> None:
    done = in_process(FILL_UP, tmp_path / "a.db", synchronous)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][0] == "full", done.stderr
    seq = int(lines[0][1])
    assert lines[0][2:5] == [str(seq - 1)] * 3
    assert lines[1] == ["then", str(seq)]
    store = SqliteJournal(tmp_path / "a.db")
    assert [len(store.read(log)) for log in "abc"] == [seq + 1, seq, seq]
    store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are others there")
def test_a_directory_or_a_file_without_permission_to_write_is_a_typed_error(tmp_path: Path) -> None:
    home = tmp_path / "store"
    home.mkdir()
    store = SqliteJournal(home / "a.db")
    store.append("s", EMPTY, mark())
    store.close()
    drop_rights = "import os, sqlite3\npenstock.StoreError, os.getuid() or os.setuid(65534)\ntry:"
    script = OPEN_IT.replace("try:", drop_rights, 1)
    temporary = Path(tempfile.gettempdir())
    for parent in (tmp_path, *tmp_path.parents):  # pytest makes its own for its user alone
        if parent != temporary and temporary in parent.parents:
            parent.chmod(0o755)
    (home / "a.db").chmod(0o644)
    home.chmod(0o555)
    try:
        assert in_process(script, home / "a.db", "rw").stdout.split() == ["StoreReadOnly"]
        assert in_process(script, home / "new.db", "rw").stdout.split() == ["StoreReadOnly"]
        assert in_process(script, home / "a.db", "ro").stdout.split() == ["1-0", "StoreReadOnly"]
    finally:
        home.chmod(0o755)


def test_another_program_that_holds_the_file_is_reported_and_left_again(tmp_path: Path) -> None:
    store = SqliteJournal(tmp_path / "a.db", timeout=0)
    store.append("s", EMPTY, mark())
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="another program has locked the file"):
        store.append("s", EntryId(1, 0), frame(1))
    assert store.tail("s") == EntryId(1, 0)
    other.execute("ROLLBACK")
    other.close()
    assert store.append("s", EntryId(1, 0), frame(1)) == EntryId(1, 1)
    store.close()


def test_a_mistake_in_one_append_of_a_transaction_undoes_all(tmp_path: Path) -> None:
    store = SqliteJournal(tmp_path / "a.db")
    broken = LogFrame(EntryId(1, 1), 1, "text")  # type: ignore[arg-type]
    with pytest.raises((TypeError, StoreError)):
        store.append_all([Append("a", EMPTY, mark()), Append("b", EMPTY, broken)])
    assert store.tail("a") == EMPTY
    assert store.statistics().logs == 0
    assert store.statistics().bytes == 0
    store.close()


# --- retention -----------------------------------------------------------------------------------------------------


def test_ended_logs_are_removed_after_their_time_and_running_ones_are_not(tmp_path: Path) -> None:
    clock = SettableClock()
    store = SqliteJournal(tmp_path / "a.db", keep=100.0, clock=clock)
    write_log(store, "ended", 3)
    store.append("running", EMPTY, mark())
    clock.advance(90)
    write_log(store, "later", 3)
    assert store.sweep() == 0
    clock.advance(20)
    assert store.sweep() == 1
    assert [store.tail(log) != EMPTY for log in ("ended", "running", "later")] == [False, True, True]
    clock.advance(200)
    store.append("running", EntryId(1, 0), frame(1))  # a sweep is due
    assert [store.tail(log) != EMPTY for log in ("ended", "running", "later")] == [False, True, False]
    assert store.statistics().logs == 1
    store.close()


def test_the_logs_that_ended_first_make_room(tmp_path: Path) -> None:
    clock = SettableClock()
    store = SqliteJournal(tmp_path / "a.db", max_bytes=100_000, clock=clock)
    store.append("running", EMPTY, mark())
    for number in range(30):
        clock.advance(1)
        write_log(store, f"s{number}", 1, b"x" * 10_000)
    kept = [number for number in range(30) if store.tail(f"s{number}") != EMPTY]
    assert kept == list(range(30 - len(kept), 30))
    assert 8 <= len(kept) <= 10
    assert store.tail("running") == EntryId(1, 0)
    assert (store.statistics().bytes or 0) <= 102_000
    before = store.statistics()
    store.close()
    store = SqliteJournal(tmp_path / "a.db", max_bytes=100_000, clock=clock)
    assert (store.statistics().bytes, store.statistics().logs) == (before.bytes, before.logs)
    store.close()


def test_a_vacuum_gives_the_room_of_forgotten_logs_back(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteJournal(path)
    for number in range(20):
        write_log(store, f"s{number}", 1, os.urandom(20_000))
    for number in range(19):
        store.forget(f"s{number}")
    store.vacuum()
    assert path.stat().st_size < 60_000
    assert len(store.read("s19")) == 2
    store.close()


def test_requests_and_claims_outlive_the_process(tmp_path: Path) -> None:
    clock = SettableClock()
    store = SqliteJournal(tmp_path / "a.db", clock=clock)
    store.append_all([Append("s", EMPTY, mark(), opens=Request("r", "s", b"how"), node="n")])
    store.close()
    store = SqliteJournal(tmp_path / "a.db", clock=clock)
    assert [claim.request for claim in store.held("n")] == [Request("r", "s", b"how")]
    assert [claim.deliveries for claim in store.claim("m", 5, 0.0)] == [2]
    store.close()


def test_its_repr_is_short(tmp_path: Path) -> None:
    store = SqliteJournal(tmp_path / "a.db")
    assert repr(store) == "<SqliteJournal 'a.db', async>"
    store.close()
