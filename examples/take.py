"""Read only the beginning of an answer, and do not wait for it too long. The provider's call is closed at once.

Usage: python examples/take.py
"""

import penstock


def main() -> None:
    with penstock.System() as system:
        answer = system.chat("loopback", "Tell me about penstocks.", provider="loopback")
        end = answer.take(characters=20).result(timeout=10)
        print(f"{end.text!r} ({end.finish_reason})")

        answer = system.chat("fault-stall", "Tell me about penstocks.", provider="loopback")
        try:
            answer.with_timeout(total=10, idle=0.3).result(timeout=20)
        except penstock.StreamTimeout as error:
            print(f"{error.partial!r} ({error.which} timeout after {error.timeout} s)")


if __name__ == "__main__":
    main()
