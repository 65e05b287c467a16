"""What commands are made of: click's classes, with help that is grouped, variables, and configuration files."""

from __future__ import annotations

import importlib
import os
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from wasgi.cli.config import Section, plain, read
from wasgi.cli.failures import USAGE, Failure, nearest
from wasgi.cli.output import styled, warn

WIDTH = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}


def _variable(ctx: click.Context, name: str) -> str:
    """The name of an option's variable: `WASGI_SERVE_PORT`."""
    return "_".join(["WASGI", ctx.info_name or "", name]).upper().replace("-", "_")


def _of_environment(ctx: click.Context, name: str) -> str | None:
    """The value of a variable. An empty one is as good as none."""
    variable = _variable(ctx, name)
    value = os.environ.get(variable)
    if not value:
        return None
    if variable.endswith("_PORT") and "://" in value:
        # Kubernetes sets `WASGI_SERVE_PORT=tcp://10.43.0.1:80` in each pod beside a service called `wasgi-serve`
        warn(f"`{variable}={value}` is ignored: it is not a port, and Kubernetes sets such variables for its services")
        return None
    return value


class _Sourced(click.Parameter, ABC):
    """A parameter whose value may come from a variable or a file; an error then names that, not the flag."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Its name in a configuration file."""

    @property
    def variable_name(self) -> str:
        return self.key

    def is_list(self) -> bool:
        """Whether it may be given several times."""
        return self.multiple or self.nargs == -1

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        return _of_environment(ctx, self.variable_name)

    def value_from_envvar(self, ctx: click.Context) -> Any:
        value = self.resolve_envvar_value(ctx)
        if value is None or not self.is_list():
            return value
        try:
            return tuple(shlex.split(value))
        except ValueError as exc:
            raise Failure(
                f"variable `{_variable(ctx, self.variable_name)}`: {exc}",
                USAGE,
                hint="several values are separated by spaces, and quoted as in a shell",
            ) from exc

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        try:
            return super().handle_parse_result(ctx, opts, args)
        except click.BadParameter as exc:
            raise Failure(f"{self.where(ctx)}: {exc.message}", USAGE) from exc

    def where(self, ctx: click.Context) -> str:
        """What an error about its value names."""
        source = ctx.get_parameter_source(self.name or "")
        if source is ParameterSource.ENVIRONMENT:
            return f"variable `{_variable(ctx, self.variable_name)}`"
        section: Section | None = ctx.meta.get(_SECTION)
        if source is ParameterSource.DEFAULT_MAP and section is not None:
            return section.where(self.key)
        return self.flag

    @property
    @abstractmethod
    def flag(self) -> str:
        """What an error names if the value is the command line's."""


_SECTION = "wasgi.cli.section"


class Option(_Sourced, click.Option):
    """An option: a flag, a variable, and a key of a configuration file.

    Args:
        section: The heading of the help that it stands below.
        options: As for `click.Option`.
    """

    def __init__(self, *declarations: Any, section: str = "Options", **options: Any) -> None:
        options.setdefault("show_default", options.get("default") not in (None, False))
        super().__init__(*declarations, **options)
        self.section = section

    @property
    def key(self) -> str:
        return max(self.opts, key=len).lstrip("-")

    @property
    def flag(self) -> str:
        return max(self.opts, key=len)


class Argument(_Sourced, click.Argument):
    """The arguments that are left; also a variable, and a key of a configuration file."""

    def __init__(self, declarations: Sequence[str], *, key: str, **options: Any) -> None:
        super().__init__(declarations, **options)
        self._key = key

    @property
    def key(self) -> str:
        return self._key

    @property
    def flag(self) -> str:
        return self.human_readable_name

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, ParameterSource]:
        given = opts.get(self.name or "")
        if isinstance(given, (list, tuple)) and given:
            return given, ParameterSource.COMMANDLINE
        if (value := self.value_from_envvar(ctx)) is not None:
            return value, ParameterSource.ENVIRONMENT
        if (value := (ctx.default_map or {}).get(self.name or "")) is not None:
            return value, ParameterSource.DEFAULT_MAP
        return (), ParameterSource.DEFAULT


def is_given(ctx: click.Context, name: str) -> bool:
    """Whether a value comes from the user: by flag, variable or file."""
    return rank(ctx, name) > 0


def rank(ctx: click.Context, name: str) -> int:
    """How much a value's source counts: flag over variable over file over default."""
    source = ctx.get_parameter_source(name)
    order = [ParameterSource.DEFAULT_MAP, ParameterSource.ENVIRONMENT, ParameterSource.COMMANDLINE]
    return order.index(source) + 1 if source is not None and source in order else 0


def where(ctx: click.Context, name: str) -> str:
    """What an error about a value names: the flag, the variable, or the key of the file."""
    found = next((one for one in ctx.command.params if one.name == name), None)
    return found.where(ctx) if isinstance(found, _Sourced) else name


@dataclass(frozen=True)
class Example:
    """A line that can be typed, and what it does."""

    line: str
    does: str


class Command(click.Command):
    """A command. One with options of its own also reads them from variables and a configuration file.

    Args:
        examples: What stands at the end of its help.
        options: As for `click.Command`.
    """

    def __init__(self, name: str, *, examples: Sequence[Example] = (), **options: Any) -> None:
        options.setdefault("context_settings", WIDTH)
        super().__init__(name, **options)
        self.examples = examples
        if any(isinstance(one, _Sourced) for one in self.params):
            self.params.append(_config_option())

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_text(self.help or "")
        formatter.write_paragraph()
        self.format_usage(ctx, formatter)
        self.format_options(ctx, formatter)
        if any(isinstance(one, _Sourced) for one in self.params):
            with _section(formatter, "Variables and files"):
                formatter.write_text(
                    f"Each option is also a variable ({_variable(ctx, 'name-of-option')}) and a key in [{self.name}] "
                    f"of wasgi.toml, or in [tool.wasgi.{self.name}] of pyproject.toml. A flag counts more than a "
                    "variable, and that more than a file."
                )
        write_examples(formatter, self.examples)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        pieces = self.collect_usage_pieces(ctx)
        formatter.write_usage(ctx.command_path, " ".join(pieces), prefix=styled("Usage: ", "1"))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if isinstance(param, click.Argument) or (record := param.get_help_record(ctx)) is None:
                continue
            heading = param.section if isinstance(param, Option) else "Options"
            sections.setdefault(heading, []).append((styled(record[0], "36"), record[1]))
        for heading, rows in sorted(sections.items(), key=lambda item: item[0] == "Options"):
            with _section(formatter, heading):
                formatter.write_dl(rows, col_max=36)


def write_examples(formatter: click.HelpFormatter, examples: Sequence[Example]) -> None:
    """Lines to type, with what they do."""
    if examples:
        with _section(formatter, "Examples"):
            for one in examples:
                formatter.write(f"{'':{formatter.current_indent}}{styled('# ' + one.does, '2')}\n")
                formatter.write(f"{'':{formatter.current_indent}}{one.line}\n")


class _section:  # noqa: N801
    """A heading, and what stands below it, indented."""

    def __init__(self, formatter: click.HelpFormatter, heading: str) -> None:
        self.formatter = formatter
        self.heading = heading

    def __enter__(self) -> None:
        self.formatter.write(f"\n{styled(self.heading, '1')}\n")
        self.formatter.indent()

    def __exit__(self, *_: object) -> None:
        self.formatter.dedent()


def _config_option() -> click.Option:
    return click.Option(
        ["--config", "file"],
        type=click.Path(path_type=Path),
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_read_config,
        help="The configuration file, instead of wasgi.toml or pyproject.toml in the current folder.",
    )


def _read_config(ctx: click.Context, _param: click.Parameter, file: Path | None) -> None:
    if ctx.resilient_parsing:
        return
    if file is None and (value := _of_environment(ctx, "config")) is not None:
        file = Path(value)
    root = ctx.find_root().command
    names = root.list_commands(ctx) if isinstance(root, click.Group) else []
    command = ctx.command.name or ""
    section = read(command, [*names, command], file)
    if section is None:
        return
    known = {one.key: one for one in ctx.command.params if isinstance(one, _Sourced)}
    values = {}
    for key, value in section.values.items():
        if key not in known:
            raise Failure(f"unknown key {section.where(key)}", USAGE, hint=nearest(key, list(known)))
        param = known[key]
        values[param.name or ""] = plain(section, key, value, several=param.is_list())
    ctx.default_map = values
    ctx.meta[_SECTION] = section


@dataclass(frozen=True)
class Lazy:
    """A command whose module is imported when it is used."""

    module: str
    short_help: str
    attribute: str = "command"


class Group(click.Group):
    """A command that has commands: it knows them by name, and imports none of them to list them.

    Args:
        table: The commands.
        exit_codes: What the help says of them, if anything.
        examples: What stands at the end of its help.
        options: As for `click.Group`.
    """

    def __init__(
        self,
        name: str,
        *,
        table: Mapping[str, Lazy],
        exit_codes: Mapping[int, str] | None = None,
        examples: Sequence[Example] = (),
        **options: Any,
    ) -> None:
        # without a command it is refused in `main`, in one line
        super().__init__(name, context_settings=WIDTH, no_args_is_help=False, **options)
        self.table = table
        self.exit_codes = exit_codes or {}
        self.examples = examples

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = self.table.get(cmd_name)
        if lazy is None:
            return None
        command: click.Command = getattr(importlib.import_module(lazy.module), lazy.attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.table and not ctx.resilient_parsing:
            hint = nearest(args[0], list(self.table)) or f"{ctx.command_path} --help"
            raise Failure(f"no such command: `{args[0]}`", USAGE, hint=hint)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=lazy.short_help)
            for name, lazy in self.table.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_text(self.help or "")
        formatter.write_paragraph()
        formatter.write_usage(ctx.command_path, "COMMAND [OPTIONS]", prefix=styled("Usage: ", "1"))
        with _section(formatter, "Commands"):
            formatter.write_dl([(styled(name, "36"), lazy.short_help) for name, lazy in self.table.items()])
        with _section(formatter, "Options"):
            formatter.write_dl(list(_records(self, ctx)))
        if self.exit_codes:
            with _section(formatter, "Exit codes"):
                formatter.write_dl([(styled(str(code), "36"), text) for code, text in self.exit_codes.items()])
        write_examples(formatter, self.examples)


def _records(command: click.Command, ctx: click.Context) -> Iterator[tuple[str, str]]:
    for param in command.get_params(ctx):
        if (record := param.get_help_record(ctx)) is not None:
            yield styled(record[0], "36"), record[1]
