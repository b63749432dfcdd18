"""The command ``loopback``: serve the embedded provider until a signal ends it."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import penstock.adapters.loopback as loopback_package
from penstock.adapters.loopback.models import default_script
from penstock.adapters.loopback.replay import recorded_models
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.cli.failures import CommandLineError
from penstock.cli.interrupts import Interrupts
from penstock.cli.terminal import say, write_error

__all__ = ["list_models", "serve"]

_GRACE_S = 1.0  # for answers under way


def serve(host: str, port: int, tokens_per_second: float, api_key_env: str | None, replay: Path | None) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code. The arguments are those of ``penstock loopback --help``.

    Raises:
        PenstockError: an option is wrong, or the address cannot be listened at.
        OSError: standard output cannot be written.
    """
    key = os.environ.get(api_key_env) if api_key_env is not None else None
    if api_key_env is not None and not key:
        raise CommandLineError(f"--api-key-env names {api_key_env!r}, an environment variable that is not set")
    script = default_script(tokens_per_second)
    if replay is not None:
        script = dataclasses.replace(script, models={**script.models, **recorded_models(replay)})
    with Interrupts() as interrupts, LoopbackProvider(script, host=host, port=port, api_key=key) as provider:
        print(provider.base_url, flush=True)  # noqa: T201
        write_error(_instructions(provider.base_url, api_key_env))
        stopping = interrupts.watch(lambda: provider.stop(_GRACE_S))
        provider.wait()
        if interrupts.signal is None:
            say("the provider's thread ended by itself")
            return 1
        stopping.join()
    say("stopped")
    return 128 + interrupts.signal


def _instructions(url: str, key: str | None) -> str:
    before, provider = (f'OPENAI_API_KEY="${key}" ', "openai") if key else ("", "loopback")
    header = f' -H "Authorization: Bearer ${key}"' if key else ""
    body = '{"model": "loopback", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
    models = "".join(f"  {name:<21} {meaning}\n" for name, meaning in list_models())
    return f"""
Try it in another terminal; Ctrl-C ends it here:

  {before}penstock chat "Hello" --provider {provider} --base-url {url} --model loopback

  curl -N {url}/chat/completions{header} -H "Content-Type: application/json" \\
    -d '{body}'

The base URL for clients of Anthropic, Ollama and Gemini is {url.removesuffix("/v1")}

Models:

{models}"""


def list_models() -> list[tuple[str, str]]:
    """List the models and what each does, from the table in the provider's own documentation."""
    rows = re.findall(r"^``([\w-]+)``\s+(.+)$", loopback_package.__doc__ or "", re.MULTILINE)
    return [(name, meaning.replace("``", "")) for name, meaning in rows]
