"""Bodies are bounded before much is made of them."""

from __future__ import annotations

import pytest

from penstock.config.gateway import GatewayOptions
from penstock.gateway.bodies import decode_object
from penstock.gateway.problems import RequestRefused


def test_a_body_with_very_many_fields_is_not_decoded() -> None:
    many = "{" + ",".join(f'"{number:x}":1' for number in range(500_001)) + "}"
    with pytest.raises(RequestRefused) as refused:
        decode_object(many, GatewayOptions())
    assert refused.value.problem.code == "too_many_values"
    assert len(decode_object(many[: many.rindex(",")] + "}", GatewayOptions())) == 500_000
