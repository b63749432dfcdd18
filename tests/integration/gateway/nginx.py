"""A real nginx between a client and a gateway, from Debian's package.

``make nginx`` (``python -m tests.integration.gateway.nginx``) unpacks it into ``.judges/nginx``, with the libraries
that this machine does not have; nothing is installed. Tests that need it are skipped where it is missing.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from penstock.testing import eventually
from tests.integration.debian import Program

__all__ = ["deployed", "nginx"]

_PROGRAM: Final = Program("nginx", "usr/sbin/nginx", ["nginx"], depending="nginx", target="nginx")
_ALONE = "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
_PATHS = """http {{
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
"""
_CONFIG = f"""
{_ALONE} worker_processes 1;
events {{{{ worker_connections 256; }}}}
{_PATHS}
  access_log off; default_type application/octet-stream;
  server {{{{ listen 127.0.0.1:{{port}}; location / {{{{ proxy_pass {{upstream}}; {{directives}} }}}} }}}}
}}}}
"""


@contextlib.contextmanager
def nginx(folder: Path, upstream: str, directives: str = "") -> Iterator[str]:
    """Run nginx in front of a URL; yields its own.

    Args:
        folder: for its files.
        upstream: the base URL that requests go to.
        directives: of nginx, for the location that they pass through.
    """
    folder.mkdir(exist_ok=True)
    port = _free_port()
    text = _CONFIG.format(folder=folder, port=port, upstream=upstream, directives=directives)
    with running(folder, text, port) as url:
        yield url


@contextlib.contextmanager
def deployed(folder: Path, text: str, nodes: dict[str, str]) -> Iterator[str]:
    """Run nginx as ``deploy/nginx.conf`` says, at another port; yields its base URL.

    Args:
        folder: for its files.
        text: the configuration.
        nodes: the base URL by the name and port that the configuration has for it.
    """
    folder.mkdir(exist_ok=True)
    port = _free_port()
    for name, url in nodes.items():
        assert f" {name} resolve " in text, name
        text = text.replace(f" {name} resolve ", f" {url.partition('://')[2]} ")  # an address needs no DNS
    text = text.replace("listen 8900;", f"listen 127.0.0.1:{port};").replace("worker_rlimit_nofile 65536;", "")
    text = text.replace("worker_connections 16384;", "worker_connections 256;")
    with running(
        folder, _ALONE.format(folder=folder) + text.replace("http {", _PATHS.format(folder=folder), 1), port
    ) as at:
        yield at


@contextlib.contextmanager
def running(folder: Path, text: str, port: int) -> Iterator[str]:
    """Run nginx with a configuration, which has it listen at that port."""
    program = _PROGRAM.command()
    config = folder / "nginx.conf"
    config.write_text(text)
    with subprocess.Popen(
        [program, "-p", folder, "-c", config],
        env=_PROGRAM.environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            eventually(lambda: _answers(port) or process.poll() is not None)
            assert process.poll() is None, process.communicate()[1].decode()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.communicate()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


if __name__ == "__main__":
    _PROGRAM.fetch()
