"""The copies that the tool of mutation changes have what the tests of the modules read."""

from __future__ import annotations

import re
from pathlib import Path

from tests.mutation.__main__ import Mutation
from tests.mutation.modules import MODULES

ROOT = Path(__file__).parents[2]
PLACE = re.compile(r'Path\(__file__\)\.parents\[(\d)\]((?: / "[^"]+")+)')


def test_a_copy_has_the_files_that_the_tests_name(tmp_path: Path) -> None:
    Mutation(tmp_path, jobs=1, limit=1.0, ends_at=0.0)
    found = set()
    for name in {test.partition("::")[0] for tests in MODULES.values() for test in tests}:
        path = ROOT / name
        for file in [path] if path.is_file() else path.rglob("*.py"):
            for match in PLACE.finditer(file.read_text("utf-8")):
                read = file.parents[int(match[1])].joinpath(*re.findall('"([^"]+)"', match[2]))
                if read.exists():
                    found.add(read.relative_to(ROOT))
    assert len(found) > 1
    assert [str(read) for read in found if not (tmp_path / "0" / read).exists()] == []
