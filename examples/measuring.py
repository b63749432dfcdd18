"""Speed: the figures of the terminal event and of the statistics, for several streams at once.

Usage: python examples/measuring.py [streams]     uses the embedded provider: 10,000 tokens each, at full speed
"""

import sys

import penstock


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    messages = [{"role": "user", "content": "Go"}]
    with penstock.System() as system:
        streams = [
            system.chat("flood", messages, provider="loopback", stream_id=f"stream-{number}") for number in range(count)
        ]
        print("stream      tokens  first token     total  tokens/s  bytes/s  between tokens p50/p99")
        for stream in streams:
            end = stream.result(timeout=60)
            metrics, statistics = end.metrics, stream.statistics()
            assert metrics is not None
            first = (metrics.time_to_first_token_s or 0.0) * 1000
            p50, p99 = (1e6 * (value or 0.0) for value in (statistics.inter_token_p50_s, statistics.inter_token_p99_s))
            print(
                f"{stream.stream_id:10} {metrics.tokens:7} {first:9.1f} ms {metrics.total_time_s:7.2f} s"
                f" {metrics.tokens_per_second:9.0f} {metrics.bytes_per_second:8.0f}  {p50:.0f}/{p99:.0f} µs"
            )
        whole = system.statistics()
        print(f"{whole.streams_completed} streams, {whole.tokens} tokens, {whole.dispatcher.workers} worker threads")


if __name__ == "__main__":
    main()
