"""HTTP bodies and server-sent events as streams. The loopback provider is the server here.

Usage: python examples/source_http.py
"""

import json

import penstock
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider


def main() -> None:
    request = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hi"}]})
    with LoopbackProvider(Script([Answer("Water finds its way.")])) as server, penstock.System() as system:
        health = system.stream_from(penstock.sources.http_body(f"{server.url}/healthz"))
        print("body:", len(health.result(10).text) > 0, health.statistics().source_bytes > 0)

        def text_of(event: object) -> str | None:
            data = getattr(event, "data", "")
            choices = json.loads(data).get("choices") if data.startswith("{") else None
            return choices[0]["delta"].get("content") if choices else None

        url, headers = f"{server.base_url}/chat/completions", {"Content-Type": "application/json"}
        answer = system.stream_from(penstock.sources.sse(url, text_of, "POST", headers=headers, body=request))
        print("events:", answer.result(10).text)


if __name__ == "__main__":
    main()
