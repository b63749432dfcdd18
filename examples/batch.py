"""Many prompts, three at a time: results as they come, progress, and an end to what would fail for all.

Usage: python examples/batch.py     uses the embedded provider
"""

from typing import Any

import penstock

PROMPTS: list[dict[str, Any]] = [
    {"id": "sea", "prompt": "Where does water go?"},
    {"id": "mill", "prompt": "What does a mill do?", "metadata": {"chapter": 2}},
    {"id": "long", "prompt": "Say more.", "model": "fault-context-length"},
    {"id": "again", "prompt": "Once more.", "model": "fault-reset-once"},
]


def main() -> None:
    with penstock.System() as system:
        batch = system.batch(PROMPTS, concurrency=3, max_cost=1.00, provider="loopback", model="echo")
        for result in batch:
            outcome = type(result.error).__name__ if result.error else result.text
            print(f"{result.id}: {outcome} ({result.attempts} attempts)")
        seen = batch.progress
        print(f"{seen.completed} completed, {seen.failed} failed, {seen.tokens} tokens")

        batch = system.batch((f"question {n}" for n in range(1000)), provider="loopback", model="fault-401")
        print(f"{len(list(batch))} results of 1000, stopped by {type(batch.stopped).__name__}")


if __name__ == "__main__":
    main()
