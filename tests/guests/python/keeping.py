"""A guest in Python that keeps something of each request, wherever a program in Python does, and tells what it has."""

import random
import sys
from functools import cache

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.wasi_http_types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

count = 0
seen = set()


class Kept:
    requests: list[str] = []


@cache
def cached(path: str) -> int:
    return count


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        global count
        count += 1
        path = request.path_with_query() or "/"
        seen.add(path)
        Kept.requests.append(path)
        setattr(sys, "of" + path.replace("/", "_"), count)
        of_sys = sorted(name for name in vars(sys) if name.startswith("of_"))
        said = f"{count} {sorted(seen)} {Kept.requests} {cached(path)} {cached('/')} {of_sys} {hash(path)} {random.random()}"
        response = OutgoingResponse(Fields())
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(said.encode())
        OutgoingBody.finish(body, None)
