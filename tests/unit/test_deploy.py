"""The files of ``deploy/`` name only what exists, agree with each other, and fit their schemas."""

from __future__ import annotations

import importlib
import itertools
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main
from ruamel.yaml import YAML

import penstock
from penstock.cli.commands import app
from penstock.config.durations import parse_duration
from penstock.config.gateway import GatewayOptions
from penstock.config.providers import KNOWN_PROVIDERS
from penstock.gateway import server
from penstock.gateway.routes.table import ROUTES
from penstock.telemetry.names import METRICS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8")
NGINX = (DEPLOY / "nginx.conf").read_text("utf-8")
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
LAST_FRAMES_S = 6  # see `Gateway.drain`


def documents(path: Path) -> list[Any]:
    return list(YAML(typ="safe").load_all(path.read_text("utf-8")))


COMPOSE: dict[str, Any] = documents(DEPLOY / "compose.yaml")[0]
NODES = {name: service for name, service in COMPOSE["services"].items() if name.startswith("node-")}
OBJECTS = [each for path in KUBERNETES for each in documents(path)]


def one(kind: str, name: str = "penstock") -> Any:
    (found,) = (each for each in OBJECTS if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def template(kind: str, name: str = "penstock") -> Any:
    return one(kind, name)["spec"]["template"]


def container() -> Any:
    (found,) = template("Deployment")["spec"]["containers"]
    return found


def commands() -> dict[str, list[str]]:
    """The arguments of `penstock` in each file."""
    found = {f"compose {name}": service["command"] for name, service in NODES.items()}
    (default,) = re.findall(r"^CMD \[(.*)\]$", DOCKERFILE, re.MULTILINE)
    return {**found, "Dockerfile": re.findall(r'"([^"]*)"', default), "Kubernetes": container()["args"]}


def options(arguments: list[str]) -> dict[str, str]:
    """The options of a command, each with the value after its equals sign or after it."""
    spaced = " ".join(arguments[1:]).replace("=", " ").split(" ")
    return {name: value for name, value in itertools.pairwise(spaced) if name.startswith("--")}


def environments() -> dict[str, Mapping[str, str]]:
    found = {f"compose {name}": service["environment"] for name, service in NODES.items()}
    return {**found, "Kubernetes": one("ConfigMap")["data"]}


# --- what exists -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", environments())
def test_the_environment_has_settings_that_exist(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {name for row in KNOWN_PROVIDERS for name in row.key_variables}
    for name, value in environments()[where].items():
        assert name.startswith("PENSTOCK_") or name in keys, name
        monkeypatch.setenv(name, re.sub(r"^\$\{.*\}$", "", value))
    penstock.Settings.load()  # refuses unknown names and values
    monkeypatch.setenv("PENSTOCK_GATEWAY__HEARTBEET", "15")
    with pytest.raises(penstock.OptionError):
        penstock.Settings.load()


@pytest.mark.parametrize("where", commands())
def test_the_commands_have_options_that_exist(where: str) -> None:
    command: Any = typer.main.get_command(app)
    known = {name for each in command.commands["serve"].params for name in each.opts}
    arguments = commands()[where]
    assert arguments[0] == "serve"
    assert set(options(arguments)) <= known
    assert options(arguments)["--port"] == "8900"
    assert options(arguments)["--host"] == "0.0.0.0"
    assert options(arguments)["--keys"]


def test_the_probes_are_of_routes_that_exist_and_need_no_key() -> None:
    open_routes = {route.path for route in ROUTES if route.method == "GET" and route.scope is None}
    probes = {name: container()[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/live", "liveness": "/live", "readiness": "/ready",
    }  # fmt: skip
    checks = re.findall(r"http://127\.0\.0\.1:8900(/[a-z]*)", DOCKERFILE + str(COMPOSE["services"]["nginx"]))
    assert checks == ["/live", "/live"]
    assert {"/live", "/ready"} <= open_routes
    assert container()["ports"] == [{"name": "http", "containerPort": 8900}]
    assert {probe["port"] for probe in probes.values()} == {"http"}


def test_the_autoscaler_counts_a_metric_that_exists() -> None:
    adapter = documents(DEPLOY / "kubernetes" / "helm" / "prometheus-adapter.yaml")[0]
    (rule,) = adapter["rules"]["custom"]
    metric = rule["seriesQuery"].partition("{")[0]
    assert metric in {each.name for each in METRICS if each.kind == "gauge"}
    scaler = one("HorizontalPodAutoscaler")["spec"]
    names = [each["pods"]["metric"]["name"] for each in scaler["metrics"] if each["type"] == "Pods"]
    assert names == [rule["name"]["as"]]
    target = scaler["scaleTargetRef"]
    assert one(target["kind"], target["name"])["apiVersion"] == target["apiVersion"]
    assert "replicas" not in one("Deployment")["spec"]  # each would undo what the other does


def test_the_image_has_extras_and_files_that_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (extras,) = re.findall(r'"\.\[([a-z,]+)\]"', DOCKERFILE)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert {"server", "cluster", "metrics"} <= set(extras.split(","))
    (python,) = re.findall(r"^ARG PYTHON=(.*)$", DOCKERFILE, re.MULTILINE)
    assert f"Programming Language :: Python :: {python}" in project["classifiers"]
    copied = [name for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()]
    assert copied
    kept = re.findall(r"^!(.*)$", (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8"), re.MULTILINE)
    assert sorted(kept) == sorted(copied)
    assert all((ROOT / name).exists() for name in copied)
    assert container()["image"] == f"penstock:{project['version']}"


# --- what agrees -----------------------------------------------------------------------------------------------------


def test_no_container_runs_as_root() -> None:
    (user,) = re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE)
    assert f"--uid {user}" in DOCKERFILE
    pod = template("Deployment")["spec"]["securityContext"]
    assert (pod["runAsUser"], pod["runAsNonRoot"]) == (int(user), True)
    assert template("StatefulSet", "valkey")["spec"]["securityContext"]["runAsNonRoot"]


def test_whoever_ends_a_node_waits_longer_than_its_drain() -> None:
    def drains(where: str) -> float:
        return parse_duration(options(commands()[where])["--drain-timeout"], field="--drain-timeout")

    pause = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = template("Deployment")["spec"]["terminationGracePeriodSeconds"]
    assert grace >= pause + drains("Kubernetes") + LAST_FRAMES_S + 5
    # The pod is left out by the probe or by its removal before it gets the signal.
    assert pause > container()["readinessProbe"]["periodSeconds"]
    for name, service in NODES.items():
        patience = parse_duration(service["stop_grace_period"], field="stop_grace_period")
        assert patience >= drains(f"compose {name}") + LAST_FRAMES_S + 5


def nginx(name: str) -> str:
    (value,) = set(re.findall(rf"^\s*{name} ([^;]*);", NGINX, re.MULTILINE))
    return str(value)


def test_nginx_neither_buffers_nor_cuts_what_the_nodes_send() -> None:
    assert [nginx(name) for name in ("proxy_buffering", "proxy_request_buffering", "gzip")] == ["off", "off", "off"]
    assert nginx("proxy_ignore_client_abort") == "off"
    assert nginx("proxy_http_version") == "1.1"
    beats = {
        GatewayOptions().heartbeat,
        *(float(each["PENSTOCK_GATEWAY__HEARTBEAT"]) for each in environments().values()),
    }
    assert int(nginx("proxy_read_timeout").removesuffix("s")) > 2 * max(beats)
    assert int(nginx("keepalive_timeout").removesuffix("s")) < server._KEEP_ALIVE
    assert "non_idempotent" not in NGINX
    annotations = one("Ingress")["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert float(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > 2 * max(beats)


def test_the_nodes_and_their_server_are_called_by_their_names() -> None:
    assert len(NODES) == 2
    assert re.findall(r"^\s*server ([\w-]+):8900", NGINX, re.MULTILINE) == sorted(NODES)
    assert [options(service["command"])["--node"] for service in NODES.values()] == list(NODES)
    for where in ("compose node-1", "compose node-2", "Kubernetes"):
        assert options(commands()[where])["--cluster"] == "redis://valkey:6379"
    assert "valkey" in COMPOSE["services"]
    assert one("Service", "valkey")["spec"]["ports"][0]["port"] == 6379


@pytest.mark.parametrize("where", ["compose", "Kubernetes"])
def test_the_server_never_evicts_a_live_log(where: str) -> None:
    if where == "compose":
        arguments = COMPOSE["services"]["valkey"]["command"]
    else:
        arguments = template("StatefulSet", "valkey")["spec"]["containers"][0]["args"]
    assert "--maxmemory-policy noeviction" in arguments
    assert "--appendonly yes" in arguments


def test_what_an_object_refers_to_is_there() -> None:
    for kind, name in (("Deployment", "penstock"), ("StatefulSet", "valkey")):
        labels = template(kind, name)["metadata"]["labels"].items()
        assert one(kind, name)["spec"]["selector"]["matchLabels"].items() <= labels
        assert one("Service", name)["spec"]["selector"].items() <= labels
    assert (
        one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items()
        <= dict(template("Deployment")["metadata"]["labels"]).items()
    )
    volumes = {each["name"] for each in template("Deployment")["spec"]["volumes"]}
    mounts = {each["name"]: each["mountPath"] for each in container()["volumeMounts"]}
    assert set(mounts) == volumes
    assert options(container()["args"])["--keys"] == f"{mounts['keys']}/keys.jsonl"
    sources = [next(iter(each.values()))["name"] for each in container()["envFrom"]]
    text = (DEPLOY / "kubernetes" / "penstock.yaml").read_text("utf-8")
    for secret in ("penstock-keys", "penstock-providers"):
        assert f"kubectl create secret generic {secret} " in text
    assert sources == ["penstock", "penstock-providers"]


def test_the_keys_are_in_a_volume_that_the_nodes_read_and_one_command_writes() -> None:
    """A file of the host belongs to another user than the container's, and is another file after each change."""
    keys = COMPOSE["services"]["keys"]
    (home,) = re.findall(r"--home-dir (\S+) --create-home", DOCKERFILE)
    assert keys["entrypoint"] == ["penstock", "keys"]
    assert keys["profiles"]  # it does not start with the others
    assert keys["volumes"] == [f"keys:{home}"]
    assert "keys" in COMPOSE["volumes"]
    for service in NODES.values():
        assert service["volumes"] == [f"keys:{home}:ro"]
        assert options(service["command"])["--keys"] == f"{home}/keys.jsonl"
    for text in ((DEPLOY / "compose.yaml").read_text("utf-8"), (ROOT / "docs" / "deployment.md").read_text("utf-8")):
        assert f"run --rm keys new {home}/keys.jsonl " in text


def test_nginx_asks_again_where_a_node_is_that_was_started_again() -> None:
    assert re.findall(r"^\s*server (\S+) (\w+) ", NGINX, re.MULTILINE) == [(f"{n}:8900", "resolve") for n in NODES]
    assert nginx("resolver").startswith("127.0.0.11 ")  # Docker's
    assert nginx("zone").startswith("penstock ")  # which `resolve` needs
    version = COMPOSE["services"]["nginx"]["image"].partition(":")[2].partition("-")[0]
    assert tuple(map(int, version.split("."))) >= (1, 28)  # the first stable version with `resolve`


# --- schemas ---------------------------------------------------------------------------------------------------------


def tool(name: str) -> str:
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def changed(tmp_path: Path) -> Any:
    """Return a function that writes a copy of a file with a misspelled word in it."""

    def change(path: Path, word: str, other: str) -> Path:
        text = path.read_text("utf-8")
        assert word in text
        copy = tmp_path / path.name
        copy.write_text(text.replace(word, other), "utf-8")
        return copy

    return change


def fails(*command: str | Path) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_the_compose_file_fits_its_schema(changed: Any) -> None:
    check = (sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec")
    assert not fails(*check, DEPLOY / "compose.yaml")
    assert fails(*check, changed(DEPLOY / "compose.yaml", "stop_grace_period", "stop_grace_time"))


def test_the_manifests_fit_the_schemas_of_kubernetes(changed: Any) -> None:
    pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    validate = importlib.import_module("kubernetes_validate").validate
    version = "1.30"  # the oldest that is supported: preStop.sleep
    assert len(OBJECTS) >= 9
    for each in OBJECTS:
        validate(each, version, strict=True)
    copy = changed(DEPLOY / "kubernetes" / "penstock.yaml", "terminationGracePeriodSeconds", "terminationGraceSeconds")
    (deployment,) = (each for each in documents(copy) if each["kind"] == "Deployment")
    with pytest.raises(Exception, match="terminationGraceSeconds"):
        validate(deployment, version, strict=True)


def test_the_dockerfile_passes_its_linter(changed: Any) -> None:
    hadolint = tool("hadolint")
    assert not fails(hadolint, DEPLOY / "Dockerfile")
    assert fails(hadolint, changed(DEPLOY / "Dockerfile", "python:${PYTHON}-slim AS build", "python:latest AS build"))
