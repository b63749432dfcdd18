"""The URL of a server: every form that is allowed, and each fault as an error that has no secret."""

import pytest

from penstock.config.cluster import ClusterOptions
from penstock.config.server_url import parse_server_url, shown_url
from penstock.config.settings import Settings
from penstock.errors import OptionError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host", {"hosts": (("host", 6379),), "kind": "", "is_tls": False, "database": 0}),
        ("valkeys://host:1/2", {"hosts": (("host", 1),), "is_tls": True, "database": 2}),
        ("REDIS://[::1]:7", {"hosts": (("::1", 7),), "name": "redis://[::1]:7"}),
        ("redis://me:p%40ss@h/1", {"user": "me", "password": "p@ss", "database": 1, "name": "redis://h/1"}),
        ("redis://:pass@h", {"user": None, "password": "pass"}),
        ("redis://h?db=3&password=p&username=u", {"database": 3, "user": "u", "password": "p", "name": "redis://h"}),
        ("redis://h/3?db=3", {"database": 3}),
        ("unix:///run/my%20sock?db=4", {"path": "/run/my sock", "hosts": (), "database": 4}),
        ("unix://u:p@/run/s", {"path": "/run/s", "user": "u", "password": "p", "name": "unix:///run/s"}),
        ("redis+sentinel://a,b:1/main/2", {"hosts": (("a", 26379), ("b", 1)), "service": "main", "database": 2}),
        ("valkey+cluster://h:1", {"kind": "cluster", "hosts": (("h", 1),)}),
        (
            "rediss://h?ssl_ca_certs=/ca.pem&ssl_check_hostname=no&socket_timeout=1.5&max_connections=9",
            {
                "arguments": {
                    "ssl_ca_certs": "/ca.pem",
                    "ssl_check_hostname": False,
                    "socket_timeout": 1.5,
                    "max_connections": 9,
                }
            },
        ),
    ],
)
def test_every_form_of_a_url_is_taken_apart(url: str, expected: dict[str, object]) -> None:
    found = parse_server_url("url", url)
    assert {name: getattr(found, name) for name in expected} == expected
    assert "pass" not in repr(found).replace("password", "")


@pytest.mark.parametrize(
    ("url", "shown", "allowed"),
    [
        ("http://me:secret@h", "http://***@h", "redis://host:port"),
        ("h:6379", "h:6379", "redis://host:port"),
        ("redis:h", "redis:***", "redis://host:port"),
        ("redis+other://h", "redis+other://h", "redis+sentinel://"),
        ("redis+://h", "redis+://h", "redis+sentinel://"),
        ("unix+cluster:///s", "unix+cluster:///s", "unix:///path"),
        (" redis://h", " redis://h", "redis://host:port"),
        ("redis://h o", "redis://h o", "redis://host:port"),
        ("redis://[::1", "redis://[::1", "redis://host:port"),
        ("redis://", "redis://", "a host after ://"),
        ("redis://:6379", "redis://:6379", "a host after ://"),
        ("redis://me:secret@", "redis://***@", "a host after ://"),
        ("redis://me:secret", "redis://me:***", "a port from 1 to 65535"),
        ("redis://h:0", "redis://h:0", "a port from 1 to 65535"),
        ("redis://h:65536", "redis://h:65536", "a port from 1 to 65535"),
        ("redis://h:1,i:2", "redis://h:1,i:2", "only redis+sentinel:// takes several"),
        ("redis://h/one", "redis://h/one", "a whole number as the database"),
        ("redis://h/-1", "redis://h/-1", "a whole number as the database"),
        ("redis://h/1?db=2", "redis://h/1?db=2", "one number of a database"),
        ("redis://h?db=x", "redis://h?db=x", "as db, a whole number"),
        ("redis+cluster://h/1", "redis+cluster://h/1", "no database but 0"),
        ("redis://me:sec#ret@h", "redis://***@h", "%40, %2F, %3F and %23"),
        ("redis://me:1/secret@h", "redis://***@h", "%40, %2F, %3F and %23"),
        ("redis://me:1?secret@h", "redis://***@h", "%40, %2F, %3F and %23"),
        ("redis://h?pasword=secret", "redis://h?pasword=***", "only these parameters: db, username"),
        ("redis://h?decode_responses=true", "redis://h?decode_responses=***", "only these parameters"),
        ("redis://h?password=secret&db=", "redis://h?password=***&db=", "as db"),
        ("redis://h?db=1&db=1", "redis://h?db=1&db=1", "db once"),
        ("redis://h?socket_timeout=0", "redis://h?socket_timeout=0", "a number of seconds"),
        ("redis://h?ssl_cert_reqs=none", "redis://h?ssl_cert_reqs=none", "only with TLS: rediss://"),
        ("rediss://h?ssl_cert_reqs=non", "rediss://h?ssl_cert_reqs=non", "none, optional or required"),
        ("rediss://h?ssl_check_hostname=2", "rediss://h?ssl_check_hostname=2", "true or false"),
        ("unix://", "unix://", "unix:///path/of/socket"),
        ("unix://run/s", "unix://run/s", "unix:///path/of/socket"),
        ("unix://me:secret@run/s", "unix://***@run/s", "unix:///path/of/socket"),
        ("redis+sentinel://h:1", "redis+sentinel://h:1", "host:port/service"),
        ("redis+sentinel://h:1/s/x", "redis+sentinel://h:1/s/x", "/service/database"),
        ("redis+sentinel://h:x/s", "redis+sentinel://h:***/s", "a port from 1 to 65535"),
        ("redis+sentinel://h,,i/s", "redis+sentinel://h,,i/s", "a host after ://"),
    ],
)
def test_a_wrong_url_is_refused_with_its_name_what_is_allowed_and_no_secret(url: str, shown: str, allowed: str) -> None:
    with pytest.raises(OptionError) as refused:
        ClusterOptions(url=url)
    assert (refused.value.field, str(refused.value.got)) == ("url", shown)
    assert allowed in refused.value.allowed
    assert str(refused.value) == f"url: got {shown!r}, allowed: {refused.value.allowed}"
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("value", ["http://me:secret@h", ["redis://me:secret@h"]])
def test_the_error_of_a_setting_has_no_secret_either(value: object) -> None:
    with pytest.raises(OptionError, match=r"cluster\.url: got ") as refused:
        Settings.load(cluster={"url": value})
    assert "secret" not in str(refused.value)


def test_settings_are_shown_without_the_secrets_of_the_url() -> None:
    options = ClusterOptions(url="redis://h/1?password=secret")
    assert "secret" not in repr(options)
    assert Settings(cluster=options).to_dict()["cluster"]["url"] == "redis://h/1?password=***"
    assert Settings().to_dict()["cluster"]["url"] is None


def test_of_a_url_of_any_form_everything_before_the_last_at_is_hidden() -> None:
    assert shown_url("redis://a:b@c@d:1") == "redis://***@d:1"
    assert shown_url("a:b@c") == "***@c"
