"""A key that is never shown."""

from __future__ import annotations

from typing import Any, Final, Self

__all__ = ["Secret", "is_secret_header"]

_SECRET_WORDS: Final = ("auth", "key", "token", "secret", "password", "cookie", "credential", "session")


class Secret:
    """A key; only `reveal` returns its text.

    Its repr and str, and so logs and formatted text, show stars. It cannot be pickled.

    >>> Secret("sk-123")
    Secret('***')
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the key. Only the adapter that sends it may call this."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> Any:
        raise TypeError("a Secret cannot be pickled")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self


def is_secret_header(name: str) -> bool:
    """Whether the value of a header of that name is probably a secret.

    >>> [is_secret_header(name) for name in ("Authorization", "X-Api-Key", "Accept")]
    [True, True, False]
    """
    return any(word in name.lower() for word in _SECRET_WORDS)
