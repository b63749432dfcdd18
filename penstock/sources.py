"""Sources of streams, for `System.stream_from`.

>>> import penstock
>>> with penstock.System() as system:
...     stream = system.stream_from(penstock.sources.text("Hello, world!"))
...     [event.text for event in stream if isinstance(event, penstock.TokenEvent)]
['Hello, world!']
"""

from penstock.adapters.sources.text import text

__all__ = ["text"]
