"""A network namespace of Linux, for a process that the network cuts off."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Self

import pytest

__all__ = ["Namespace"]


class Namespace:
    """A network with one cable to this machine's. Skips the test where it cannot be made: it takes root and ``ip``.

    Attributes:
        inside: its address.
        outside: that of this machine, as it is seen from there.
        prefix: the words before a command that is to run in it.
    """

    def __init__(self) -> None:
        number = os.getpid() % 16_000
        high, low = number // 64, number % 64 * 4
        self._name = f"penstock-{number}"
        self._ends = (f"ps{number}a", f"ps{number}b")
        self.outside, self.inside = (f"10.{214 + high // 256}.{high % 256}.{low + place}" for place in (1, 2))
        self.prefix: Sequence[str] = ("ip", "netns", "exec", self._name)

    def cut(self, *, to_outside: bool) -> None:
        """Drop every packet in one direction."""
        if to_outside:
            self._ip(*self.prefix[1:], "ip", "route", "add", "blackhole", f"{self.outside}/32")
        else:
            self._ip("route", "add", "blackhole", f"{self.inside}/32")

    def heal(self) -> None:
        """Let everything pass in both directions."""
        self._ip(*self.prefix[1:], "ip", "route", "del", "blackhole", f"{self.outside}/32", check=False)
        self._ip("route", "del", "blackhole", f"{self.inside}/32", check=False)

    def _ip(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)

    def __enter__(self) -> Self:
        if sys.platform != "linux" or shutil.which("ip") is None:
            pytest.skip("network namespaces need Linux and the program ip")
        here, there = self._ends
        steps = [
            f"netns add {self._name}",
            f"link add {here} type veth peer name {there}",
            f"link set {there} netns {self._name}",
            f"addr add {self.outside}/30 dev {here}",
            f"link set {here} up",
            f"netns exec {self._name} ip addr add {self.inside}/30 dev {there}",
            f"netns exec {self._name} ip link set {there} up",
            f"netns exec {self._name} ip link set lo up",
        ]
        for step in steps:
            done = self._ip(*step.split(), check=False)
            if done.returncode:
                self.close()
                pytest.skip(f"no network namespace can be made here: {done.stderr.strip()}")
        return self

    def close(self) -> None:
        """Remove it, with its cable."""
        self.heal()
        self._ip("link", "del", self._ends[0], check=False)
        self._ip("netns", "del", self._name, check=False)

    def __exit__(self, *exc_info: object) -> None:
        self.close()
