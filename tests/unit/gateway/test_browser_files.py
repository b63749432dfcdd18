"""The browser client as a package: its types hold, its declarations are those of the module, and npm packs it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest

import penstock
from penstock import events
from penstock.gateway.projections import native
from tests.judges.install import find_node, find_npm, find_packages

FOLDER = Path(penstock.__file__).parent / "gateway" / "browser"
FILES = {"LICENSE", "README.md", "package.json", "penstock.d.mts", "penstock.mjs"}
MODULE = (FOLDER / "penstock.mjs").read_text("utf-8")
OUTCOMES = ("completed", "failed", "cancelled")
STRICT = (
    *("--allowJs", "--checkJs", "--strict", "--noUncheckedIndexedAccess", "--target", "es2022", "--module", "nodenext"),
    *("--lib", "es2022,dom,dom.iterable,dom.asynciterable"),
)


def node_with(script: Any, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of Node's; skips where there is none."""
    node = find_node()
    for found in (node, script):
        if isinstance(found, str):
            pytest.skip(found)
    command = [str(node), str(script), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def tsc(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    packages = find_packages()
    program = packages if isinstance(packages, str) else packages / "typescript" / "bin" / "tsc"
    return node_with(program, *STRICT, *arguments, folder=folder)


def test_the_types_hold_and_the_declarations_are_those_of_the_module(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "penstock.mjs", tmp_path)
    done = tsc("--declaration", "--emitDeclarationOnly", "--stripInternal", "penstock.mjs", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "penstock.d.mts").read_text("utf-8") == (FOLDER / "penstock.d.mts").read_text("utf-8")


def test_a_program_in_typescript_sees_the_types(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "node_modules" / "penstock-client")
    program = """import { Penstock, PenstockError, type PenstockEvent } from 'penstock-client';
        const client = new Penstock({ url: 'http://127.0.0.1/', transport: 'sse', key: async () => 'k' });
        const stream = client.read('s', { after: 3, epoch: 'e' });
        for await (const event of stream) {
          const one: PenstockEvent = event;
          if (one.type === 'token') { const kind: 'text' | 'reasoning' | 'refusal' = one.kind; }
          else if (one.type === 'end') { const outcome: 'completed' | 'failed' | 'cancelled' = one.outcome; }
        }
        const code: string = new PenstockError({}).code;
        """
    (tmp_path / "good.mts").write_text(program, "utf-8")
    (tmp_path / "bad.mts").write_text(program.replace("transport: 'sse'", "transport: 'udp'"), "utf-8")
    good, bad = (tsc("--noEmit", name, folder=tmp_path) for name in ("good.mts", "bad.mts"))
    assert (good.returncode, good.stdout) == (0, "")
    assert "udp" in bad.stdout


def test_npm_packs_what_the_package_says() -> None:
    done = node_with(find_npm(), "pack", "--dry-run", "--json", "--offline", folder=FOLDER)
    assert done.returncode == 0, done.stderr
    (packed,) = json.loads(done.stdout)
    assert {one["path"] for one in packed["files"]} == FILES
    assert not list(FOLDER.glob("*.tgz"))


def test_the_package_has_the_version_and_the_licence_of_penstock() -> None:
    package = json.loads((FOLDER / "package.json").read_text("utf-8"))
    assert package["version"] == penstock.__version__
    assert package["license"] == "MIT"
    assert {path.name for path in FOLDER.iterdir()} == FILES == {*package["files"], "package.json"}
    root = Path(__file__).parents[3]
    assert (FOLDER / "LICENSE").read_bytes() == (root / "LICENSE").read_bytes()


def test_the_types_name_every_event() -> None:
    named = set(
        re.findall(
            r"(?<=')[a-z_]+(?=')", MODULE.partition("* A piece of text.")[2].partition("@typedef {TokenEvent |")[0]
        )
    )
    kinds = {*get_args(events.Event), penstock.StreamSnapshot}
    names = {kind.__name__: native._NAMES.get(kind.__name__) or native._snake(kind.__name__) for kind in kinds}
    names |= {kind.__name__: "end" for kind in get_args(events.TerminalEvent)}
    assert set(names.values()) - named == set()
    assert named - set(names.values()) == {"gap", "text", "reasoning", "refusal", "epoch", *OUTCOMES}


def test_the_module_imports_nothing_and_speaks_to_no_other_host() -> None:
    assert not re.search(r"^import\b|\bimport\(|https?://", MODULE, re.MULTILINE)
