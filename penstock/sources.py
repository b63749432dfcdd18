"""Sources of streams, for `System.stream_from`.

>>> import penstock
>>> with penstock.System() as system:
...     stream = system.stream_from(penstock.sources.text("Hello, world!"))
...     stream.result().text
'Hello, world!'
"""

from penstock.adapters.sources.dspy import dspy
from penstock.adapters.sources.events import from_events
from penstock.adapters.sources.http import http_body, sse
from penstock.adapters.sources.json_lines import json_lines
from penstock.adapters.sources.text import text

__all__ = ["dspy", "from_events", "http_body", "json_lines", "sse", "text"]
