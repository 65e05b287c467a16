"""What gunicorn serves in `tests/serving/test_wsgi.py`: an App by itself, below a Flask app, in a Django project."""

from __future__ import annotations

import django
import flask
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import wasgi
from tests.conftest import PROBE

probe = wasgi.App(PROBE, outgoing=lambda request: wasgi.Response(body=b"up"))
wsgi = probe.wsgi  # as gunicorn takes it: of a module it takes a name, and no attribute of that
site = flask.Flask(__name__)


@site.get("/own")
def own() -> str:
    return "flask"


# a project of one file, of which this module is the list of URLs
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of the tests")
django.setup()


def view(request: HttpRequest, below: str) -> StreamingHttpResponse:
    """A component as a view, after whatever middleware the project has."""
    url = f"http://guest.local/{below}?{request.META['QUERY_STRING']}"
    answer = probe.handle(wasgi.Request(request.method or "GET", url, body=request))
    return StreamingHttpResponse(answer, status=answer.status, headers=dict(answer.headers))


def home(request: HttpRequest) -> HttpResponse:
    return HttpResponse("django")


urlpatterns = [path("", home), path("view/<path:below>", view)]
project = DispatcherMiddleware(get_wsgi_application(), {"/probe": probe.wsgi})

application = DispatcherMiddleware(
    probe.wsgi,
    {"/flask": DispatcherMiddleware(site.wsgi_app, {"/probe": probe.wsgi}), "/django": project},
)
