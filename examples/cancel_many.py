"""Streams are cancelled by id, by whom they are for, and at the end of a program, which waits for the rest.

Usage: python examples/cancel_many.py     uses the embedded provider
"""

import penstock


def main() -> None:
    with penstock.System() as system:
        for number in range(6):
            system.chat(
                "lorem", "?", provider="loopback", stream_id=f"long-{number}", metadata={"user": "abcabc"[number]}
            )
        system.cancel("long-0", "the user pressed stop")
        gone = system.cancel_all("the user left", where=lambda stream: stream.metadata.get("user") == "b")
        print("cancelled:", gone)

        system.chat("echo", "Gates decide.", provider="loopback", stream_id="short")
        ends = system.drain(timeout=2)
        print("completed in time:", [name for name, end in ends.items() if isinstance(end, penstock.StreamCompleted)])
        print("cut:", sorted(name for name, end in ends.items() if isinstance(end, penstock.StreamCancelled)))
        try:
            system.open_stream()
        except penstock.SystemDraining as error:
            print("refused:", error)


if __name__ == "__main__":
    main()
