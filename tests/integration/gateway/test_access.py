"""What the gateway answers and refuses: keys, scopes, limits, tickets, hosts, origins; and what no answer has."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.sync.client import connect

from penstock.adapters.loopback.script import Answer, Script
from penstock.errors import OptionError
from penstock.gateway.core import GatewayCore
from penstock.gateway.keys import Key, KeyFile, new_key
from penstock.testing import eventually
from tests.integration.gateway.serving import PATIENCE, Served, events_of, gateway

ENDLESS = Answer(tokens=("word ",), repeat=100_000, pace=0.01)


class Keys:
    """A file of keys, and the text of each by name."""

    def __init__(self, path: Path) -> None:
        self.file = KeyFile(path)
        self.keys: list[Key] = []
        self.secrets: dict[str, str] = {}

    def add(self, name: str, scopes: tuple[str, ...] = ("read", "write"), **limits: int) -> None:
        self.secrets[name], key = new_key(name, scopes, **limits)
        self.keys.append(key)
        self.file.write(self.keys)

    def change(self, name: str, **changes: Any) -> None:
        self.keys = [msgspec.structs.replace(key, **changes) if key.name == name else key for key in self.keys]
        self.file.write(self.keys)

    def revoke(self, name: str) -> None:
        self.change(name, revoked=1)

    def of(self, name: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.secrets[name]}"}


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    made = Keys(tmp_path / "keys")
    made.add("ann")
    made.add("bob")
    made.add("reader", ("read",))
    made.add("boss", ("admin",))
    return made


@pytest.fixture
def server(keys: Keys) -> Iterator[Served]:
    with gateway(Script(Answer("Hi."), models={"endless": ENDLESS}), keys=str(keys.file.path)) as client:
        yield client


def opened(server: Served, headers: dict[str, str], **more: Any) -> str:
    body = {"provider": "openai", "model": "m", "messages": [{"role": "user", "content": "Hi"}], **more}
    answer = server.post("/v1/streams", body, headers=headers)
    assert answer.status_code == 201, answer.text
    stream_id: str = answer.json()["stream_id"]
    return stream_id


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer pk-wrong"}, {"authorization": "Basic x"}, {"x-api-key": ""}, {"x-api-key": "é"}],
)
def test_without_a_valid_key_nothing_but_health_is_answered(server: Served, headers: dict[str, str]) -> None:
    for path in ("/v1/streams", "/v1/models", "/v1/streams/x/events", "/v1/agents"):
        answer = server.get(path, headers={name: value.encode("latin-1") for name, value in headers.items()})
        assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert server.get("/ready").status_code == server.get("/live").status_code == 200


def test_a_key_is_taken_from_either_header_and_never_from_the_url(server: Served, keys: Keys) -> None:
    assert server.get("/v1/streams", headers=keys.of("ann")).status_code == 200
    assert server.get("/v1/streams", headers={"x-api-key": keys.secrets["ann"]}).status_code == 200
    answer = server.get(f"/v1/streams?key={keys.secrets['ann']}")
    assert answer.status_code == 401
    assert "ticket" in answer.json()["error"]["message"]


def test_a_stream_is_its_own_keys_and_the_admins(server: Served, keys: Keys) -> None:
    stream_id = opened(server, keys.of("ann"))
    for path in (f"/v1/streams/{stream_id}", f"/v1/streams/{stream_id}/events"):
        assert server.get(path, headers=keys.of("ann")).status_code == 200
        assert server.get(path, headers=keys.of("boss")).status_code == 200
        answer = server.get(path, headers=keys.of("bob"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "stream_not_found")
        missing = server.get(path.replace(stream_id, "nope"), headers=keys.of("bob"))
        assert missing.json()["error"]["message"].replace("nope", stream_id) == answer.json()["error"]["message"]
    listed: Callable[[str], int] = lambda name: server.get("/v1/streams", headers=keys.of(name)).json()["total"]  # noqa: E731
    assert (listed("ann"), listed("bob"), listed("boss")) == (1, 0, 1)


def test_scopes(server: Served, keys: Keys) -> None:
    assert server.get("/v1/streams", headers=keys.of("reader")).status_code == 200
    answer = server.post("/v1/streams", {}, headers=keys.of("reader"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "scope_missing")


def test_a_revoked_key_is_refused_from_the_next_request_on(server: Served, keys: Keys) -> None:
    assert server.get("/v1/streams", headers=keys.of("bob")).status_code == 200
    keys.revoke("bob")
    assert server.get("/v1/streams", headers=keys.of("bob")).status_code == 401
    assert server.get("/v1/streams", headers=keys.of("ann")).status_code == 200


def test_a_key_has_limits(server: Served, keys: Keys) -> None:
    keys.add("few", requests_per_minute=1)
    keys.add("one", streams=1)
    keys.add("small", max_body=2_000)
    assert server.get("/v1/streams", headers=keys.of("few")).status_code == 200
    answer = server.get("/v1/streams", headers=keys.of("few"))
    assert (answer.status_code, answer.json()["error"]["type"]) == (429, "rate_limit_error")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    first = opened(server, keys.of("one"), model="endless")
    again = server.post("/v1/streams", {}, headers=keys.of("one"))
    assert (again.status_code, again.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert server.request("DELETE", f"/v1/streams/{first}", headers=keys.of("one")).status_code == 204
    assert server.post("/v1/streams", {}, headers=keys.of("one")).status_code == 201
    large = server.post("/v1/streams", {"metadata": {"x": "y" * 2_000}}, headers=keys.of("small"))
    assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")
    assert server.post("/v1/streams", {"metadata": {"x": "y" * 2_000}}, headers=keys.of("ann")).status_code == 201


def test_limits_and_scopes_that_are_changed_count_from_the_next_request_on(server: Served, keys: Keys) -> None:
    def ask() -> Any:
        client.send(json.dumps({"op": "start", "on_orphan": "continue"}))
        while isinstance(answer := json.loads(client.recv(PATIENCE)), list):
            pass
        return answer.get("error", {}).get("code")

    keys.add("few", requests_per_minute=1)
    assert server.get("/v1/streams", headers=keys.of("few")).status_code == 200
    assert server.get("/v1/streams", headers=keys.of("few")).status_code == 429
    with connect(f"{server.ws}/v1/ws", additional_headers=keys.of("bob")) as client:
        assert ask() is None
        keys.change("few", requests_per_minute=10)
        keys.change("bob", streams=1)
        assert server.get("/v1/streams", headers=keys.of("few")).status_code == 200
        assert ask() == "rate_limit_exceeded"
        keys.change("bob", streams=None)
        assert ask() is None
        keys.change("bob", requests_per_minute=1)
        assert [ask(), ask()] == [None, "rate_limit_exceeded"]
        keys.change("bob", requests_per_minute=None, scopes=("read",))
        assert ask() == "scope_missing"


def test_tokens_that_were_used_delay_later_requests(keys: Keys) -> None:
    keys.add("frugal", tokens_per_minute=60)
    script = Script(Answer(tokens=("word ",), repeat=1_000))
    with gateway(script, keys=str(keys.file.path), heartbeat=0.05) as server:
        stream_id = opened(server, keys.of("frugal"))
        server.finish(stream_id)
        refused = lambda: server.get("/v1/streams", headers=keys.of("frugal")).status_code == 429  # noqa: E731
        eventually(refused)


@pytest.mark.parametrize("way", ["deleted", "deleted under way", "opened again", "opened again by the host"])
def test_what_a_stream_has_used_counts_also_if_it_is_gone_at_once(
    keys: Keys, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GatewayCore, "_look_after", lambda *_: None)  # which counts it up to a second later
    keys.add("frugal", tokens_per_minute=60)
    headers = keys.of("frugal")
    script = Script(Answer(tokens=("word ",), repeat=1_000), models={"endless": ENDLESS})
    with gateway(script, keys=str(keys.file.path)) as server:
        opened(server, headers, stream_id="one", model="endless" if way == "deleted under way" else "m")
        eventually(lambda: server.system.stream("one").statistics().tokens_delivered > 80)
        if way != "deleted under way":
            server.finish("one")
        if way.startswith("deleted"):
            assert server.request("DELETE", "/v1/streams/one", headers=headers).status_code == 204
        elif way == "opened again":
            opened(server, headers, stream_id="one")
        else:
            server.system.open_stream("one").stop()
            assert server.get("/v1/streams/one", headers=headers).status_code == 404
        assert server.get("/v1/streams", headers=headers).status_code == 429


def test_a_ticket_is_for_one_stream_and_works_again(server: Served, keys: Keys) -> None:
    stream_id, other = (opened(server, keys.of("ann")) for _ in range(2))
    made = server.post(f"/v1/streams/{stream_id}/tickets", headers=keys.of("ann")).json()
    for _ in range(2):
        answer = server.get(made["url"])
        assert (answer.status_code, events_of(answer.text)[-1][1]) == (200, "end")
    assert server.get(made["url"].replace(stream_id, other)).status_code == 401
    assert server.get(f"/v1/streams/{stream_id}/events?ticket=x").status_code == 401
    keys.revoke("ann")
    assert server.get(made["url"]).status_code == 401


_ALMOST = ("[::1].rebound.example", "localhost:rebound.example", "[localhost]rebound")


def test_without_keys_only_loopback_names_are_answered() -> None:
    with gateway() as server:
        assert server.get("/ready", headers={"host": f"localhost:{server.port}"}).status_code == 200
        for host in ("rebound.example", f"rebound.example:{server.port}", "127.0.0.1.example", *_ALMOST):
            answer = server.get("/ready", headers={"host": host})
            assert (answer.status_code, answer.json()["error"]["code"]) == (421, "host_not_allowed")
    with gateway(hosts=("inside.example",)) as server:
        assert server.get("/ready", headers={"host": "inside.example:80"}).status_code == 200


def test_pages_of_other_origins_change_nothing_unless_they_are_named() -> None:
    with gateway() as server:
        answer = server.post("/v1/streams", {}, headers={"origin": "https://evil.example"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
        assert (
            "access-control-allow-origin"
            not in server.get("/ready", headers={"origin": "https://evil.example"}).headers
        )
        assert server.post("/v1/streams", {}, headers={"origin": server.url}).status_code == 201
    with gateway(cors=("https://app.example",)) as server:
        asked = {"origin": "https://app.example", "access-control-request-headers": "authorization, content-type"}
        answer = server.request("OPTIONS", "/v1/streams", headers=asked)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert answer.headers["access-control-allow-headers"] == "authorization, content-type"
        answer = server.post("/v1/streams", {}, headers={"origin": "https://app.example"})
        assert answer.status_code == 201
        assert "x-penstock-stream-id" in answer.headers["access-control-expose-headers"]


def test_every_answer_has_a_request_id_and_security_headers(server: Served) -> None:
    given = server.get("/ready", headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    made = server.get("/nope", headers={"x-request-id": "two words"})
    assert made.headers["x-request-id"].startswith("req_")
    for answer in (given, made):
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_trace_goes_on_to_the_provider_and_into_the_metadata() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with gateway() as server:
        body = {"provider": "openai", "model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "tracestate": "a=b"}
        stream_id = server.post("/v1/streams", body, headers=headers).json()["stream_id"]
        server.finish(stream_id)
        sent = server.provider.requests[-1].headers
        assert sent["traceparent"].split("-")[1] == trace
        assert sent["traceparent"].split("-")[2] != "b7ad6b7169203331"
        assert sent["tracestate"] == "a=b"
        assert server.get(f"/v1/streams/{stream_id}").json()["metadata"]["traceparent"] == sent["traceparent"]
        for bad in ("", "00-0-0-0", f"ff-{trace}-b7ad6b7169203331-01", f"00-{'0' * 32}-b7ad6b7169203331-01"):
            stream_id = server.post("/v1/streams", body, headers={"traceparent": bad}).json()["stream_id"]
            server.finish(stream_id)
            assert server.provider.requests[-1].headers["traceparent"].split("-")[1] != trace


def test_a_file_of_keys_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    for content in (None, "not json\n", '{"id": 5}\n'):
        path = tmp_path / "broken"
        if content is not None:
            path.write_text(content)
        with pytest.raises(OptionError, match=r"gateway\.keys: .*broken"), gateway(keys=str(path)):
            pass


def test_keys_are_kept_as_hashes_that_only_their_user_may_read(keys: Keys) -> None:
    text = keys.file.path.read_text()
    assert not any(secret in text or secret.removeprefix("pk-") in text for secret in keys.secrets.values())
    assert keys.file.path.stat().st_mode & 0o077 == 0


def test_a_request_with_two_hosts_is_for_none_of_them() -> None:
    with gateway(Answer("Hi.")) as server:
        pairs = [(b"421", "localhost", "evil.example"), (b"421", "evil.example", "localhost")]
        for status, *hosts in (*pairs, (b"200", "localhost", "localhost")):
            with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
                head = "".join(f"Host: {host}\r\n" for host in hosts)
                client.sendall(f"GET /v1/streams HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode())
                assert client.makefile("rb").readline().split()[1] == status, hosts


def test_a_compressed_body_is_refused() -> None:
    with gateway(Answer("Hi.")) as server:
        answer = server.post("/v1/streams", {}, headers={"content-encoding": "gzip"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_encoding")
        assert server.post("/v1/streams", {}, headers={"content-encoding": "identity"}).status_code == 201
