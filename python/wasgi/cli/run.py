"""``wasgi run``: one request from the shell, or a command."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from wasgi.cli.commands import Command, Example, Option, where
from wasgi.cli.failures import FAILED, USAGE, Failure, line_of
from wasgi.cli.grants import Grants, options, refuse_for_python
from wasgi.cli.output import busy, tell, write
from wasgi.cli.targets import find, is_command, load_file

if TYPE_CHECKING:
    from wasgi.app import App

_REQUEST = "The request"
_RESPONSE = "The response"
_WITH_BODY = ("POST", "PUT", "PATCH")
_CHUNK = 64 * 1024

_PARAMS: list[click.Parameter] = [
    click.Argument(["target"]),
    click.Argument(["words"], nargs=-1, type=click.UNPROCESSED, metavar="[METHOD] [URL] | [ARG]..."),
    Option(
        ["-H", "--header"],
        section=_REQUEST,
        multiple=True,
        metavar="'NAME: VALUE'",
        help="A field of the request. `Host` replaces the host of URL.",
    ),
    Option(
        ["-d", "--data"],
        section=_REQUEST,
        metavar="TEXT",
        help="The body: the text itself, @FILE, or @- for stdin. The method is then POST, unless one is given.",
    ),
    Option(
        ["--json", "json_text"],
        section=_REQUEST,
        metavar="TEXT",
        help="Likewise, with the content-type of JSON, which the text must be.",
    ),
    Option(
        ["-i", "--include"], section=_RESPONSE, is_flag=True, help="Show the status and the fields before the body."
    ),
    Option(
        ["-f", "--fail"], section=_RESPONSE, is_flag=True, help="End with exit code 1 if the status is 400 or more."
    ),
    Option(["--report"], section=_RESPONSE, is_flag=True, help="Say on stderr what the exchange cost."),
    *options(),
]


def target_of(method: str | None, url: str | None, *, has_body: bool) -> tuple[str, str]:
    """The method and the URL of `[METHOD] [URL]`: what has a slash is a URL."""
    if method is not None and url is None and "/" in method:
        method, url = None, method
    url = url or "/"
    if url.startswith("/"):
        url = f"http://localhost{url}"
    elif not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url):
        url = f"http://{url}"
    return method or ("POST" if has_body else "GET"), url


def _fields(ctx: click.Context, texts: list[str]) -> list[tuple[str, str]]:
    fields = []
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise Failure(f"{where(ctx, 'header')}: `{text}` is not NAME: VALUE", USAGE)
        fields.append((name.strip(), value.strip()))
    return fields


def _take_host(ctx: click.Context, url: str, fields: list[tuple[str, str]]) -> tuple[str, list[tuple[str, str]]]:
    """The URL with the host that a field names, if one does: a guest finds it in the authority, not in fields."""
    hosts = [value for name, value in fields if name.lower() == "host"]
    if not hosts:
        return url, fields
    if len(hosts) > 1:
        raise Failure(f"{where(ctx, 'header')}: there are two hosts, `{hosts[0]}` and `{hosts[1]}`", USAGE)
    if not re.fullmatch(r"[^/?#@]+", hosts[0]):
        raise Failure(f"{where(ctx, 'header')}: `{hosts[0]}` is not a host", USAGE)
    url = re.sub(r"(?<=://)[^/?#]*", lambda _: hosts[0], url, count=1)
    return url, [field for field in fields if field[0].lower() != "host"]


def _given_body(ctx: click.Context) -> bytes | IO[bytes] | None:
    """The body of `--data` or `--json`."""
    data, json_text = ctx.params["data"], ctx.params["json_text"]
    if data is not None and json_text is not None:
        raise Failure(f"{where(ctx, 'data')} and {where(ctx, 'json_text')} exclude each other", USAGE)
    text: str | None = data if data is not None else json_text
    if text is None:
        return None
    if text == "@-":
        if sys.stdin is None:
            raise Failure("there is no stdin to read the body from", FAILED)
        return sys.stdin.buffer
    if text.startswith("@"):
        try:
            return open(text[1:], "rb")
        except OSError as exc:
            raise Failure(f"`{text[1:]}` cannot be read: {exc.strerror}", FAILED) from exc
    if json_text is not None:
        try:
            json.loads(json_text)
        except ValueError as exc:
            raise Failure(f"{where(ctx, 'json_text')}: it is not JSON: {exc}", USAGE) from exc
    return text.encode(errors="surrogateescape")


def piped_stdin(method: str) -> IO[bytes] | None:
    """Stdin as the body, where nothing was said of a body: only if the method has one and stdin is a file or a pipe.

    So a GET in a loop (`while read`) does not take the loop's input, and nothing waits for a terminal or for a stdin
    that cron or ssh has left open.
    """
    if method not in _WITH_BODY or sys.stdin is None:
        return None
    try:
        kind = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return None
    if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind)):
        return None
    tell(f"wasgi: the body of the {method} is read from stdin; hint: --data '' for none")
    return sys.stdin.buffer


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    """What has arrived, as it arrives: `read` would wait until a chunk is full."""
    while chunk := os.read(file.fileno(), _CHUNK):
        yield chunk


def _load(ctx: click.Context, text: str) -> App:
    targets = find(text)
    if len(targets) > 1 or os.path.isdir(text):
        raise Failure(f"`{text}` is a folder", USAGE, hint=f"one of its files: {targets[0].text}")
    if targets[0].python is not None:
        refuse_for_python(ctx, text)
    with busy(f"loading {text}"):
        return targets[0].load(Grants.of(ctx))


_OF_REQUESTS = ("header", "data", "json_text", "include", "fail", "report", "reuse", "isolated", "concurrent")
"""Options that a command has no use for."""


def _run_command(ctx: click.Context, path: str, words: Sequence[str]) -> int:
    """Runs a component of `wasi:cli/command`, and returns its exit code."""
    import wasgi
    from wasgi import _wasgi

    for name in _OF_REQUESTS:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise Failure(f"{where(ctx, name)} does not apply to `{path}`", USAGE, hint="it is a command")
    grants = Grants.of(ctx)
    arguments = [os.path.basename(path), *grants.args, *words]
    for text in arguments:
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise Failure(f"an argument is no text in UTF-8: {text!r}", USAGE) from exc
    grants = replace(grants, args=(), limits={"timeout": None, **grants.limits}, reuse=None)
    with busy(f"loading {path}"):
        app = load_file(path, grants, command=True)
    streams = (sys.stdin is not None, sys.stdout is not None, sys.stderr is not None)
    try:
        return _wasgi._run_command(app, arguments, streams)
    except wasgi.WasgiError as exc:
        if isinstance(exc, wasgi.ComponentError):
            raise
        raise Failure(line_of(exc), FAILED) from exc
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            app.close(timeout=0)


_IS_COMMAND = "wasgi.cli.run.is_command"


class _Run(Command):
    """What follows TARGET may be options, unless it is a command: then all is the guest's, as it stands there."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            ctx.allow_interspersed_args = False
            try:
                target = self.make_parser(ctx).parse_args(list(args))[0].get("target")
            except click.UsageError:
                target = None  # it is refused below
            ctx.meta[_IS_COMMAND] = isinstance(target, str) and is_command(target)
            ctx.allow_interspersed_args = not ctx.meta[_IS_COMMAND]
        return super().parse_args(ctx, args)


@click.pass_context
def _run(ctx: click.Context, /, **values: Any) -> int:
    import wasgi

    words: tuple[str, ...] = values["words"]
    if ctx.meta[_IS_COMMAND]:
        return _run_command(ctx, values["target"], words[1:] if words[:1] == ("--",) else words)
    if len(words) > 2:
        raise click.UsageError(f"Got unexpected extra argument ({words[2]})", ctx)
    body: Any = _given_body(ctx)
    method, url = target_of(*words, *[None] * (2 - len(words)), has_body=body is not None)
    url, fields = _take_host(ctx, url, _fields(ctx, values["header"]))
    if values["json_text"] is not None and "content-type" not in [name.lower() for name, _ in fields]:
        fields.append(("content-type", "application/json"))
    app = _load(ctx, values["target"])
    if body is None:
        body = piped_stdin(method)
    if body is not None and not isinstance(body, bytes):
        body = _chunks(body)
    try:
        request = wasgi.Request(method, url, headers=fields, body=body)
    except ValueError as exc:
        raise Failure(str(exc), USAGE) from exc
    return send(app, request, include=values["include"], fail=values["fail"], report=values["report"])


def send(app: App, request: Any, *, include: bool, fail: bool, report: bool) -> int:
    """Sends a request, and writes the response to stdout as it comes.

    Raises:
        Failure: The guest has no response, or fails within it.
    """
    import wasgi

    try:
        with app.handle(request) as response:
            if sys.stdout is not None:
                if include:
                    write(_head(response))
                for chunk in response:
                    write(chunk)
                if include and response.trailers:
                    write(_lines(response.trailers.items()))
            cost = response.wait()
    except wasgi.WasgiError as exc:
        if isinstance(exc, wasgi.ComponentError):
            raise
        cause = f": {exc.__cause__}" if isinstance(exc, wasgi.BodyError) and exc.__cause__ is not None else ""
        raise Failure(f"{line_of(exc)}{cause}", FAILED) from exc
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            app.close(timeout=0)
    if report and cost is not None:
        fuel = "" if cost.fuel is None else f", {cost.fuel:,} units of fuel"
        tell(
            f"{response.status}: {cost.duration * 1e3:.2f} ms, {cost.memory / 2**20:.2f} MiB of memory, "
            f"{cost.outgoing} outgoing request{'' if cost.outgoing == 1 else 's'}{fuel}"
        )
    return FAILED if fail and response.status >= 400 else 0


def _head(response: Any) -> bytes:
    from http import HTTPStatus

    try:
        reason = f" {HTTPStatus(response.status).phrase}"
    except ValueError:
        reason = ""
    return f"{response.status}{reason}\n".encode() + _lines(response.headers.items()) + b"\n"


def _lines(fields: Any) -> bytes:
    return "".join(f"{name}: {value}\n" for name, value in fields).encode(errors="surrogateescape")


command = _Run(
    "run",
    callback=_run,
    params=_PARAMS,
    help=(
        "Send a component one request, and print the body of its response as it comes. URL may be a path; its host is "
        "then localhost. The exit code is 1 if the guest fails. A component that is a command (wasi:cli/run) runs with "
        "stdin, stdout and stderr; all that follows it is its arguments, and its exit code is that of wasgi run."
    ),
    examples=[
        Example("wasgi run hello.wasm", "GET http://localhost/"),
        Example("wasgi run api.wasm POST /orders --json '{\"item\": 7}' -i", "a POST, with the response's fields"),
        Example("wasgi run api.wasm PUT /files/a --data @a.bin --report", "a file, and what it cost"),
        Example("wasgi run --dir . tool.wasm --verbose in.txt", "a command, with its arguments"),
        Example("gzip -c big | wasgi run api.wasm POST /up --data @- > out", "streamed both ways"),
    ],
)
