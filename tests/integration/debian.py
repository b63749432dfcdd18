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
        self._path = self._folder / path
        self._packages = packages
        self._depending = depending
        self._target = target
        self._others = others
        self._unneeded = [self._folder / each for each in unneeded]

    def command(self) -> str:
        """Its path: of the unpacked one if there is one. Skips the test if there is none."""
        if self._path.exists():
            return str(self._path)
        places = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
        for name in (self.name, *self._others):
            if installed := shutil.which(name, path=places):
                return installed
        pytest.skip(f"no {self.name} on this machine; `make {self._target}` unpacks it from Debian's packages")

    def environment(self) -> dict[str, str]:
        """The environment to start it in: this process's, with the libraries that were unpacked."""
        folders = sorted({str(path.parent) for path in self._folder.rglob("*.so*")})
        if not self._path.exists() or not folders:
            return dict(os.environ)
        return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(folders)}

    def fetch(self) -> None:
        """Download the packages and the libraries that are missing, and unpack them, unless they are there.

        Raises:
            SystemExit: apt-get or dpkg is missing, or a package cannot be had.
        """
        for tool in ("apt-get", "dpkg", "ldd"):
            if shutil.which(tool) is None:
                sys.exit(f"{tool} is missing: {self.name} can only be unpacked on Debian and its relatives")
        if not self._path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            for package in self._packages:
                self._unpack(package)
            for file in self._unneeded:
                file.unlink(missing_ok=True)
        if not self._path.exists():
            sys.exit(f"{self.name} is not in {', '.join(self._packages)}")
        if self._depending is None:
            return
        if self._missing():
            for package in _needed(self._depending):
                self._unpack(package)
        if missing := self._missing():
            sys.exit(f"{self.name} lacks {', '.join(missing)}")

    def _unpack(self, package: str) -> None:
        command = ["apt-get", "download", "--quiet", "--quiet", package]
        if subprocess.run(command, cwd=self._folder, check=False).returncode:
            sys.exit(f"the package {package} cannot be downloaded")
        for file in self._folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", file, self._folder], check=True)
            file.unlink()

    def _missing(self) -> list[str]:
        """The libraries that it does not find."""
        command = ["ldd", str(self._path)]
        shown = subprocess.run(command, env=self.environment(), capture_output=True, text=True, check=True).stdout
        return re.findall(r"(\S+) => not found", shown)


def _needed(package: str) -> list[str]:
    """The packages with libraries that would be installed with a package. Nothing is installed."""
    command = ["apt-get", "install", "--simulate", "--quiet", "--no-install-recommends", package]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return re.findall(r"^Inst (lib\S+|zlib\S+) ", shown, re.MULTILINE)
