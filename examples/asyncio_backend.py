"""Many concurrent requests in an asyncio program; one of them is abandoned half-way.

Usage: python examples/asyncio_backend.py
"""

import asyncio

import penstock


async def answer(system: penstock.System, prompt: str) -> str:
    stream = system.chat("echo", [{"role": "user", "content": prompt}], provider="loopback")
    parts = []
    async for event in stream:
        if isinstance(event, penstock.TokenEvent) and event.kind == "text":
            parts.append(event.text)
        elif isinstance(event, penstock.StreamFailed):
            raise event.error
    return "".join(parts)


async def give_up_early(system: penstock.System) -> str:
    """Leave the loop: the stream has no reader any more, so the connection to the provider is closed."""
    stream = system.chat("lorem", [{"role": "user", "content": "something long"}], provider="loopback")
    async with asyncio.timeout(5):
        async for _ in stream:
            break
        try:
            await stream.aresult()
        except penstock.StreamCancelledError as error:
            return str(error.reason)
    return "it was over before we could leave"


async def main() -> None:
    with penstock.System() as system:
        prompts = [f"request number {number}" for number in range(1, 6)]
        *answers, reason = await asyncio.gather(*(answer(system, prompt) for prompt in prompts), give_up_early(system))
        for text in answers:
            print(text)
        print("given up:", reason)


if __name__ == "__main__":
    asyncio.run(main())
