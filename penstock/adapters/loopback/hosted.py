"""Tools that the provider runs itself, as parts of an answer: a call, and its result unless it does not come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import msgspec

from penstock.adapters.loopback.pieces import check_id, check_text, fragments_of, take_json, take_tuple
from penstock.config.checks import check_choice, check_number
from penstock.errors import OptionError

__all__ = ["Found", "Ran", "Search", "ServerTool"]

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Found:
    """A result of a `Search`: a page."""

    url: str
    title: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        for name in ("url", "title", "text"):
            check_text(name, getattr(self, name))


@dataclass(frozen=True, slots=True)
class Search:
    """A search of the web by the provider.

    Attributes:
        query: what is searched for.
        results: what is found; None: the result does not come, as when the provider pauses.
        error: the search fails with this code (``"max_uses_exceeded"``), in place of results.
        takes: seconds of silence between call and result.
        id: of the call; None: made up.
    """

    query: str
    results: Sequence[Found] | None = ()
    _: KW_ONLY
    error: str | None = None
    takes: float = 0.0
    id: str | None = None

    def __post_init__(self) -> None:
        check_number("takes", self.takes, 0, _DAY_S)
        check_text("query", self.query)
        take_tuple(self, "results", Found, "a list of Found, or None", optional=True)
        check_text("error", self.error, optional=True)
        check_id(self.id)

    @property
    def input_text(self) -> str:
        """The arguments as JSON."""
        return msgspec.json.encode({"query": self.query}).decode()

    @property
    def has_result(self) -> bool:
        """Whether the call is followed by a result."""
        return self.results is not None or self.error is not None

    @property
    def token_count(self) -> int:
        """How many events of it are paced and counted: pieces of the call, and the result."""
        return len(fragments_of(self.input_text)) + self.has_result


@dataclass(frozen=True, slots=True)
class Ran:
    """Code that the provider has run.

    Attributes:
        code: in Python.
        output: what it printed; None: the result does not come.
        failed: the code has raised an error.
        takes: seconds of silence between code and result.
        early_finish: Gemini sends its finish reason with the code already, as some of its models do.
        id: of the call; None: made up.
    """

    code: str
    output: str | None = ""
    _: KW_ONLY
    failed: bool = False
    takes: float = 0.0
    early_finish: bool = False
    id: str | None = None

    def __post_init__(self) -> None:
        check_number("takes", self.takes, 0, _DAY_S)
        check_choice("early_finish", self.early_finish, (True, False))
        check_text("code", self.code)
        check_text("output", self.output, optional=True)
        check_choice("failed", self.failed, (True, False))
        check_id(self.id)

    @property
    def input_text(self) -> str:
        """The arguments as JSON."""
        return msgspec.json.encode({"code": self.code}).decode()

    @property
    def has_result(self) -> bool:
        """Whether the call is followed by a result."""
        return self.output is not None

    @property
    def token_count(self) -> int:
        """How many events of it are paced and counted: pieces of the call, and the result."""
        return len(fragments_of(self.input_text)) + self.has_result


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A call of another tool that the provider runs itself, and its result.

    Attributes:
        name: the tool: ``"web_fetch"``, ``"file_search"``, ``"tool_search"`` …; with ``server``, the MCP server's tool.
        input: the arguments, a JSON object.
        output: the result as JSON; None: it does not come.
        server: the name of the MCP server that has the tool.
        failed: the tool has failed, and ``output`` says why.
        takes: seconds of silence between call and result.
        id: of the call; None: made up.
    """

    name: str
    input: Any = None
    output: Any = None
    _: KW_ONLY
    server: str | None = None
    failed: bool = False
    takes: float = 0.0
    id: str | None = None

    def __post_init__(self) -> None:
        check_number("takes", self.takes, 0, _DAY_S)
        check_text("name", self.name)
        if not self.name:
            raise OptionError("name", self.name, "at least one character")
        if self.input is None:
            object.__setattr__(self, "input", {})
        take_json(self, "input", "a dict that JSON can encode", dict)
        take_json(self, "output")
        check_text("server", self.server, optional=True)
        check_choice("failed", self.failed, (True, False))
        check_id(self.id)

    @property
    def input_text(self) -> str:
        """The arguments as JSON."""
        return msgspec.json.encode(self.input).decode()

    @property
    def output_text(self) -> str:
        """The result as text: itself, or its JSON."""
        return self.output if isinstance(self.output, str) else msgspec.json.encode(self.output).decode()

    @property
    def has_result(self) -> bool:
        """Whether the call is followed by a result."""
        return self.output is not None

    @property
    def token_count(self) -> int:
        """How many events of it are paced and counted: pieces of the call, and the result."""
        return len(fragments_of(self.input_text)) + self.has_result
