"""What an error shows of a key that the provider has echoed."""

from __future__ import annotations

import pytest

from penstock.adapters.http.faults import scrub
from penstock.errors import ApiError

KEY = "sk-0123456789abcdef"


@pytest.mark.parametrize("key", [KEY, "with'quote-1", 'with"quote-1', "with\\backslash-1", "both'\"-1"])
def test_a_key_is_starred_out_whatever_signs_are_in_it(key: str) -> None:
    error = ApiError(401, f"your key {key} is wrong", code=f"bad_{key}")
    scrub(error, (f"Bearer {key}", key))
    assert error.message == "your key *** is wrong"
    assert error.code == "bad_***"
    assert key not in f"{error} {error!r}"


def test_a_message_that_was_cut_within_the_key_shows_no_piece_of_it() -> None:
    for cut in range(8, len(KEY)):
        error = ApiError(401, f"your key is {KEY[:cut]}")
        scrub(error, (f"Bearer {KEY}", KEY))
        assert error.message == "your key is ***"


def test_a_message_without_a_key_stays_as_it_is() -> None:
    error = ApiError(401, "the header must be Bearer", code="sk-0")
    scrub(error, (f"Bearer {KEY}", KEY))
    assert (error.message, error.code) == ("the header must be Bearer", "sk-0")
