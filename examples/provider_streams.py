"""Streams of several providers at once, each with an id of its own; one is cancelled by its id.

Usage: python examples/provider_streams.py     uses the embedded provider, which speaks the formats of all
"""

from pydantic import SecretStr

import penstock
from penstock.adapters.loopback.models import default_script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.config.settings import ProviderOptions, Settings

PROVIDERS = {"openai": "/v1", "anthropic": "", "gemini": "", "ollama": ""}


def main() -> None:
    with LoopbackProvider(default_script(tokens_per_second=200)) as server:
        accounts = {
            name: ProviderOptions(base_url=server.url + path, api_key=SecretStr("any"))
            for name, path in PROVIDERS.items()
        }
        with penstock.System(Settings(providers=accounts)) as system:
            for name in PROVIDERS:
                model = "lorem" if name == "gemini" else "echo"  # that one goes on for a long time
                system.chat(model, f"Hello, {name}.", provider=name, stream_id=f"{name}-1")
            reader = iter(system.stream("gemini-1"))  # without a reader it would be cancelled at once
            print(f"gemini-1 has begun with event {next(reader).seq}")
            system.cancel("gemini-1", "the user pressed stop")
            for name in PROVIDERS:
                try:
                    print(f"{name}-1: {system.stream(f'{name}-1').result(30).text}")
                except penstock.StreamCancelledError as error:
                    print(f"{name}-1: cancelled: {error.reason}")


if __name__ == "__main__":
    main()
