"""The parameters of a client's body, none of which is for Penstock itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.adapters.providers.call_options import CALL_OPTIONS

__all__ = ["models_own"]


def models_own(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, so that all of them come to the model.

    Those with names of Penstock's own call options (``timeout``, ``extra_headers`` …) go into ``extra_body``; its
    entries are added to the request as they are.

    >>> models_own({"timeout": 5, "top_p": 1})
    {'top_p': 1, 'extra_body': {'timeout': 5}}
    """
    body = {name: value for name, value in parameters.items() if name in CALL_OPTIONS}
    others = {name: value for name, value in parameters.items() if name not in CALL_OPTIONS}
    extra = body.pop("extra_body", None)
    if isinstance(extra, Mapping):
        body = {**extra, **body}
    elif extra is not None:
        body["extra_body"] = extra
    return others | ({"extra_body": body} if body else {})
