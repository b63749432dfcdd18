"""Ready-made stream options for common uses."""

from __future__ import annotations

from penstock.config.options import StreamOptions

__all__ = ["CHAT", "CHAT_DEFAULTS", "DOCUMENT", "PRESETS", "QUICK", "REALTIME", "RESPONSE_DEFAULTS", "SAFE"]

CHAT = StreamOptions(max_buffer_size=50, batch_size=5, flush_interval=0.1, rate_limit=20)
"""For a person who reads along: small batches, 20 tokens per second."""

DOCUMENT = StreamOptions(max_buffer_size=200, batch_size=20, flush_interval=0.3, rate_limit=100)
"""For long texts: large batches, 100 tokens per second."""

REALTIME = StreamOptions(max_buffer_size=10, batch_size=2, flush_interval=0.05, rate_limit=30)
"""For low latency: batches of two tokens, 30 tokens per second."""

SAFE = StreamOptions(
    max_buffer_size=100, batch_size=100, flush_interval=0, rate_limit=None, overflow="block", push_timeout=None
)
"""For what is fed faster than it is read: at most 100 tokens wait, then the producer does, for as long as it takes.
No token waits for a batch. The default of sources and of derived streams (`Stream.map`, `System.merge` …)."""

QUICK = SAFE.replace(max_buffer_size=None)
"""For experiments: no token waits, and no producer; the buffer has no bound."""

CHAT_DEFAULTS = StreamOptions(max_buffer_size=50, batch_size=5, flush_interval=0.05, rate_limit=None)
"""The default of `System.chat`: the provider's own pace."""

RESPONSE_DEFAULTS = StreamOptions(max_buffer_size=100, batch_size=10, flush_interval=0.1, rate_limit=None)
"""The default of `System.respond`: the provider's own pace."""

PRESETS = {"chat": CHAT, "document": DOCUMENT, "realtime": REALTIME, "safe": SAFE, "quick": QUICK}
"""The presets by name, for settings and the command line."""
