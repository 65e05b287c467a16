"""What a guest may do: the options that say it, and the `App` that is made of them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from wasgi.cli.commands import Option, is_given, where
from wasgi.cli.failures import USAGE, Failure, in_options
from wasgi.cli.values import Bytes, Count, ParamType, Seconds

if TYPE_CHECKING:
    import wasgi
    from wasgi.app import App

QUEUE = 1024
"""Where the command line's default differs from that of `wasgi.Limits`."""
_GUEST = "What the guest may do"
_LIMITS = "Limits of each guest (`none` lifts one)"

_LIMIT_TYPES: dict[str, tuple[ParamType, str, str]] = {
    "memory": (Bytes(none=True), "BYTES", "Memory of an instance, with what the host holds for it. [default: 256MiB]"),
    "memory_per_app": (Bytes(none=True), "BYTES", "The same for all instances of a component together."),
    "table_elements": (Count(none=True), "N", "Elements of all its tables. [default: 1000000]"),
    "instances": (Count(none=True), "N", "Core instances in an instance of the component. [default: 256]"),
    "handles": (Count(none=True), "N", "Handles of resources that it holds at once. [default: 4096]"),
    "files": (Count(none=True), "N", "Files and folders that an exchange has open. [default: 64]"),
    "files_per_app": (Count(none=True), "N", "The same for all exchanges of a component. [default: 256]"),
    "timeout": (Seconds(none=True), "SECONDS", "The guest's own time for an exchange. [default: 30]"),
    "fuel": (Count(1, none=True), "N", "Units of fuel, about one an instruction. Slower than time."),
    "fields": (Bytes(none=True), "BYTES", "One set of header fields, or trailers. [default: 64KiB]"),
    "request_body": (Bytes(none=True), "BYTES", "The body of a request."),
    "response_body": (Bytes(none=True), "BYTES", "The body of a response."),
    "outgoing": (Count(none=True), "N", "Outgoing requests of an exchange. [default: 1000]"),
    "outgoing_concurrency": (Count(none=True), "N", "Those under way at once. [default: 64]"),
    "concurrency": (Count(1, none=True), "N", "Exchanges of a component at once. [default: 256]"),
    "queue": (Count(), "N", "Exchanges that may wait for their turn. [default: 1024]"),
    "queue_timeout": (Seconds(none=True), "SECONDS", "How long they wait. [default: 10]"),
    "chunks": (Count(1), "N", "Writes of a guest that are buffered for its reader. [default: 8]"),
}


def options() -> list[click.Parameter]:
    """The options of each command that runs guests."""
    return [
        Option(
            ["--env"],
            section=_GUEST,
            multiple=True,
            metavar="NAME[=VALUE]",
            help="A variable of the guest's environment; without a value, the one that wasgi has.",
        ),
        Option(["--arg"], section=_GUEST, multiple=True, metavar="TEXT", help="An argument of the guest's."),
        Option(
            ["--dir"],
            section=_GUEST,
            multiple=True,
            metavar="HOST[::GUEST][:w]",
            help="A folder that the guest sees, perhaps by another path; read-only without `:w`.",
        ),
        Option(
            ["--allow"],
            section=_GUEST,
            multiple=True,
            metavar="PATTERN",
            help="URLs that the guest may request: https://api.example.com, http://*.internal:8080.",
        ),
        Option(
            ["--address"],
            section=_GUEST,
            multiple=True,
            metavar="ADDRESS[/BITS]",
            help="Addresses and networks that a name of --allow may lead to though they are not public: 127.0.0.1, "
            "10.1.0.0/16. An address in a URL of --allow is allowed by that.",
        ),
        *(
            Option(
                [f"--{name.replace('_', '-')}", name],
                section=_LIMITS,
                type=kind,
                metavar=metavar,
                help=text,
            )
            for name, (kind, metavar, text) in _LIMIT_TYPES.items()
        ),
        Option(
            ["--reuse"],
            section="Instances",
            type=Count(1, none=True),
            metavar="N",
            help="Let an instance handle N exchanges, one after another. Without it, each has a fresh one; with "
            "--isolated or --concurrent alone, an instance has 128. One that waits for 10 s goes.",
        ),
        Option(
            ["--isolated"],
            section="Instances",
            is_flag=True,
            help="Put an instance back to what it was after each exchange.",
        ),
        Option(
            ["--concurrent"],
            section="Instances",
            type=Count(1, 128),
            metavar="N",
            help="Let an instance of WASI 0.3 handle N exchanges at once.",
        ),
    ]


NAMES = ["env", "arg", "dir", "allow", "address", *_LIMIT_TYPES, "reuse", "isolated", "concurrent"]


@dataclass(frozen=True)
class Grants:
    """What guests may do, as plain values: it goes to other processes."""

    env: Mapping[str, str] = field(default_factory=dict)
    args: Sequence[str] = ()
    dirs: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    """By the path that the guest sees: the host's, and whether it may be written to."""
    allow: Sequence[str] = ()
    addresses: Sequence[str] = ()
    limits: Mapping[str, Any] = field(default_factory=dict)
    reuse: Mapping[str, Any] | None = None

    @staticmethod
    def of(ctx: click.Context) -> Grants:
        """What the options of a command say.

        Raises:
            Failure: An option is not as it should be.
        """
        values = ctx.params
        reuse: dict[str, Any] = {}
        if is_given(ctx, "reuse"):
            reuse["requests"] = values["reuse"]
        if values["isolated"]:
            reuse["isolated"] = True
        if is_given(ctx, "concurrent"):
            reuse["concurrent"] = values["concurrent"]
        return Grants(
            env=dict(_variable(ctx, one) for one in values["env"]),
            args=tuple(values["arg"]),
            dirs=dict(_directory(ctx, one) for one in values["dir"]),
            allow=tuple(values["allow"]),
            addresses=_addresses(ctx),
            limits=_limits(ctx),
            reuse=reuse or None,
        )

    def app_options(self) -> dict[str, Any]:
        """The keyword arguments of `App`.

        Raises:
            Failure: A value that `Limits`, `Reuse` or `Network` refuse.
        """
        import wasgi

        try:
            return {
                "env": dict(self.env),
                "args": list(self.args),
                "dirs": {guest: wasgi.Dir(host, write=write) for guest, (host, write) in self.dirs.items()},
                "outgoing": self._network(),
                "limits": wasgi.Limits(**self.limits),
                "reuse": None if self.reuse is None else wasgi.Reuse(**self.reuse),
            }
        except (ValueError, OverflowError) as exc:
            raise Failure(in_options(str(exc)), USAGE) from exc

    def _network(self) -> wasgi.Network | None:
        import wasgi

        if not self.allow:
            return None
        behind: dict[str, Any] = {"addresses": list(self.addresses)} if self.addresses else {}
        return wasgi.Network(self.allow, **behind)

    def lines(self) -> list[str]:
        """For the user who starts a server: what was granted, and what was not."""
        limits = self.app_options()["limits"]
        memory = "no limit of memory" if limits.memory is None else f"{limits.memory / 2**20:g} MiB of memory"
        time = "no limit of time" if limits.timeout is None else f"{limits.timeout:g} s for an exchange"
        granted = [f"{memory}, {time}"]
        if self.reuse is None:
            granted.append("a fresh instance for each exchange")
        else:
            reuse = self.app_options()["reuse"]
            at_once = f", {reuse.concurrent} at once" if reuse.concurrent > 1 else ""
            exchanges = "any number of" if reuse.requests is None else str(reuse.requests)
            restored = ", and is put back to what it was after each" if reuse.isolated else ""
            granted.append(f"an instance handles {exchanges} exchanges{at_once}{restored}")
        behind = f" (also at {', '.join(self.addresses)})" if self.addresses else ""
        granted.append(f"network: {', '.join(self.allow)}{behind}" if self.allow else "no network")
        folders = [
            f"{guest}{'' if guest == host else f' ({host})'}{' to write to' if write else ''}"
            for guest, (host, write) in self.dirs.items()
        ]
        granted.append(f"folders: {', '.join(folders)}" if folders else "no files")
        # names only: the values may be secrets
        granted.append(f"variables: {', '.join(self.env)}" if self.env else "no environment")
        return granted


def _limits(ctx: click.Context) -> dict[str, Any]:
    limits = {name: ctx.params[name] for name in _LIMIT_TYPES if is_given(ctx, name)}
    if limits.get("concurrency", 0) is not None:
        # of a server's own clients, who rather wait than see a 503
        limits.setdefault("queue", QUEUE)
    return limits


def _addresses(ctx: click.Context) -> tuple[str, ...]:
    addresses = tuple(ctx.params["address"])
    if addresses and not ctx.params["allow"]:
        raise Failure(f"{where(ctx, 'address')} needs URLs that lead there", USAGE, hint="--allow PATTERN")
    return addresses


def refuse_for_python(ctx: click.Context, target: str) -> None:
    """An `App` that Python code has made has its options there.

    Raises:
        Failure: There are others on the command line.
    """
    for name in NAMES:
        if is_given(ctx, name):
            raise Failure(
                f"{where(ctx, name)} does not apply to `{target}`", USAGE, hint="its App has its options in Python"
            )


def _variable(ctx: click.Context, text: str) -> tuple[str, str]:
    name, has_value, value = text.partition("=")
    if not name:
        raise Failure(f"{where(ctx, 'env')}: `{text}` has no name", USAGE)
    if has_value:
        return name, value
    if (inherited := os.environ.get(name)) is None:
        raise Failure(f"{where(ctx, 'env')}: there is no variable `{name}`", USAGE, hint=f"--env {name}=VALUE")
    return name, inherited


def _directory(ctx: click.Context, text: str) -> tuple[str, tuple[str, bool]]:
    found = re.fullmatch(r"(.+?)(?:::(.+?))?(:w)?", text, re.DOTALL)
    if found is None:
        raise Failure(f"{where(ctx, 'dir')}: `{text}` is not HOST[::GUEST][:w]", USAGE)
    host, guest, write = found.groups()
    if not os.path.isdir(host):
        raise Failure(f"{where(ctx, 'dir')}: `{host}` is not a folder", USAGE)
    return guest or host, (host, write is not None)


def make_app(source: Any, grants: Grants) -> App:
    """An `App` of a component.

    Raises:
        ComponentError: It cannot be used.
        OSError: It cannot be read.
        Failure: An option is not as it should be.
    """
    import wasgi

    options = grants.app_options()
    isolated = grants.reuse is not None and grants.reuse.get("isolated", False)
    fuel = grants.limits.get("fuel") is not None
    # before the options, so that their errors are told apart
    component = wasgi.Component(source, fuel=fuel, isolated=isolated)
    try:
        app = wasgi.App(component, **options)
    except (ValueError, TypeError) as exc:
        if isinstance(exc, wasgi.ComponentError):
            raise
        raise Failure(in_options(str(exc)), USAGE) from exc
    app._name_flags()
    return app
