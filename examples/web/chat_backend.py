"""A chat page: an answer can be stopped, goes on after a reload, and is shown in two tabs. The page is in ``chat``.

Usage: pip install "penstock[server]"
       export PENSTOCK_PROVIDER__NAME=loopback PENSTOCK_PROVIDER__MODEL=lorem      # no key and no network
       uvicorn --app-dir examples/web chat_backend:app
       open http://127.0.0.1:8000/
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

import penstock
from penstock.gateway import app as gateway_app

system = penstock.System()
gateway = gateway_app(system)  # the page has its client from there: /llm/penstock.mjs
page = StaticFiles(directory=Path(__file__).parent / "chat", html=True)


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    async with system, gateway.lifespan():
        yield


app = Starlette(routes=[Mount("/llm", gateway), Mount("/", page)], lifespan=lifespan)
