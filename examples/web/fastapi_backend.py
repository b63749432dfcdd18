"""A FastAPI backend: one supervised stream per request, in three protocols, and the whole gateway beside it.

Usage: pip install "penstock[server]" fastapi
       uvicorn --app-dir examples/web fastapi_backend:app
       curl -N "http://127.0.0.1:8000/chat?q=Hello"
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response

import penstock
from penstock.gateway import app as gateway_app
from penstock.gateway import sse_response

system = penstock.System()
gateway = gateway_app(system)  # the OpenAI, Anthropic, Vercel, AG-UI and native protocols, below /llm


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with system, gateway.lifespan():
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/llm", gateway)


@app.get("/chat")
async def chat(q: str, protocol: str = "native") -> Response:
    """Ask a model. The provider's call ends when the client leaves, also before the first token."""
    stream = system.chat(system.settings.model() or "default", q)
    return sse_response(stream, protocol)
