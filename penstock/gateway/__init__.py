"""Serves streams over HTTP and WebSockets, in every protocol that front ends speak.

`app` makes a whole gateway. `sse_response` serves one stream from a route of your own, in Starlette or FastAPI; for
Django and WSGI (Flask) there are the same functions in `penstock.gateway.django` and `penstock.gateway.wsgi`. They need
the extra ``server``: ``pip install "penstock[server]"``.
"""

TYPE_CHECKING = False

if TYPE_CHECKING:
    from penstock.gateway.asgi import Gateway, app
    from penstock.gateway.starlette import sse_response

__all__ = ["Gateway", "app", "sse_response"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used, so that the rooms below need no server."""
        from importlib import import_module, util

        if name not in __all__:
            if not name.startswith("_") and util.find_spec(f"{__name__}.{name}") is not None:
                return import_module(f"{__name__}.{name}")
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        try:
            module = import_module(f"{__name__}.{'starlette' if name == 'sse_response' else 'asgi'}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] in ("penstock", "asgi"):
                raise
            raise ModuleNotFoundError(
                f"penstock.gateway.{name} needs {error.name}. Install it: pip install 'penstock[server]'",
                name=error.name,
            ) from None
        value = getattr(module, name)
        globals()[name] = value
        return value
