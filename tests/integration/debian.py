"""Programs from Debian's packages, unpacked into ``.judges`` for the tests that need them; nothing is installed.

The environment variable ``JUDGES_FOLDER`` names another folder, as for the clients in JavaScript.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import penstock

__all__ = ["Program"]


class Program:
    """A program of this machine, or one that is unpacked with the libraries that this machine does not have.

    Args:
        folder: the name of its folder in ``.judges``.
        path: of the program in its package, such as ``usr/bin/promtool``.
        packages: to unpack; it is in one of them.
        depending: the package that depends on the libraries it needs, if it needs any.
        target: of ``make``, to unpack it.
        unneeded: large files of the packages, which are removed.
        others: names of installed programs that will do, or paths of such.
    """

    def __init__(
        self,
        folder: str,
        path: str,
        packages: Sequence[str],
        *,
        target: str,
        depending: str | None = None,
        unneeded: Sequence[str] = (),
        others: Sequence[str] = (),
    ) -> None:
        judges = Path(os.environ.get("JUDGES_FOLDER") or Path(penstock.__file__).parents[1] / ".judges")
        self.name = Path(path).name
        self._folder = judges / folder
        self._path = path
        self._packages = packages
        self._depending = depending
        self._target = target
        self._others = others
        self._unneeded = unneeded

    def command(self) -> str:
        """Its path: of the unpacked one if there is one. Skips the test if there is none."""
        if (unpacked := self._folder / self._path).exists():
            return str(unpacked)
        places = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
        for name in (self.name, *self._others):
            if installed := shutil.which(name, path=places):
                return installed
        pytest.skip(f"no {self.name} on this machine; `make {self._target}` unpacks it from Debian's packages")

    def environment(self) -> dict[str, str]:
        """The environment to start it in: this process's, with the libraries that were unpacked."""
        return self._environment_in(self._folder)

    def fetch(self) -> None:
        """Download the packages and the libraries that are missing, and unpack them, unless they are there.

        It is done in a folder beside the final one, which is renamed when it is whole.

        Raises:
            SystemExit: apt-get, dpkg or ldd is missing, or a package cannot be had or unpacked.
        """
        for tool in ("apt-get", "dpkg", "ldd"):
            if shutil.which(tool) is None:
                sys.exit(f"{tool} is missing: {self.name} can only be unpacked on Debian and its relatives")
        if (self._folder / self._path).exists() and not self._missing_in(self._folder):
            return
        part = self._folder.with_name(f"{self._folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        part.mkdir(parents=True)
        try:
            self._unpack_all(part)
            if self._folder.exists():
                shutil.rmtree(self._folder)
            part.rename(self._folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _environment_in(self, folder: Path) -> dict[str, str]:
        folders = sorted({str(path.parent) for path in folder.rglob("*.so*")})
        if not (folder / self._path).exists() or not folders:
            return dict(os.environ)
        return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(folders)}

    def _unpack_all(self, folder: Path) -> None:
        for package in self._packages:
            self._unpack(package, folder)
        for file in self._unneeded:
            (folder / file).unlink(missing_ok=True)
        if not (folder / self._path).exists():
            sys.exit(f"{self.name} is not in {', '.join(self._packages)}")
        if self._depending is not None and self._missing_in(folder):
            for package in _needed(self._depending):
                self._unpack(package, folder)
            if missing := self._missing_in(folder):
                sys.exit(f"{self.name} lacks {', '.join(missing)}")

    def _unpack(self, package: str, folder: Path) -> None:
        command = ["apt-get", "download", "--quiet", "--quiet", package]
        if subprocess.run(command, cwd=folder, check=False).returncode:
            sys.exit(
                f"{self.name} was not unpacked, as {package} cannot be downloaded: this machine is offline, "
                "or its lists of packages are missing or old (apt-get update). Tests that need it are skipped."
            )
        for file in folder.glob("*.deb"):
            if subprocess.run(["dpkg", "-x", file, folder], check=False).returncode:
                sys.exit(f"{self.name} was not unpacked: dpkg failed at {file.name}. Tests that need it are skipped.")
            file.unlink()

    def _missing_in(self, folder: Path) -> list[str]:
        """The libraries that it does not find."""
        if self._depending is None:
            return []
        command = ["ldd", str(folder / self._path)]
        environment = self._environment_in(folder)
        shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        return re.findall(r"(\S+) => not found", shown)


def _needed(package: str) -> list[str]:
    """The packages with libraries that would be installed with a package. Nothing is installed."""
    command = ["apt-get", "install", "--simulate", "--quiet", "--no-install-recommends", package]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return re.findall(r"^Inst (lib\S+|zlib\S+) ", shown, re.MULTILINE)
