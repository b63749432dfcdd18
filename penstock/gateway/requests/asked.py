"""What a request of any protocol asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from penstock.config.options import OnOrphan
from penstock.events import FrozenDict

__all__ = ["Asked"]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a model.

    Attributes:
        api: the form of ``input`` and ``parameters``: chat messages, or items of the Responses API.
        model: as the client names it.
        input: messages, or text or items.
        provider: the provider's name, if the request chooses one.
        parameters: everything else of the body that is the model's, in the form of ``api``.
        is_streamed: whether the client wants a stream.
        stream_id: the id that the client wants.
        on_orphan: what the client wants to happen when the last reader leaves; None: as the protocol's default.
        metadata: for the stream.
        options: changes to the stream's options, by name.
        request_options: changes to the request's options, by name.
        waits_for_approval: calls that need approval wait for a decision by another route, and are not denied at once.
        dropped: fields that cannot be carried to this provider, by their paths.
    """

    api: Literal["chat", "responses"]
    model: str
    input: Any
    provider: str | None = None
    parameters: Mapping[str, Any] = FrozenDict()
    is_streamed: bool = True
    stream_id: str | None = None
    on_orphan: OnOrphan | None = None
    metadata: Mapping[str, Any] = FrozenDict()
    options: Mapping[str, Any] = FrozenDict()
    request_options: Mapping[str, Any] = FrozenDict()
    waits_for_approval: bool = False
    dropped: tuple[str, ...] = ()
