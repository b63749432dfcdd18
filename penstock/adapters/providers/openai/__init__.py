"""OpenAI: chat completions and the Responses API, and servers compatible with them."""
