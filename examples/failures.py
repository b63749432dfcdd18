"""What a reader sees when a provider fails: a retry, a truncated answer, a time-out.

Usage: python examples/failures.py
"""

import penstock
from penstock.adapters.loopback.faults import StallAfter, Status, TruncateAfter
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider

TEXT = "The turbine turns, and nobody notices the gate."
SCRIPT = Script(
    models={
        "retried": [Status(503, retry_after=0.1), Answer(TEXT)],
        "truncated": Answer(TEXT, faults=(TruncateAfter(4),)),
        "stalled": Answer(TEXT, faults=(StallAfter(4, None),)),
    }
)


def main() -> None:
    patience = penstock.RequestOptions(idle_timeout=0.3, retry_base_delay=0.1)
    with LoopbackProvider(SCRIPT) as provider, penstock.System() as system:
        for model in ("retried", "truncated", "stalled"):
            messages = [{"role": "user", "content": "Go on"}]
            stream = system.chat(model, messages, base_url=provider.base_url, api_key="none", request_options=patience)
            try:
                print(f"{model}: {stream.result(timeout=10).text}")
            except penstock.ProviderError as error:
                print(f"{model}: {type(error).__name__}: {error} – after {error.partial!r}")
            print(f"  {system.get_stream_info(stream.stream_id).attempts} attempt(s)")


if __name__ == "__main__":
    main()
