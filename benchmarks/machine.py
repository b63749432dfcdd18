"""The machine and the versions that a figure belongs to."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["describe_machine", "describe_versions", "measured_tree", "tree_hash"]

_ROOT = Path(__file__).parent.parent

_PACKAGES = (
    "penstock",
    "pykka",
    "requests",
    "urllib3",
    "sseclient-py",
    "msgspec",
    "openai",
    "anthropic",
    "google-genai",
    "ollama",
    "uvicorn",
    "starlette",
    "sse-starlette",
)


def describe_machine() -> str:
    """Describe processor, cores, system, interpreter and the current load."""
    load = f", load average {os.getloadavg()[0]:.2f} at the start" if hasattr(os, "getloadavg") else ""
    system = f"{platform.system()} {platform.release()}"
    interpreter = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{_processor()}, {os.cpu_count()} cores, {system}, {interpreter}{load}"


def describe_versions() -> str:
    """List the versions of Penstock and of the libraries it is compared with."""
    return ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "is not installed"


def tree_hash(root: Path = _ROOT / "penstock") -> str:
    """Hash the Python files of the package: a figure belongs to one state of them. 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def measured_tree(page: Path) -> str | None:
    """Return the hash that a page of results names, or None if it names none."""
    found = re.search(r"^- penstock/ tree ([0-9a-f]{16})$", page.read_text("utf-8"), re.MULTILINE)
    return found[1] if found else None
