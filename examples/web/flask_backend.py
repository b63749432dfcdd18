"""A Flask backend. A thread serves one stream, so give the server as many threads as there are readers.

Usage: pip install "penstock[server]" flask gunicorn
       gunicorn --chdir examples/web --threads 100 flask_backend:app
       curl -N "http://127.0.0.1:8000/chat?q=Hello"
"""

import flask

import penstock
from penstock.gateway.wsgi import sse_response

system = penstock.System()
app = flask.Flask(__name__)


@app.get("/chat")
def chat() -> flask.Response:
    """Ask a model. The provider's call ends when the client leaves: a sign of life notices it."""
    stream = system.chat(system.settings.model() or "default", flask.request.args["q"])
    response: flask.Response = sse_response(stream, flask.request.args.get("protocol", "native"))
    return response
