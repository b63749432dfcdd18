"""Derives what the recordings have besides text and calls, and writes it into their side files.

Run by hand, after a recording was added or a definition changed: ``python -m tests.corpus.derive_extras``. With
``--check``, nothing is written; the exit status tells whether all side files are up to date. `README.md` says what the
fields of ``expect_extras`` mean.

The recordings are read by the standard library alone, so that the side files are independent of Penstock's decoders.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.corpus import derive_chat, derive_gemini, derive_messages, derive_responses
from tests.corpus.bodies import Json, events, lines
from tests.corpus.found import Found

__all__ = ["CORPUS", "extras_of", "with_extras"]

CORPUS: Final = Path(__file__).parent

_BY_API: dict[str, tuple[Callable[[bytes], Iterator[Json]], Callable[[Iterator[Json]], Found]]] = {
    "chat": (events, derive_chat.derive),
    "responses": (events, derive_responses.derive),
    "messages": (events, derive_messages.derive),
    "gemini": (events, derive_gemini.derive),
    "ollama": (lines, derive_chat.derive_ollama),
}


def extras_of(body: bytes, api: str) -> Json:
    """What a recorded body has besides text and calls; empty if it has nothing of that, or the API's form is none."""
    if api not in _BY_API:
        return {}
    split, derive = _BY_API[api]
    return derive(split(body)).extras()


def with_extras(facts: Json) -> Json:
    """The content of a side file with ``expect_extras`` directly after ``expect``; without it if there are none."""
    facts = {name: value for name, value in facts.items() if name != "expect_extras"}
    extras = extras_of((CORPUS / facts["file"]).read_bytes(), facts["api"])
    if not extras:
        return facts
    names = list(facts)
    place = names.index("expect") + 1
    return (
        {name: facts[name] for name in names[:place]}
        | {"expect_extras": extras}
        | {name: facts[name] for name in names[place:]}
    )


def main(arguments: list[str]) -> int:
    """Write all side files; 1 if one of them was not up to date."""
    changed = 0
    for path in sorted(CORPUS.glob("*/*.json")):
        before = path.read_text(encoding="utf-8")
        after = json.dumps(with_extras(json.loads(before)), indent=1, ensure_ascii=False)
        if after != before:
            changed += 1
            print(path.relative_to(CORPUS))
            if "--check" not in arguments:
                path.write_text(after, encoding="utf-8", newline="\n")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
