"""The cookbook shows the programs of ``examples/``, whole, and what they print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "cookbook.md").read_text("utf-8")
SHOWN = re.findall(r"^`examples/(\w+)\.py`:\n\n```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("name", "code"), SHOWN, ids=[name for name, _ in SHOWN])
def test_a_block_of_the_cookbook_is_the_example_that_it_names(name: str, code: str) -> None:
    example = (ROOT / "examples" / f"{name}.py").read_text("utf-8")
    assert code.strip() == example.split('"""\n', 1)[1].strip()


def test_every_block_of_python_names_its_example() -> None:
    assert len(SHOWN) == TEXT.count("```python") > 0
