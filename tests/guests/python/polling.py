"""A guest in Python on componentize-py's own event loop: it asks two upstreams at once, and streams what they say."""

import asyncio
from urllib.parse import parse_qs, urlsplit

import poll_loop
from componentize_py_types import Ok
from poll_loop import PollLoop, Sink, Stream
from wit_world import exports
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    OutgoingRequest,
    OutgoingResponse,
    ResponseOutparam,
    Scheme_Https,
)


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        loop = PollLoop()
        asyncio.set_event_loop(loop)
        loop.run_until_complete(answer(request, response_out))


async def answer(request: IncomingRequest, response_out: ResponseOutparam) -> None:
    hosts = parse_qs(urlsplit(request.path_with_query() or "/").query)["host"]
    said = await asyncio.gather(*(fetch(host) for host in hosts))
    response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain")]))
    sink = Sink(response.body())
    ResponseOutparam.set(response_out, Ok(response))
    for chunk in said:
        await sink.send(chunk + b"\n")
    sink.close()


async def fetch(host: str) -> bytes:
    request = OutgoingRequest(Fields())
    request.set_scheme(Scheme_Https())
    request.set_authority(host)
    request.set_path_with_query("/")
    response = await poll_loop.send(request)
    stream = Stream(response.consume())
    whole = b""
    while (chunk := await stream.next()) is not None:
        whole += chunk
    return whole
