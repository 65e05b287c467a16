"""The error tree: complete, documented, and each leaf raised for real."""

from __future__ import annotations

import asyncio
import errno
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import wasgi
from tests.conftest import COMPONENTS, GUESTS, PROBES, AppMaker, get
from tests.processes import free_port
from wasgi import errors

WIT = (Path(__file__).parents[2] / "wit" / "deps" / "http.wit").read_text()
CASES = re.findall(
    r"^\s+([\w-]+)(?:\((.+)\))?,$", WIT.split("variant error-code {")[1].split("\n  }")[0], flags=re.MULTILINE
)
PAYLOADS: dict[str, dict[str, object]] = {
    "": {},
    "DNS-error-payload": {"rcode": "NXDOMAIN", "info_code": 3},
    "TLS-alert-received-payload": {"alert_id": 40, "alert_message": "handshake failure"},
    "field-size-payload": {"field_name": "x-big", "field_size": 70_000},
    "option<field-size-payload>": {"field_name": "x-big", "field_size": 70_000},
    "option<u32>": {"size": 70_000},
    "option<u64>": {"size": 1 << 40},
}
TEXTS = {
    "HTTP-response-transfer-coding": "gzip",
    "HTTP-response-content-coding": "br",
    "internal-error": "as asked",
}


def payload_of(name: str, kind: str) -> dict[str, object]:
    return {"detail": TEXTS[name]} if kind == "option<string>" else PAYLOADS[kind]


def test_the_wit_has_39_cases_and_each_has_its_class() -> None:
    assert [name for name, _ in CASES] == list(errors.ERROR_CODES)
    assert len(CASES) == 39
    for name, leaf in errors.ERROR_CODES.items():
        assert leaf.code == name
        assert leaf.__name__.lower() == name.replace("-", "").lower()
        assert leaf.__doc__


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_an_error_code_that_a_guest_answers_with_is_raised(app: AppMaker, name: str, kind: str) -> None:
    with pytest.raises(errors.ERROR_CODES[name]) as raised:
        app().handle(get(f"/code?name={name}"))
    assert type(raised.value) is errors.ERROR_CODES[name]
    assert raised.value.code == name
    for attribute, value in payload_of(name, kind).items():
        assert getattr(raised.value, attribute) == value
    assert str(raised.value).startswith(name)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_an_error_code_that_an_upstream_raises_reaches_the_guest_and_comes_back(
    app: AppMaker, name: str, kind: str
) -> None:
    def upstream(request: wasgi.Request) -> wasgi.Response:
        raise errors.ERROR_CODES[name](**payload_of(name, kind))

    made = app(outgoing=upstream)
    with pytest.raises(errors.ERROR_CODES[name]) as raised:
        made.handle(get("/fetch-or-code?url=http://up/"))
    assert raised.value == errors.ERROR_CODES[name](**payload_of(name, kind))
    # and what the guest itself saw
    seen = made.handle(get("/fetch?url=http://up/")).text
    variant = "".join(part[0].upper() + part[1:].lower() for part in name.split("-"))
    assert seen.startswith(f"ErrorCode::{variant}")
    for value in payload_of(name, kind).values():
        assert str(value) in seen


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_an_error_code_that_breaks_an_upstreams_body_reaches_the_guest(app: AppMaker, name: str, kind: str) -> None:
    def upstream(request: wasgi.Request) -> wasgi.Response:
        def body() -> Iterator[bytes]:
            yield b"some of it"
            raise errors.ERROR_CODES[name](**payload_of(name, kind))

        return wasgi.Response(body=body())

    seen = app(outgoing=upstream).handle(get("/answer?url=http://up/")).text
    variant = "".join(part[0].upper() + part[1:].lower() for part in name.split("-"))
    assert f"broken: Some(ErrorCode::{variant}" in seen
    for value in payload_of(name, kind).values():
        assert str(value) in seen


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_error_codes_are_values(name: str, kind: str) -> None:
    leaf = errors.ERROR_CODES[name]
    full = leaf(**payload_of(name, kind))
    assert full == leaf(**payload_of(name, kind))
    assert hash(full) == hash(leaf(**payload_of(name, kind)))
    assert pickle.loads(pickle.dumps(full)) == full
    assert leaf() == leaf()
    if kind:
        assert leaf() != full
    assert full != Exception()


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("InvalidComponentError", ValueError),
        ("GuestTimeoutError", TimeoutError),
        ("MemoryLimitError", MemoryError),
        ("DnsTimeout", TimeoutError),
        ("ConnectionTimeout", TimeoutError),
        ("ConnectionReadTimeout", TimeoutError),
        ("HttpResponseTimeout", TimeoutError),
        ("ConnectionRefused", ConnectionRefusedError),
        ("ConnectionTerminated", ConnectionError),
        ("HttpRequestDenied", PermissionError),
        ("DestinationIpProhibited", PermissionError),
        ("TlsCertificateError", OSError),
    ],
)
def test_leaves_are_builtins_too(name: str, builtin: type[Exception]) -> None:
    leaf = getattr(errors, name)
    assert issubclass(leaf, builtin)
    assert issubclass(leaf, wasgi.WasgiError)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    names = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, wasgi.WasgiError)
    }
    codes = {leaf.__name__ for leaf in errors.ERROR_CODES.values()}
    for name in names - codes:
        assert name.startswith("_") or name in errors.__doc__


def test_trap(app: AppMaker, generation: str) -> None:
    with pytest.raises(wasgi.TrapError) as raised:
        app().handle(get("/trap"))
    trap = raised.value
    assert "wasm `unreachable` instruction executed" in str(trap)
    named = f"{PROBES[generation].stem}::named_function_that_traps"
    assert f"in `{named}" in str(trap)
    assert any(named in frame for frame in trap.backtrace)
    assert trap.stderr == ["last words"]


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        ("/overflow?n=10000000", "call stack exhausted"),
        ("/out-of-bounds", "out of bounds memory access"),
    ],
)
def test_traps_of_other_kinds(app: AppMaker, route: str, reason: str) -> None:
    made = app()
    with pytest.raises(wasgi.TrapError, match=reason) as raised:
        made.handle(get(route))
    assert raised.value.backtrace
    assert made.handle(get("/hello")).status == 200


def test_a_panic_is_told_by_its_message(app: AppMaker) -> None:
    with pytest.raises(wasgi.TrapError, match="last line of its stderr: no such thing") as raised:
        app().handle(get("/panic"))
    assert any("panicked at" in line for line in raised.value.stderr)


def test_no_response(app: AppMaker) -> None:
    with pytest.raises(wasgi.NoResponseError, match="returned without setting a response"):
        app().handle(get("/silent"))


@pytest.mark.parametrize(("asked", "code"), [(0, 0), (1, 1), (42, 1)])
def test_exit(app: AppMaker, asked: int, code: int) -> None:
    with pytest.raises(wasgi.GuestExitError) as raised:
        app().handle(get(f"/exit?code={asked}"))
    # `wasi:cli/exit.exit` knows success and failure only
    assert raised.value.code == code


class TestBrokenBodies:
    """A body that is not whole never looks whole."""

    def test_a_trap_midway(self, app: AppMaker) -> None:
        response = app().handle(get("/trap-midway?bytes=100"))
        with pytest.raises(wasgi.BodyError, match="failed after 100 bytes") as raised:
            response.read()
        assert raised.value.received == 100
        assert isinstance(raised.value.__cause__, wasgi.TrapError)

    def test_a_trap_midway_after_many_chunks(self, app: AppMaker) -> None:
        response = app().handle(get("/trap-midway?bytes=1000000"))
        received = 0
        with pytest.raises(wasgi.BodyError) as raised:
            for chunk in response:
                received += len(chunk)
        assert received == raised.value.received == 1_000_000

    async def test_a_trap_midway_async(self, app: AppMaker) -> None:
        response = await app().handle_async(get("/trap-midway?bytes=1000000"))
        received = 0
        with pytest.raises(wasgi.BodyError):
            async for chunk in response:
                received += len(chunk)
        assert received == 1_000_000

    @pytest.mark.parametrize("route", ["/unfinished", "/dropped"])
    def test_a_body_that_the_guest_does_not_finish(self, app: AppMaker, route: str) -> None:
        response = app().handle(get(route))
        with pytest.raises(wasgi.BodyError, match="after 10 bytes: the guest did not finish it"):
            response.read()

    def test_shorter_than_its_length(self, app: AppMaker) -> None:
        response = app().handle(get("/length?declared=10&written=5"))
        with pytest.raises(wasgi.BodyError, match="after 5 bytes: its content-length says 10"):
            response.read()

    def test_as_long_as_its_length(self, app: AppMaker) -> None:
        assert app().handle(get("/length?declared=10&written=10")).read() == b"x" * 10

    def test_a_time_limit_midway(self, app: AppMaker) -> None:
        response = app(limits=wasgi.Limits(timeout=0.2)).handle(get("/endless"))
        with pytest.raises(wasgi.BodyError) as raised:
            for _ in response:
                pass
        assert isinstance(raised.value.__cause__, wasgi.GuestTimeoutError)


def test_a_trap_has_the_lines_of_the_source_where_the_component_knows_them() -> None:
    """By debug information in the component, without any switch."""
    source = (GUESTS / "lines" / "src" / "lib.rs").read_text().splitlines()
    line = next(number for number, text in enumerate(source, 1) if text.endswith("// the trap"))
    call = next(number for number, text in enumerate(source, 1) if text.lstrip().startswith("look_beyond("))
    with pytest.raises(wasgi.TrapError) as raised:
        wasgi.App(COMPONENTS / "lines.wasm").handle(get("/"))
    inlined, innermost, caller = raised.value.backtrace[:3]
    assert "read_volatile" in inlined
    assert re.fullmatch(rf"lines::look_beyond \(.*lines/src/lib\.rs:{line}\)", innermost)
    assert re.search(rf"\(.*lines/src/lib\.rs:{call}\)", caller)
    assert f"lib.rs:{line})`" in str(raised.value)


def test_a_trap_of_a_component_without_debug_information_has_its_names_and_places(probe: wasgi.Component) -> None:
    with pytest.raises(wasgi.TrapError) as raised:
        wasgi.App(probe).handle(get("/trap"))
    assert any(re.fullmatch(r".+ \(at 0x[0-9a-f]+\)", frame) for frame in raised.value.backtrace)


class TestACodeIsRaisedByItsClass:
    """Any other way says so, rather than give the guest an `internal-error`."""

    @pytest.mark.parametrize(
        ("given", "hint"),
        [
            (("connection-refused",), "raise wasgi.errors.ConnectionRefused`"),
            (("DNS-timeout",), "raise wasgi.errors.DnsTimeout`"),
            (("dns_timeout",), "raise wasgi.errors.DnsTimeout`"),
            (("no such code",), "`wasgi.errors.ERROR_CODES` has each"),
            ((), "`wasgi.errors.ERROR_CODES` has each"),
        ],
    )
    def test_the_root_is_none(self, given: tuple[str, ...], hint: str) -> None:
        with pytest.raises(TypeError, match=f"`ErrorCode` is the class of all codes; hint: .*{hint}"):
            raise wasgi.ErrorCode(*given)

    def test_one_without_a_payload_takes_nothing(self) -> None:
        with pytest.raises(TypeError, match="`ConnectionRefused` takes no arguments: a guest is told its code"):
            errors.ConnectionRefused("by whom")

    def test_a_class_of_no_code(self) -> None:
        class Own(wasgi.ErrorCode):
            code = "own-code"

        with pytest.raises(TypeError, match="`Own` has no `code` of wasi:http: 'own-code'"):
            Own()

    def test_a_class_of_ones_own_below_one(self, app: AppMaker) -> None:
        class Own(errors.ConnectionRefused):
            pass

        def upstream(request: wasgi.Request) -> wasgi.Response:
            raise Own

        with pytest.raises(errors.ConnectionRefused):
            app(outgoing=upstream).handle(get("/fetch-or-code?url=http://up/"))

    def test_an_upstream_that_does_it_is_told(self, app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
        def upstream(request: wasgi.Request) -> wasgi.Response:
            raise wasgi.ErrorCode("connection-refused")

        app(outgoing=upstream).handle(get("/fetch?url=http://up/"))
        assert "hint: `raise wasgi.errors.ConnectionRefused`" in caplog.text


def causes_of(error: BaseException) -> list[BaseException]:
    """The chain of `__cause__`, outermost first."""
    causes = []
    while (cause := error.__cause__) is not None:
        causes.append(cause)
        error = cause
    return causes


class TestCauses:
    """What an error of the host's came from is its `__cause__`, link by link; the system's is an `OSError`."""

    def test_a_component_that_cannot_be_linked(self) -> None:
        text = (GUESTS / "hand.wat").read_text()
        text = text.replace('(param "status-code" u16)', '(param "status-code" u64)')
        text = text.replace(
            "(func $set-status (param i32 i32) (result i32))", "(func $set-status (param i32 i64) (result i32))"
        )
        text = text.replace("(i32.const 299)", "(i64.const 299)")
        with pytest.raises(wasgi.UnsupportedComponentError, match="cannot be linked") as raised:
            wasgi.App(text.encode())
        causes = causes_of(raised.value)
        assert len(causes) > 1, "which import, and what about it"
        assert {type(cause) for cause in causes} == {wasgi.WasgiError}
        assert str(raised.value) == ": ".join(["the component cannot be linked", *map(str, causes)])

    async def test_a_connection_that_is_refused(self) -> None:
        url = f"http://127.0.0.1:{free_port()}"
        with pytest.raises(errors.ConnectionRefused) as raised:
            await wasgi.outgoing.call(wasgi.Network(allow=[url], allow_private=True), wasgi.Request("GET", url))
        (cause,) = causes_of(raised.value)
        assert type(cause) is ConnectionRefusedError
        assert cause.errno == errno.ECONNREFUSED

    async def test_a_response_that_ends_in_its_head(self) -> None:
        async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nserver: ")
            writer.close()

        async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(errors.HttpResponseIncomplete) as raised:
                await wasgi.outgoing.call(wasgi.Network(allow=[url], allow_private=True), wasgi.Request("GET", url))
        assert "before message completed" in str(causes_of(raised.value)[0])

    def test_a_directory_that_is_not_there(self, app: AppMaker, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        made = app(dirs={"/data": wasgi.Dir(tmp_path / "data")})
        (tmp_path / "data").rmdir()
        with pytest.raises(wasgi.WasgiError, match="cannot open the granted directory") as raised:
            made.handle(get("/hello"))
        cause = causes_of(raised.value)[-1]
        assert type(cause) is FileNotFoundError
        assert cause.errno == errno.ENOENT

    def test_one_without_is_the_first_and_last(self) -> None:
        with pytest.raises(wasgi.InvalidComponentError) as raised:
            wasgi.Component(b"(component")
        assert raised.value.__cause__ is None
