"""Bounded producers and their consumers: events of each, what they have done, one cancelled, then all.

Usage: python examples/producer_consumer.py
"""

import threading

import penstock

BOUNDED = penstock.SAFE.replace(max_buffer_size=20, batch_size=5)


def produce(stream: penstock.Stream) -> None:
    number = 0
    try:
        while True:
            stream.process_token(f"item {number}\n")  # waits while 20 items wait
            number += 1
    except penstock.StreamClosed:
        print(f"{stream.stream_id}: the producer ends after {number} items")


def consume(stream: penstock.Stream, enough: threading.Event) -> None:
    items = 0
    for event in stream.events(slow="block", window=1):  # the stream waits while one batch waits here
        match event:
            case penstock.TokenEvent(tokens=tokens):
                items += len(tokens)
                if items >= 500:
                    enough.set()
            case penstock.StreamCancelled(reason=reason):
                print(f"{stream.stream_id}: the consumer had {items} items, then the stream was cancelled: {reason}")


def main() -> None:
    with penstock.System() as system:
        threads, enough = [], []
        for name in ("alpha", "beta", "gamma"):
            stream = system.open_stream(name, BOUNDED)
            enough.append(threading.Event())
            threads.append(threading.Thread(target=consume, args=(stream, enough[-1])))
            threads.append(threading.Thread(target=produce, args=(stream,)))
        for thread in threads:
            thread.start()
        for event in enough:
            event.wait(30)
        for info in system.get_active_streams():
            seen = info.statistics
            print(
                f"{seen.stream_id}: {seen.produced} produced, {seen.consumed} consumed, "
                f"{seen.high_water_mark} waited at most, {seen.backpressure_events} waits, "
                f"{seen.utilisation:.0%} of the buffer in use, "
                f"{seen.tokens_per_second:.0f}/s, production active: {seen.production_active}"
            )
        system.cancel("beta", "not needed")
        system.cancel_all("the end")
        for thread in threads:
            thread.join(10)
        seen = system.stream("beta").statistics()
        print(f"beta: after {seen.running_time_s:.1f} s, production active: {seen.production_active}")


if __name__ == "__main__":
    main()
