"""Change the text of an answer while it streams: redact words, drop some, and translate each with an async function.

Usage: python examples/transform.py
"""

import asyncio

import penstock

SECRET = {"password", "hunter2"}


def redact(word: str) -> str:
    """A word has the white space after it."""
    return "*** " if word.strip(" .,").lower() in SECRET else word


async def translate(word: str) -> str:
    await asyncio.sleep(0)  # asks a dictionary, for instance
    return {"My ": "Mein ", "is ": "ist "}.get(word, word)


def main() -> None:
    with penstock.System() as system:
        answer = system.open_stream()
        redacted = answer.map(redact, unit="word")  # not the pieces that a provider sends
        german = redacted.map(translate)
        no_stars = redacted.filter(lambda word: "*" not in word)
        letters = redacted.flat_map(lambda word: word.upper().split())
        for piece in ("My pass", "word is hun", "ter2, dear."):
            answer.process_token(piece)
        answer.stop()
        for stream in (redacted, german, no_stars, letters):
            print(f"{system.get_stream_info(stream.stream_id).kind}: {stream.result(timeout=10).text}")


if __name__ == "__main__":
    main()
