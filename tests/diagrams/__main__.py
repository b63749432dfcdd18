"""Draw the diagrams of the documentation, and write the tables of its page: ``python -m tests.diagrams``."""

from __future__ import annotations

import sys

from tests.diagrams.layouts import DIAGRAMS
from tests.diagrams.pages import IMAGES, PAGE, fill


def main() -> int:
    """Write every file that is drawn from a state table."""
    IMAGES.mkdir(exist_ok=True)
    for name, diagram in DIAGRAMS.items():
        (IMAGES / f"{name}.svg").write_text(diagram.svg(), "utf-8")
    PAGE.write_text(fill(PAGE.read_text("utf-8")), "utf-8")
    print(f"{len(DIAGRAMS)} diagrams in {IMAGES}, tables in {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
