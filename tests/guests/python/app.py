"""A guest in Python, built by componentize-py: it greets, echoes, asks an upstream, sleeps and raises."""

import sys
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import monotonic_clock, outgoing_handler, poll
from wit_world.imports.streams import InputStream, StreamError_Closed
from wit_world.imports.wasi_http_types import (
    ErrorCode_InternalError,
    Fields,
    IncomingBody,
    IncomingRequest,
    Method_Post,
    OutgoingBody,
    OutgoingRequest,
    OutgoingResponse,
    ResponseOutparam,
    Scheme_Http,
    Scheme_Https,
)


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        url = urlsplit(request.path_with_query() or "/")
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        status, answer = 200, []
        match url.path:
            case "/hello":
                answer = ["Hello, World, from Python %d.%d" % sys.version_info[:2]]
            case "/print":
                print(query["line"])
                answer = ["printed"]
            case "/echo":
                answer = chunks(request.consume())
            case "/upper":
                answer = (chunk.upper() for chunk in chunks(request.consume()))
            case "/fetch":
                answer = [ask(query["url"], 0)]
            case "/post":
                answer = [ask(query["url"], int(query["bytes"]))]
            case "/sleep":
                with monotonic_clock.subscribe_duration(int(query["ms"]) * 1_000_000) as pollable:
                    poll.poll([pollable])
                answer = ["slept"]
            case "/time-sleep":
                time.sleep(int(query["ms"]) / 1000)
                answer = ["slept"]
            case "/fail":
                ResponseOutparam.set(response_out, Err(ErrorCode_InternalError("on purpose")))
                return
            case "/raise":
                raise ValueError("on purpose")
            case "/raise-midway":
                answer = raises()
            case _:
                status, answer = 404, ["no such route"]
        response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain; charset=utf-8")]))
        response.set_status_code(status)
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            for chunk in answer:
                write(stream, chunk.encode() if isinstance(chunk, str) else chunk)
        OutgoingBody.finish(body, None)


def raises() -> Iterator[bytes]:
    yield b"some of it"
    raise ValueError("midway")


def chunks(body: IncomingBody) -> Iterator[bytes]:
    with body, body.stream() as stream:
        yield from chunks_of(stream)


def chunks_of(stream: InputStream) -> Iterator[bytes]:
    while True:
        try:
            yield stream.blocking_read(16 * 1024)
        except Err as error:
            if isinstance(error.value, StreamError_Closed):
                return
            raise


def write(stream, content: bytes) -> None:
    for start in range(0, len(content), 4096):
        stream.blocking_write_and_flush(content[start : start + 4096])


def ask(url: str, size: int) -> str:
    """What an upstream answers to so many bytes. Handles are dropped in the order that the component model wants: children first."""
    split = urlsplit(url)
    request = OutgoingRequest(Fields())
    request.set_scheme(Scheme_Https() if split.scheme == "https" else Scheme_Http())
    request.set_authority(split.netloc)
    request.set_path_with_query(split.path or "/")
    if size:
        request.set_method(Method_Post())
    body = request.body()
    with outgoing_handler.handle(request, None) as future:
        with body.write() as stream:
            write(stream, b"x" * size)
        OutgoingBody.finish(body, None)
        with future.subscribe() as pollable:
            poll.poll([pollable])
        result = future.get().value
        if isinstance(result, Err):
            return f"error: {type(result.value).__name__}"
        with result.value as response:
            status = response.status()
            whole = b"".join(chunks(response.consume()))
            return f"{status} {whole.decode()}"
