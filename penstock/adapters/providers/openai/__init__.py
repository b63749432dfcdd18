"""OpenAI and compatible servers: chat completions and the Responses API."""
