"""Slow an answer down to a pace for readers. Nothing is dropped: the provider waits.

Usage: python examples/throttle.py
"""

import time

import penstock


def main() -> None:
    with penstock.System() as system:
        answer = system.chat("loopback", "Tell me about penstocks.", provider="loopback")
        slow = answer.throttle(60, per="character", burst=10)
        begun = time.monotonic()
        for text in slow.texts():
            print(text, end="", flush=True)
        print(f"\n{len(slow.text)} characters in {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    main()
