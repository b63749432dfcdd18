"""An adaptive batch size: an event has what came while the reader was busy, and an idle reader waits for nothing.

Usage: python examples/adaptive_batch.py
"""

import penstock


def main() -> None:
    with penstock.System() as system:
        stream = system.open_stream(
            options=penstock.StreamOptions(batch_size="adaptive", max_batch=50, rate_limit=None)
        )
        with stream.events(slow="block", window=1) as events:
            sizes = []
            for number in range(200):
                stream.process_token(f"{number} ")
                if number % 40 == 0:  # the reader is slow
                    event = events.next()
                    sizes.append(len(event.tokens) if isinstance(event, penstock.TokenEvent) else 0)
            stream.sink().end()
            sizes += [len(event.tokens) for event in events if isinstance(event, penstock.TokenEvent)]
        print(f"{sum(sizes)} tokens in {len(sizes)} events, at most {max(sizes)} in one")
        statistics = stream.statistics()
        print(f"it waits {statistics.batch_wait_s} s, and has {statistics.mean_batch:.0f} tokens in an event")


if __name__ == "__main__":
    main()
