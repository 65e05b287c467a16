"""Has an application of WSGI answer the requests of wasi:http (WASI 0.2).

    from wsgi_handler import handler
    IncomingHandler = handler(app)
"""

import encodings.idna  # noqa: F401  a guest can import only what was imported when it was built; Werkzeug asks for it
import io
import sys
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports.streams import InputStream, OutputStream, StreamError_Closed
from wit_world.imports.wasi_http_types import (
    Fields,
    IncomingRequest,
    Method_Other,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
    Scheme_Https,
)

MOST = 4096
"""Bytes of one `blocking-write-and-flush`."""


class Input(io.RawIOBase):
    """`wsgi.input`, unbuffered."""

    def __init__(self, stream: InputStream) -> None:
        self.stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            chunk = self.stream.blocking_read(len(buffer))
        except Err as error:
            if isinstance(error.value, StreamError_Closed):
                return 0
            raise OSError(str(error.value)) from error
        buffer[: len(chunk)] = chunk
        return len(chunk)


class Answer:
    """What the application says of its response, until its body begins."""

    def __init__(self, out: ResponseOutparam) -> None:
        self.out = out
        self.status = 500
        self.fields: list[tuple[str, bytes]] = []
        self.body: OutgoingBody | None = None
        self.stream: OutputStream | None = None

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if exc_info and self.body:
            raise exc_info[1]
        self.status = int(status.split()[0])
        self.fields = [(name, value.encode("latin-1")) for name, value in headers]
        return self.write

    def write(self, content: bytes) -> None:
        stream = self.begin()
        for start in range(0, len(content), MOST):
            stream.blocking_write_and_flush(content[start : start + MOST])

    def begin(self) -> OutputStream:
        if self.stream is None:
            response = OutgoingResponse(Fields.from_list(self.fields))
            response.set_status_code(self.status)
            self.body = response.body()
            ResponseOutparam.set(self.out, Ok(response))
            self.stream = self.body.write()
        return self.stream

    def finish(self) -> None:
        with self.begin():
            pass
        OutgoingBody.finish(self.body, None)


def environ_of(request: IncomingRequest, body: io.BufferedIOBase) -> dict[str, Any]:
    method, scheme = request.method(), request.scheme()
    path, _, query = (request.path_with_query() or "/").partition("?")
    host, _, port = (request.authority() or "localhost").partition(":")
    is_tls = isinstance(scheme, Scheme_Https)
    environ = {
        "REQUEST_METHOD": method.value if isinstance(method, Method_Other) else type(method).__name__[7:].upper(),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": host,
        "SERVER_PORT": port or ("443" if is_tls else "80"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": request.authority() or host,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if is_tls else "http",
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    with request.headers() as fields:
        for name, value in fields.entries():
            key = name.upper().replace("-", "_")
            key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
            text = value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ and key != "HTTP_HOST" else text
    return environ


def handler(app: Any) -> type:
    class IncomingHandler(exports.IncomingHandler):
        def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
            answer = Answer(response_out)
            with request, request.consume() as body, body.stream() as stream:
                content = io.BufferedReader(Input(stream))
                chunks: Iterable[bytes] = app(environ_of(request, content), answer.start_response)
                try:
                    for chunk in chunks:
                        if chunk:
                            answer.write(chunk)
                finally:
                    if hasattr(chunks, "close"):
                        chunks.close()
            answer.finish()

    return IncomingHandler
