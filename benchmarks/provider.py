"""The loopback provider in a process of its own, so that its work is not counted as the client's.

``python -m benchmarks.provider '{"model": {"repeat": 100}}'`` serves, for each model, an `Answer` with these fields.
With ``"calls": [[name, arguments], …]`` it first calls these functions, and answers when it gets their results.
It prints its base URL, and exits when its standard input is closed, so it cannot outlive the process that started it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.adapters.loopback.script import Answer, Reply, Script, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider

__all__ = ["main", "serving"]

_ROOT = Path(__file__).parents[1]


@contextmanager
def serving(answers: Mapping[str, Mapping[str, Any]], module: str = "benchmarks.provider") -> Iterator[str]:
    """Serve within this block; yields the base URL. ``module`` is the program that serves."""
    command = [sys.executable, "-m", module, json.dumps(answers)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError("the loopback provider did not start")
        yield url
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        process.stdout.close()


def _reply(calls: Sequence[Sequence[str]] = (), **fields: Any) -> Reply:
    answer = Answer(**fields)
    if not calls:
        return answer
    asking = Answer("", tool_calls=tuple(ScriptedCall(name, arguments) for name, arguments in calls))
    return lambda request: asking if request.tool_result is None else answer


def main(answers: str) -> None:
    """Serve until standard input is closed."""
    models = {model: _reply(**fields) for model, fields in json.loads(answers).items()}
    with LoopbackProvider(Script(models=models), max_connections=5000) as provider:
        print(provider.base_url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
