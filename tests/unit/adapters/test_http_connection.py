"""TLS certificates are always verified, unless verification is explicitly disabled."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import requests

from penstock.adapters.http.connection import CancellableAdapter
from penstock.errors import OptionError


@pytest.mark.parametrize(
    ("verify", "wanted"),
    [(True, "CERT_REQUIRED"), ("", "CERT_REQUIRED"), (None, "CERT_REQUIRED"), (False, "CERT_NONE")],
)
def test_only_false_itself_switches_verification_off(verify: object, wanted: str) -> None:
    connection = SimpleNamespace()
    CancellableAdapter(1).cert_verify(connection, "https://localhost/", verify, None)
    assert connection.cert_reqs == wanted


def test_an_empty_path_is_no_ca_bundle_and_not_the_absence_of_one() -> None:
    prepared = requests.Request("POST", "https://localhost/").prepare()
    with pytest.raises(OptionError, match="verify_tls"):
        CancellableAdapter(1).build_connection_pool_key_attributes(prepared, "")
