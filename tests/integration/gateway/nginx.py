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

__all__ = ["nginx"]

_PROGRAM: Final = Program("nginx", "usr/sbin/nginx", ["nginx"], depending="nginx", target="nginx")
_CONFIG = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; default_type application/octet-stream;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {upstream}; {directives} }} }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, upstream: str, directives: str = "") -> Iterator[str]:
    """Run nginx in front of a URL; yields its own.

    Args:
        folder: for its files.
        upstream: the base URL that requests go to.
        directives: of nginx, for the location that they pass through.
    """
    program = _PROGRAM.command()
    folder.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, port=port, upstream=upstream, directives=directives))
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


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


if __name__ == "__main__":
    _PROGRAM.fetch()
