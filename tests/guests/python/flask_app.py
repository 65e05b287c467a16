"""A guest with Flask: text, JSON, a template, forms, a stream, errors, and what it keeps of its requests."""

import encodings.unicode_escape  # noqa: F401  Jinja asks for it when it first compiles a template
import logging
from collections.abc import Iterator
from functools import cache

from flask import Flask, Response, abort, jsonify, render_template_string, request
from flask.logging import default_handler
from wsgi_handler import handler

app = Flask(__name__)
default_handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))  # without the time
seen: list[str] = []

PAGE = """<!doctype html>
<title>{{ title }}</title>
<ul>{% for n in range(rows) %}
  <li class="{{ loop.cycle('odd', 'even') }}">{{ n }}: {{ title|upper|e }}</li>{% endfor %}
</ul>
"""


@app.get("/")
def hello() -> str:
    return "Hello, World, from Flask"


@app.get("/users/<name>")
def user(name: str) -> Response:
    return jsonify(name=name, length=len(name), query=request.args.to_dict())


@app.get("/page")
def page() -> str:
    return render_template_string(PAGE, title=request.args.get("title", "a <page>"), rows=request.args.get("rows", 5, int))


@app.post("/form")
def form() -> Response:
    return jsonify(sorted(request.form.items(multi=True)))


@app.post("/echo")
def echo() -> Response:
    return Response(request.get_data(), content_type=request.content_type)


@app.get("/stream")
def stream() -> Response:
    def rows() -> Iterator[str]:
        for n in range(20):
            yield f"row {n}\n" * 50

    return Response(rows(), content_type="text/plain")


@cache
def cached(path: str) -> int:
    return len(seen)


@app.get("/seen/<name>")
def keep(name: str) -> Response:
    """What a fresh instance has seen: this request alone."""
    seen.append(name)
    app.jinja_env.globals[name] = len(seen)
    return jsonify(seen=seen, cached=cached(name), of_jinja=len(app.jinja_env.globals))


@app.get("/print")
def prints() -> str:
    app.logger.warning("it was asked for %s", request.args["line"])
    return "printed"


@app.get("/abort")
def aborts() -> None:
    abort(418)


@app.get("/raise")
def raises() -> None:
    raise ValueError("on purpose")


IncomingHandler = handler(app)
