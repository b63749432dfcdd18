"""``penstock keys``: what is printed, what is kept, and that changes at the same time are not lost."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from penstock.cli.commands import run_command
from penstock.errors import OptionError
from penstock.gateway import keys as keys_module
from penstock.gateway.keys import KeyFile, new_key

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def run(capfd: Capture, *arguments: object) -> tuple[int, str, str]:
    code = run_command(["keys", *map(str, arguments)])
    return code, *capfd.readouterr()


def make(capfd: Capture, file: Path, *arguments: str) -> tuple[str, str]:
    """Make a key; returns it and its id."""
    code, out, err = run(capfd, "new", file, *arguments)
    assert code == 0, err
    assert len(out.splitlines()) == 1
    return out.strip(), err.strip().rpartition(" ")[2]


def test_a_new_key_is_printed_once_and_only_its_hash_is_kept(capfd: Capture, file: Path) -> None:
    secret, key_id = make(capfd, file, "--name", "my app")
    assert secret.startswith("pk-")
    assert secret not in file.read_text()
    found = KeyFile(file).find(secret)
    assert found is not None
    assert (found.id, found.name, found.scopes) == (key_id, "my app", ("write",))
    if sys.platform != "win32":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_options_of_a_key_are_kept(capfd: Capture, file: Path) -> None:
    limits = ["--requests-per-minute", "1", "--tokens-per-minute", "2", "--streams", "3", "--max-body", "4"]
    secret, _ = make(capfd, file, "--scope", "read", "--scope", "admin", *limits)
    key = KeyFile(file).find(secret)
    assert key is not None
    assert key.scopes == ("read", "admin")
    assert (key.requests_per_minute, key.tokens_per_minute, key.streams, key.max_body) == (1, 2, 3, 4)


def test_the_list_shows_neither_keys_nor_hashes(capfd: Capture, file: Path) -> None:
    secret, key_id = make(capfd, file, "--name", "one", "--streams", "3")
    other, other_id = make(capfd, file)
    run(capfd, "revoke", file, other_id)
    hashes = [json.loads(line)["hash"] for line in file.read_text().splitlines()]
    for options in ([], ["--json"]):
        code, out, err = run(capfd, "list", file, *options)
        assert (code, err) == (0, "")
        assert key_id in out
        assert other_id in out
        for hidden in (secret, other, *hashes):
            assert hidden not in out
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["name"], line["streams"], line["revoked"] is None) for line in lines] == [
        ("one", 3, True),
        ("", None, False),
    ]


def test_the_table_names_limits_as_the_options_do(capfd: Capture, file: Path) -> None:
    _, key_id = make(capfd, file, "--name", "one", "--streams", "3", "--max-body", "10")
    head, row = run(capfd, "list", file)[1].splitlines()
    assert head.split() == ["ID", "NAME", "SCOPES", "LIMITS", "MADE", "REVOKED"]
    assert row.split()[:5] == [key_id, "one", "write", "streams=3", "max-body=10"]


def test_a_revoked_key_is_no_longer_found_and_the_others_stay(capfd: Capture, file: Path) -> None:
    secret, key_id = make(capfd, file, "--name", "one")
    other, _ = make(capfd, file)
    assert run(capfd, "revoke", file, key_id) == (0, "", f"penstock: {key_id} (one) is revoked\n")
    assert KeyFile(file).find(secret) is None
    assert KeyFile(file).find(other) is not None
    before = KeyFile(file).read()
    assert run(capfd, "revoke", file, key_id)[::2] == (0, f"penstock: {key_id} (one) was revoked already\n")
    assert KeyFile(file).read() == before


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["new", "FILE", "--scope", "raed"], "unknown scope 'raed' (did you mean 'read'?); known: read, write, admin"),
        (["new", "FILE", "--streams", "0"], "Invalid value for '--streams': "),
        (["new", "FILE", "--name", "a\nb"], "--name must be printable text in one line"),
        (["new", "FILE/x/y"], "FILE: cannot write FILE/x/y: "),
        (["list", "FILE"], "FILE: cannot read FILE: No such file"),
        (["list", "."], "FILE: cannot read .: Is a directory"),
        (["revoke", "FILE", "key_1"], "FILE has no key 'key_1'; penstock keys list FILE shows all"),
        ([], "Missing command."),
    ],
)
def test_a_wrong_argument_is_one_line_and_code_2(
    capfd: Capture, file: Path, arguments: list[str], complaint: str
) -> None:
    code, out, err = run(capfd, *[each.replace("FILE", str(file)) for each in arguments])
    assert (code, out) == (2, "")
    expected = complaint.replace("FILE", str(file)).replace(f"{file}: cannot", "FILE: cannot")
    expected = expected.replace(f"keys list {file}", "keys list FILE")
    assert err.startswith(f"penstock: {expected}")
    assert len(err.splitlines()) == 1
    assert not file.exists()


def test_what_is_no_file_is_neither_read_nor_replaced(capfd: Capture, file: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("there are no such files")
    os.mkfifo(file)  # as a device, which may have no end
    for arguments in (["new", file], ["revoke", file, "key_1"], ["list", file]):
        assert run(capfd, *arguments) == (2, "", f"penstock: FILE: cannot read {file}: Not a regular file\n")
    assert file.is_fifo()
    assert list(file.parent.iterdir()) == [file]


def test_a_file_that_is_none_of_keys_is_left_alone(capfd: Capture, file: Path) -> None:
    file.write_text("not json\n")
    for arguments in (["new", file], ["list", file], ["revoke", file, "key_1"]):
        code, out, err = run(capfd, *arguments)
        assert (code, out) == (2, "")
        assert "line 1, is no key" in err
    assert file.read_text() == "not json\n"


def test_a_key_in_place_of_an_id_is_not_repeated(capfd: Capture, file: Path) -> None:
    secret, _ = make(capfd, file)
    code, out, err = run(capfd, "revoke", file, secret)
    assert (code, out) == (2, "")
    assert secret not in err
    assert "not the key itself" in err


def test_no_change_is_lost_when_many_are_made_at_once(file: Path) -> None:
    def add() -> None:
        for _ in range(10):
            with KeyFile(file).changing() as keys:
                keys.append(new_key("")[1])

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({key.id for key in KeyFile(file).read()}) == 80


def test_nothing_is_written_after_an_error(file: Path) -> None:
    with KeyFile(file).changing() as keys:
        keys.append(new_key("kept")[1])

    def fail() -> None:
        with KeyFile(file).changing() as keys:
            keys.clear()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [key.name for key in KeyFile(file).read()] == ["kept"]


def test_a_lock_that_is_held_is_reported(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "_PATIENCE", 0.0)
    with (
        KeyFile(file).changing(),
        pytest.raises(OptionError, match=r"another process has held the lock .*keys\.jsonl\.lock for 0 s"),
        KeyFile(file).changing(),
    ):
        pass


def test_while_the_file_cannot_be_read_the_last_keys_stay_valid_and_the_log_says_so_once(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret, key = new_key("one")
    KeyFile(file).write([key])
    open_file = KeyFile(file)
    assert open_file.find(secret) == key
    content = file.read_bytes()
    for change in (file.unlink, lambda: file.write_text("half a li"), lambda: file.write_text("")):
        caplog.clear()
        change()
        for _ in range(3):
            assert open_file.find(secret) == key
            assert open_file.is_valid(key.id)
            assert open_file.find("pk-other") is None
        told = [(record.levelname, record.getMessage().partition(" ")[0]) for record in caplog.records]
        assert told == [("WARNING", "keys_unreadable")]
        assert secret not in caplog.text
    file.write_bytes(content)
    assert open_file.find(secret) == key
    other, newer = new_key("two")
    KeyFile(file).write([newer])
    assert (open_file.find(secret), open_file.find(other)) == (None, newer)


def test_without_keys_that_were_read_before_none_is_valid(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert KeyFile(file).find("pk-any") is None
    assert "effect=no key is valid" in caplog.text
