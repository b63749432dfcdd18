"""The machine and the versions that a figure belongs to."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["describe_machine", "describe_versions"]

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
