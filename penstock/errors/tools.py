"""Errors of tools and of structured answers."""

from __future__ import annotations

from penstock.errors.base import PenstockError

__all__ = ["OutputInvalid", "ToolArgumentsError", "ToolError"]


class OutputInvalid(PenstockError):
    """A structured answer is not JSON, or does not fit its model.

    ``problems`` has for each problem its position and pydantic's type of error: ``"steps.0.minutes: int_parsing"``. The
    answer is not quoted; a name in the position that is not part of the model is ``*``. The text is in ``partial``.
    """

    def __init__(self, model: str, problems: tuple[str, ...], partial: str) -> None:
        self.model = model
        self.problems = problems
        self.partial = partial
        super().__init__(f"the answer is not a valid {model}: " + "; ".join(problems))


class ToolError(PenstockError):
    """A tool cannot do what was asked, or its result cannot be given to the model. The message goes to the model."""


class ToolArgumentsError(ToolError):
    """The model's arguments do not fit the tool's schema. The message tells the model which, and why."""
