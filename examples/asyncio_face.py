"""Streams in an asyncio program: open, read, cancel, ask an agent, without blocking the loop.

Usage: python examples/asyncio_face.py
"""

import asyncio

import penstock


async def read(stream: penstock.Stream) -> int:
    return sum([len(text) async for text in stream.atexts()])


async def main() -> None:
    async with penstock.System() as system:
        stream = await system.achat("echo", "Good morning", provider="loopback")
        async for text in stream.atexts():
            print(text, end="", flush=True)
        print()

        long = await system.achat("lorem", "Go on for long", provider="loopback")
        await long.acancel("enough")
        try:
            await long.aresult(timeout=5)
        except penstock.StreamCancelledError as error:
            print("cancelled:", error.reason)

        async with system.agent("helper", model="echo", provider="loopback") as agent:
            print("agent:", (await agent.achat("Good evening", timeout=10)).text)

        streams = [system.stream_from(["a", "b", "c"]) for _ in range(100)]
        print("readers:", sum(await asyncio.gather(*(read(stream) for stream in streams))), "characters")


if __name__ == "__main__":
    asyncio.run(main())
