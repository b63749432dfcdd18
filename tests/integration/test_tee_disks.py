"""`Stream.tee` on real disks: one that is full, one that may not be written, a folder that is read-only."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

import penstock

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits and rights of POSIX")

FULL = """
    import resource, signal, sys
    import penstock

    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    with penstock.System() as system:
        parent = system.open_stream("p", penstock.SAFE.replace(batch_size=1))
        copied = parent.tee(sys.argv[1], on_error=sys.argv[2])
        try:
            parent.process_tokens(["é" * 30 + "1234"] * 40, timeout=20)  # 64 bytes each: the 16th does not fit
            parent.stop()
            print("completed", len(copied.result(20).text))
        except penstock.PenstockError as error:
            error = error if isinstance(error, penstock.TeeError) else copied._record.log.terminal.error
            print(type(error).__name__, type(error.__cause__).__name__, error.__cause__.errno)
        print("errors", copied.statistics().tee_errors)
"""

TAKEN = """
    import sys
    import penstock

    with penstock.System() as system:
        parent = system.open_stream("p")
        copied = parent.tee(sys.argv[1])
        print("open", flush=True)
        sys.stdin.readline()
"""

READ_ONLY = """
    import os, sys
    import penstock
    import penstock.toolbox.tee

    with penstock.System() as system:
        parent = system.open_stream("p")
        if os.geteuid() == 0:  # whom no right stops
            os.seteuid(65534)
        try:
            parent.tee(sys.argv[1])
            print("opened")
        except OSError as error:
            print(type(error).__name__, parent.statistics().subscribers)
        os.seteuid(os.getuid())
"""


def program(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *arguments]


def run(code: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        program(code, *arguments),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


def test_rule_22_a_full_disk_fails_the_stream_and_leaves_whole_events(tmp_path: Path) -> None:
    said = run(FULL, str(tmp_path / "x.txt"), "fail")
    assert said == ["TeeError OSError 27", "errors 1"]  # EFBIG
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt.partial"]
    assert (tmp_path / "x.txt.partial").read_text("utf-8") == ("é" * 30 + "1234") * 15


def test_rule_22_a_full_disk_is_given_up_with_detach(tmp_path: Path) -> None:
    said = run(FULL, str(tmp_path / "x.txt"), "detach")
    assert said == [f"completed {34 * 40}", "errors 1"]
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt.partial"]
    assert (tmp_path / "x.txt.partial").read_text("utf-8") == ("é" * 30 + "1234") * 15


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_device_without_room_fails_the_stream(tmp_path: Path) -> None:
    code = """
        import penstock

        with penstock.System() as system, open("/dev/full", "wb", 0) as full:
            parent = system.open_stream("p", penstock.SAFE)
            copied = parent.tee(full)
            parent.process_token("a")
            try:
                copied.result(20)
            except penstock.TeeError as error:
                print(error)
    """
    (said,) = run(code)
    assert said.endswith("its copy could not be written: OSError: No space left on device")


def test_rule_19_a_read_only_folder_is_noticed_at_the_call() -> None:
    with tempfile.TemporaryDirectory() as folder:  # one that other users can reach
        os.chmod(folder, 0o777)
        assert run(READ_ONLY, f"{folder}/x.txt") == ["opened"]
        os.chmod(folder, 0o555)
        assert run(READ_ONLY, f"{folder}/y.txt") == ["PermissionError 0"]
        assert os.listdir(folder) == ["x.txt"]
        os.chmod(folder, 0o700)


def test_two_processes_do_not_write_to_one_path(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    other = subprocess.Popen(
        program(TAKEN, str(path)),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with penstock.System() as system:
            parent = system.open_stream("p", penstock.SAFE)
            with pytest.raises(penstock.OptionError, match="no other tee"):
                parent.tee(path)
            other.kill()
            other.wait(20)
            copied = parent.tee(path)  # the lock has gone with its process
            parent.process_token("ours")
            parent.stop()
            assert copied.result(20).text == "ours"
    assert path.read_text() == "ours"
