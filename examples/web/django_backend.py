"""A Django backend under ASGI, in one file.

Usage: pip install "penstock[server]" django
       uvicorn --app-dir examples/web django_backend:application
       curl -N "http://127.0.0.1:8000/chat?q=Hello"
"""

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponseBase
from django.urls import path

import penstock
from penstock.gateway.django import sse_response

if not settings.configured:
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1", "localhost"])
    django.setup()

system = penstock.System()


async def chat(request: HttpRequest) -> HttpResponseBase:
    """Ask a model. The provider's call ends when the client leaves."""
    stream = system.chat(system.settings.model() or "default", request.GET["q"])
    response: HttpResponseBase = sse_response(stream, request.GET.get("protocol", "native"), request)
    return response


urlpatterns = [path("chat", chat)]
application = get_asgi_application()
