"""Errors of tools and of structured answers."""

from __future__ import annotations

from penstock.errors.base import PenstockError

__all__ = ["OutputInvalid", "ToolArgumentsError", "ToolError"]


class OutputInvalid(PenstockError):
    """A structured answer is no JSON, or does not fit its model.

    ``problems`` says where and why, without the answer's text, which is in ``partial``.
    """

    def __init__(self, model: str, problems: tuple[str, ...], partial: str) -> None:
        self.model = model
        self.problems = problems
        self.partial = partial
        super().__init__(f"the answer is no {model}: " + "; ".join(problems))


class ToolError(PenstockError):
    """A tool cannot do, or tell, what was asked. Its text goes to the model."""


class ToolArgumentsError(ToolError):
    """The model's arguments do not fit; the text says which and why, for the model to do better."""
