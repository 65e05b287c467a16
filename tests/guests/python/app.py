"""A guest in Python, built by componentize-py: it greets, echoes, and asks an upstream."""

import sys
from urllib.parse import parse_qs, urlsplit

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import outgoing_handler, poll
from wit_world.imports.wasi_http_types import (
    Fields,
    IncomingRequest,
    Method_Post,
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
        elif url.path == "/post":
            answer = post(query["host"][0], int(query["bytes"][0]))
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


def post(host: str, size: int) -> str:
    """Sends so many bytes, then looks at the answer: its status, or its error-code."""
    request = OutgoingRequest(Fields())
    request.set_method(Method_Post())
    request.set_scheme(Scheme_Https())
    request.set_authority(host)
    request.set_path_with_query("/")
    body = request.body()
    with outgoing_handler.handle(request, None) as future:
        with body.write() as stream:
            for start in range(0, size, 4096):
                stream.blocking_write_and_flush(b"x" * min(4096, size - start))
        OutgoingBody.finish(body, None)
        with future.subscribe() as pollable:
            poll.poll([pollable])
        result = future.get().value
        if isinstance(result, Err):
            return f"error: {type(result.value).__name__}"
        with result.value as response:
            return str(response.status())
