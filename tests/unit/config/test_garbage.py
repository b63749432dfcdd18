"""`penstock.tune_gc`, in processes of its own: it changes a whole process."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

import penstock
from penstock.errors import OptionError

CHECK = """
import gc
before = gc.get_threshold()
import penstock
penstock.tune_gc({argument})
kept = gc.get_freeze_count()
print(gc.get_threshold()[0], gc.get_threshold()[1:] == before[1:], kept > 1000, gc.isenabled())
"""


@pytest.mark.parametrize(("argument", "threshold"), [("", 50_000), ("threshold=1_000", 1_000)])
def test_it_looks_less_often_and_not_at_what_is_loaded(argument: str, threshold: int) -> None:
    script = CHECK.format(argument=argument)
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.split() == [str(threshold), "True", "True", "True"]


@pytest.mark.parametrize("threshold", [0, 699, 10_000_001, 1.5, True])
def test_an_absurd_threshold_changes_nothing(threshold: object) -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    with pytest.raises(OptionError, match="threshold"):
        penstock.tune_gc(threshold)  # type: ignore[arg-type]
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
