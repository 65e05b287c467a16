"""A guest in Python for WASI 0.3, built by componentize-py: it greets, echoes, asks an upstream, sleeps and raises."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import componentize_py_async_support
import wit_world
from componentize_py_async_support.streams import ByteStreamReader
from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import client, monotonic_clock
from wit_world.imports.wasi_http_types import (
    ErrorCode_InternalError,
    Fields,
    Method_Post,
    Request,
    Response,
    Scheme_Http,
    Scheme_Https,
)

FIELDS = [("content-type", b"text/plain; charset=utf-8")]
waiting: list[asyncio.Future[str]] = []


class Handler(exports.Handler):
    async def handle(self, request: Request) -> Response:
        url = urlsplit(request.get_path_with_query() or "/")
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        match url.path:
            case "/hello":
                return answer(f"Hello, World, from Python {sys.version_info.major}.{sys.version_info.minor}")
            case "/print":
                print(query["line"])
                return answer("printed")
            case "/echo":
                body, trailers = Request.consume_body(request, done())
                return Response.new(Fields.from_list(FIELDS), body, trailers)[0]
            case "/upper":
                body, _ = Request.consume_body(request, done())
                return answer_in_chunks(upper(body))
            case "/fetch":
                return answer(await fetch(query["url"], b""))
            case "/post":
                return answer(await fetch(query["url"], b"x" * int(query["bytes"])))
            case "/gather":
                return answer("\n".join(await asyncio.gather(*(fetch(u, b"") for u in parse_qs(url.query)["url"]))))
            case "/sleep":
                await monotonic_clock.wait_for(int(query["ms"]) * 1_000_000)
                return answer("slept")
            case "/time-sleep":
                time.sleep(int(query["ms"]) / 1000)
                return answer("slept")
            case "/asyncio-sleep":
                await asyncio.sleep(int(query["ms"]) / 1000)
                return answer("slept")
            case "/asyncio-timeout":
                async with asyncio.timeout(5):
                    return answer("in time")
            case "/cancel":
                task = asyncio.create_task(fetch(query["url"], b""))
                await monotonic_clock.wait_for(1_000_000)
                task.cancel()
                try:
                    return answer(await task)
                except asyncio.CancelledError:
                    return answer("cancelled")
            case "/wait":  # for another request, which comes with /wake
                future = asyncio.get_running_loop().create_future()
                waiting.append(future)
                return answer(await future)
            case "/wake":
                waiting.pop().set_result(query["with"])
                return answer("woken")
            case "/fail":
                raise Err(ErrorCode_InternalError("on purpose"))
            case "/raise":
                raise ValueError("on purpose")
            case "/raise-midway":
                return answer_in_chunks(raises())
            case "/break-midway":
                return breaks_midway()
            case _:
                return answer("no such route", 404)


def answer(text: str, status: int = 200) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        yield text.encode()

    return answer_in_chunks(chunks(), status)


def answer_in_chunks(chunks: AsyncIterator[bytes], status: int = 200) -> Response:
    writer, reader = wit_world.byte_stream()

    async def write() -> None:
        with writer:
            async for chunk in chunks:
                await writer.write_all(chunk)

    response = Response.new(Fields.from_list(FIELDS), reader, no_trailers())[0]
    response.set_status_code(status)
    componentize_py_async_support.spawn(write())
    return response


async def upper(body: ByteStreamReader) -> AsyncIterator[bytes]:
    with body:
        while not body.writer_dropped:
            if chunk := await body.read(16 * 1024):
                yield chunk.upper()


async def raises() -> AsyncIterator[bytes]:
    yield b"some of it"
    await monotonic_clock.wait_for(1_000_000)
    raise ValueError("midway")


def breaks_midway() -> Response:
    """Says in its trailers that its body is not whole."""
    writer, reader = wit_world.byte_stream()
    end, trailers = wit_world.result_option_wasi_http_types_fields_wasi_http_types_error_code_future(lambda: Ok(None))

    async def write() -> None:
        with writer:
            await writer.write_all(b"some of it")
        await end.write(Err(ErrorCode_InternalError("on purpose")))

    componentize_py_async_support.spawn(write())
    return Response.new(Fields(), reader, trailers)[0]


async def fetch(url: str, content: bytes) -> str:
    split = urlsplit(url)
    body = None
    if content:
        writer, body = wit_world.byte_stream()

        async def write() -> None:
            with writer:
                await writer.write_all(content)

        componentize_py_async_support.spawn(write())
    request = Request.new(Fields(), body, no_trailers(), None)[0]
    if content:
        request.set_method(Method_Post())
    request.set_scheme(Scheme_Https() if split.scheme == "https" else Scheme_Http())
    request.set_authority(split.netloc)
    request.set_path_with_query(split.path or "/")
    try:
        response = await client.send(request)
    except Err as error:
        return f"error: {type(error.value).__name__}"
    status = response.get_status_code()
    reader, _ = Response.consume_body(response, done())
    whole = b""
    with reader:
        while not reader.writer_dropped:
            whole += await reader.read(16 * 1024)
    return f"{status} {whole.decode()}"


def no_trailers():
    return wit_world.result_option_wasi_http_types_fields_wasi_http_types_error_code_future(lambda: Ok(None))[1]


def done():
    return wit_world.result_unit_wasi_http_types_error_code_future(lambda: Ok(None))[1]
