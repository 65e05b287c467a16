"""What gunicorn serves in `tests/test_wsgi.py`: an App by itself, and below a Flask application."""

from __future__ import annotations

import flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import wasgi

from .conftest import PROBE

probe = wasgi.App(PROBE, outgoing=lambda request: wasgi.Response(body=b"up"))
site = flask.Flask(__name__)


@site.get("/own")
def own() -> str:
    return "flask"


application = DispatcherMiddleware(probe.wsgi, {"/flask": DispatcherMiddleware(site.wsgi_app, {"/probe": probe.wsgi})})
