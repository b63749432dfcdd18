"""What is built on streams: chaining and structured output."""
