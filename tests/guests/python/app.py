"""A guest in Python, built by componentize-py: it greets, echoes, and asks an upstream."""

import sys
from urllib.parse import parse_qs, urlsplit

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports import outgoing_handler, poll
from wit_world.imports.wasi_http_types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingRequest,
    OutgoingResponse,
    ResponseOutparam,
    Scheme_Https,
)


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        url = urlsplit(request.path_with_query() or "/")
        query = parse_qs(url.query)
        if url.path == "/greet":
            print("greeting", query["name"][0])
            answer = f"Hello, {query['name'][0]}, from Python {sys.version_info.major}.{sys.version_info.minor}!"
        elif url.path == "/fetch":
            answer = "upstream said: " + fetch(query["host"][0])
        else:
            raise RuntimeError("no such route")
        response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain; charset=utf-8")]))
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(answer.encode())
        OutgoingBody.finish(body, None)


def fetch(host: str) -> str:
    """The body of the host's front page. Handles are dropped in the order that the component model wants: children first."""
    request = OutgoingRequest(Fields())
    request.set_scheme(Scheme_Https())
    request.set_authority(host)
    request.set_path_with_query("/")
    with outgoing_handler.handle(request, None) as future:
        with future.subscribe() as pollable:
            poll.poll([pollable])
        with future.get().value.value as response, response.consume() as body, body.stream() as stream:
            return stream.blocking_read(4096).decode()
