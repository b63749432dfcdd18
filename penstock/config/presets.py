"""Ready-made stream options for the usual jobs."""

from __future__ import annotations

from penstock.config.options import StreamOptions

__all__ = ["CHAT", "CHAT_DEFAULTS", "DOCUMENT", "PRESETS", "REALTIME", "RESPONSE_DEFAULTS"]

CHAT = StreamOptions(max_buffer_size=50, batch_size=5, flush_interval=0.1, rate_limit=20)
"""A person reads along: small batches at 20 tokens a second."""

DOCUMENT = StreamOptions(max_buffer_size=200, batch_size=20, flush_interval=0.3, rate_limit=100)
"""Long texts: large batches at 100 tokens a second."""

REALTIME = StreamOptions(max_buffer_size=10, batch_size=2, flush_interval=0.05, rate_limit=30)
"""As soon as possible: two tokens a batch at 30 tokens a second."""

CHAT_DEFAULTS = StreamOptions(max_buffer_size=50, batch_size=5, flush_interval=0.05, rate_limit=None)
"""What `System.chat` takes without options: the provider's own pace."""

RESPONSE_DEFAULTS = StreamOptions(max_buffer_size=100, batch_size=10, flush_interval=0.1, rate_limit=None)
"""What `System.respond` takes without options: the provider's own pace."""

PRESETS = {"chat": CHAT, "document": DOCUMENT, "realtime": REALTIME}
"""By name, for settings and the command line."""
