"""Several prompts, in four ways: one after the other, at the same time, in one stream, and in spite of failures.

Usage: python examples/run_modes.py     uses the embedded provider
"""

import asyncio

import penstock

PROMPTS = ["Water runs downhill.", "Gates decide.", "Turbines turn."]


def simple(system: penstock.System) -> None:
    for prompt in PROMPTS:
        print("simple:", penstock.collect(system.chat("echo", prompt, provider="loopback"), timeout=30))


def concurrent(system: penstock.System) -> None:
    streams = [system.chat("echo", prompt, provider="loopback") for prompt in PROMPTS]
    for stream in penstock.as_completed(streams, timeout=30):  # the quickest first
        print("concurrent:", stream.text)


def aggregate(system: penstock.System) -> None:
    streams = {f"Stream {n}": system.chat("echo", text, provider="loopback") for n, text in enumerate(PROMPTS, 1)}
    for origin, text in sorted(system.merge(streams).result(30).texts.items()):
        print(f"aggregate: [{origin}] {text}")


def recovery(system: penstock.System) -> None:
    models = ["echo", "fault-503-once", "fault-401"]
    streams = [
        system.with_retry(lambda model=model: system.chat(model, "Gates decide.", provider="loopback"), base_delay=0.1)
        for model in models
    ]
    for model, outcome in zip(models, penstock.gather(streams, timeout=30), strict=True):
        print(f"recovery: {model}: {getattr(outcome, 'text', type(outcome).__name__)}")


async def in_asyncio(system: penstock.System) -> None:
    streams = [system.chat("echo", prompt, provider="loopback") for prompt in PROMPTS]
    async for stream in penstock.aas_completed(streams, timeout=30):
        print("asyncio:", stream.text)


def main() -> None:
    with penstock.System() as system:
        for mode in (simple, concurrent, aggregate, recovery):
            mode(system)
        asyncio.run(in_asyncio(system))


if __name__ == "__main__":
    main()
