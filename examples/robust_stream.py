"""Answers from providers that fail: retries, a fallback, a partial answer if nothing more arrives, and no hanging.

Usage: python examples/robust_stream.py     uses the faulty models of the embedded provider
"""

import penstock

PATIENCE = penstock.RequestOptions(
    connect_timeout=2, first_token_timeout=5, idle_timeout=1, total_timeout=20,
    max_retries=2, retry_base_delay=0.05, retry_max_delay=0.2,
)  # fmt: skip


def ask(system: penstock.System, model: str, options: penstock.RequestOptions) -> tuple[str, str]:
    """Return the answer, or as much of it as arrived, and how it was obtained."""
    messages = [{"role": "user", "content": "Tell me about penstocks."}]
    stream = system.chat(model, messages, provider="loopback", request_options=options)
    try:
        end = stream.result(timeout=30)
    except penstock.RateLimited as error:
        return error.partial, f"rate limited, ask again in {error.retry_after} s"
    except penstock.ProviderError as error:  # each of them has the text that came before it
        kind = "may work later" if error.retryable else "will not work"
        return error.partial, f"{type(error).__name__} ({kind})"
    attempts = system.get_stream_info(stream.stream_id).attempts
    return end.text, f"complete, from {end.model}, {attempts} attempt(s)"


def main() -> None:
    again = PATIENCE.replace(on_interrupt="restart")
    elsewhere = PATIENCE.replace(fallback=("loopback/loopback",))
    with penstock.System() as system:
        for model, options, hope in (
            ("fault-503-once", PATIENCE, "an overloaded provider is asked again"),
            ("fault-truncate", PATIENCE, "a cut answer is never taken for a whole one"),
            ("fault-stall", PATIENCE, "silence has an end"),
            ("fault-reset-once", again, "a broken answer begins again, if you say so"),
            ("fault-401", elsewhere, "another model answers in its place"),
        ):
            text, outcome = ask(system, model, options)
            print(f"{hope}:\n  {model}: {outcome}\n  {text[:60]!r}")


if __name__ == "__main__":
    main()
