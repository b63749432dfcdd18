"""What the user has decided about calls that wait for approval."""

from __future__ import annotations

import msgspec

__all__ = ["Approval"]


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """A decision.

    Attributes:
        call_id: the call's id, as in `ToolApprovalRequested`.
        is_approved: whether the call may run.
        reason: why not, for the model; None if the user gives none.
    """

    call_id: str
    is_approved: bool
    reason: str | None = None
