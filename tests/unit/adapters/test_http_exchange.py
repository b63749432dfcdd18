"""How much of an error's body is read."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.adapters.http import exchange


class Body:
    """A body that gives as much as it is asked for, up to its length, and then fails if it is to."""

    def __init__(self, length: int, *, most: int = 1 << 30, fails: bool = False) -> None:
        self.headers: dict[str, str] = {}
        self._left = length
        self._most = most
        self._fails = fails

    def read1(self, size: int, *, decode_content: bool) -> bytes:
        assert decode_content
        count = min(size, self._left, self._most)
        if not count and self._fails:
            raise OSError("the connection is lost")
        self._left -= count
        return b"x" * count


@pytest.mark.parametrize("most", [1 << 30, 40_000, 1_000])
@pytest.mark.parametrize(("length", "read"), [(0, 0), (5_000, 5_000), (65_536, 65_536), (200_000, 65_536)])
def test_an_errors_body_is_read_up_to_its_limit_however_it_arrives(length: int, read: int, most: int) -> None:
    body: Any = Body(length, most=most)
    assert len(exchange._read_error_body(body)) == read


def test_what_came_of_an_errors_body_before_a_failure_is_kept() -> None:
    body: Any = Body(700, most=500, fails=True)
    assert exchange._read_error_body(body) == b"x" * 700
