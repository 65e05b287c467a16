"""The commands of ``wasgi``, and how one ends."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from wasgi.cli.commands import Example, Group, Lazy
from wasgi.cli.failures import EXIT_CODES, INTERRUPTED, USAGE, Failure, failure_of, nearest
from wasgi.cli.output import give_stdout_up, has_colours, tell, whatever_stdout_encodes, whole_stdout
from wasgi.errors import WasgiError

_COMMANDS = {
    "serve": Lazy("wasgi.cli.serve", "Serve components over HTTP."),
    "run": Lazy("wasgi.cli.run", "Send a component one request, or run a command."),
    "compile": Lazy("wasgi.cli.compile", "Compile components into the code cache."),
    "cache": Lazy("wasgi.cli.cache", "Show or clear the code cache."),
    "inspect": Lazy("wasgi.cli.inspect", "Show what a component is and needs, and whether it runs."),
    "wit": Lazy("wasgi.cli.wit", "Write out the WIT to build a component against."),
    "demo": Lazy("wasgi.cli.demo", "Show what wasgi does, on a bundled component."),
    "completion": Lazy("wasgi.cli.completion", "Print a script that completes commands in your shell."),
}


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from wasgi.cli.version import versions

        print("\n".join(versions()))
        ctx.exit()


root = Group(
    "wasgi",
    table=_COMMANDS,
    exit_codes=EXIT_CODES,
    help="Run WebAssembly components that speak wasi:http.",
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the versions of wasgi, of wasmtime and of WASI.",
        )
    ],
    examples=[
        Example("wasgi serve hello.wasm", "a server on http://127.0.0.1:8000/"),
        Example("wasgi run hello.wasm /greet", "one request, without a server"),
        Example("wasgi serve --help", "all that a server can be told"),
    ],
)


def run(arguments: list[str]) -> int:
    """Runs the command line.

    Args:
        arguments: Those of the process, without the command's name.

    Returns:
        The exit code: see `failures`.
    """
    with whole_stdout(), whatever_stdout_encodes():
        try:
            try:
                status = _run(arguments)
            except click.exceptions.Exit as exc:
                status = exc.exit_code
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError:
            # the reader has closed the pipe (`wasgi demo | head -1`)
            give_stdout_up()
            return 0
        except (KeyboardInterrupt, click.Abort):
            give_stdout_up()
            return INTERRUPTED
        except (Failure, click.ClickException, OSError, WasgiError) as exc:
            give_stdout_up()
            failure = _failure(exc)
            tell(f"wasgi: {failure}")
            return failure.code
    return status


def _run(arguments: list[str]) -> int:
    instruction = os.environ.get("_WASGI_COMPLETE")
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(root, {}, "wasgi", "_WASGI_COMPLETE", instruction)
    if not arguments:
        with root.make_context("wasgi", ["--help"], resilient_parsing=True) as ctx:
            click.echo(root.get_help(ctx), err=True)
        return USAGE
    _read_cache_size()
    with root.make_context("wasgi", arguments, color=has_colours(sys.stdout)) as ctx:
        status: Any = root.invoke(ctx)
    return int(status or 0)


def _read_cache_size() -> None:
    """Has `WASGI_CACHE_SIZE` in bytes: the code cache, which reads it, knows no units."""
    text = os.environ.get("WASGI_CACHE_SIZE", "")
    if text and not (text.isascii() and text.isdigit()):
        from wasgi.cli.values import Bytes

        try:
            os.environ["WASGI_CACHE_SIZE"] = str(Bytes().convert(text, None, None))
        except click.BadParameter as exc:
            raise Failure(f"variable `WASGI_CACHE_SIZE`: {exc.message}", USAGE) from exc


def _failure(error: BaseException) -> Failure:
    """What the user is told of an error, and the exit code."""
    if isinstance(error, click.NoSuchOption):
        name = error.option_name
        known = [option for one in (error.ctx.command.params if error.ctx else []) for option in one.opts]
        return Failure(f"no such option: `{name}`", USAGE, hint=nearest(name, known) or _help(error.ctx))
    if isinstance(error, click.UsageError):
        return Failure(_uncapitalized(error.format_message()), USAGE, hint=_help(error.ctx))
    if isinstance(error, click.ClickException):
        return Failure(_uncapitalized(error.format_message()))
    return failure_of(error)


def _help(ctx: click.Context | None) -> str:
    return f"{ctx.command_path if ctx else 'wasgi'} --help"


def _uncapitalized(message: str) -> str:
    return message[:1].lower() + message[1:].removesuffix(".")
