"""Options of metrics, traces and the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from penstock.config.checks import Options, check_models

__all__ = ["Semconv", "TelemetryOptions"]

Semconv: TypeAlias = Literal["1.41", "latest"]
"""A version of OpenTelemetry's conventions for generative AI."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryOptions(Options):
    """What metrics and traces show.

    Attributes:
        models: models that metrics name, besides those that the settings name for providers and as fallbacks. All
            others are ``"other"``, since a client may name any model.
        otel_semconv: the names of OpenTelemetry's spans and metrics: those of version 1.41 of the conventions, or the
            latest ones.
        capture_content: whether spans have the messages, the answer, and the arguments and results of tools. They may
            hold personal data, and are stored wherever the spans are.

    >>> TelemetryOptions(otel_semconv="1.0")
    Traceback (most recent call last):
    penstock.errors.OptionError: otel_semconv: got '1.0', allowed: '1.41' | 'latest'
    """

    models: Annotated[tuple[str, ...], check_models] = ()
    otel_semconv: Semconv = "1.41"
    capture_content: bool = False

    def _check(self) -> None:
        if isinstance(self.models, list):
            object.__setattr__(self, "models", tuple(self.models))
