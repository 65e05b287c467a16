"""``wasgi inspect``: what a component is, what it needs, and whether it runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from wasgi import _wasgi
from wasgi.cli.commands import Command, Example
from wasgi.cli.failures import UNUSABLE, unreadable
from wasgi.cli.targets import command_of
from wasgi.errors import ComponentError

_OUTGOING = "outgoing requests: App(outgoing=...); else they fail with `HTTP-request-denied`"
_SOCKETS = "sockets: never granted; it reaches the network through wasi:http only"
_GRANTS = {
    "wasi:http/outgoing-handler": _OUTGOING,
    "wasi:http/client": _OUTGOING,
    "wasi:http/handler": "the next handler: App(handler=...); else no app can be made of it",
    "wasi:filesystem/preopens": "files: App(dirs={...}); else it has none",
    "wasi:cli/environment": "environment and arguments: App(env=..., args=...); else both are empty",
    "wasi:sockets/tcp": _SOCKETS,
    "wasi:sockets/types": _SOCKETS,
}


@dataclass(frozen=True)
class Inspected:
    """What is known of a component; its fields are the keys of ``--json``."""

    file: str
    size: int
    """Bytes of its binary form."""
    wasi: str
    """The generation that it speaks."""
    handler: str | None
    command: str | None
    """The export by which it is run, if it has no handler."""
    versions: list[str]
    """Of the WASI interfaces that it names."""
    exports: list[str]
    imports: list[str]
    grants: list[str]
    """What it can be given, and how."""
    missing: list[str]
    """Imports that wasgi does not provide."""
    restorable: bool
    """Whether its instances can be put back to what they were (`Reuse.isolated`)."""
    not_restorable: str | None
    """Why they cannot."""
    runs: bool
    reason: str | None
    """Why it does not run."""


def inspect(file: Path) -> Inspected:
    """Says what a component is, and whether it runs: it is loaded, and not called.

    Args:
        file: A component, binary or text.

    Raises:
        InvalidComponentError: It is not a component; the message says what it is instead.
        ComponentLimitError: It is larger than the defaults of `ComponentLimits`.
        OSError: It cannot be read.
    """
    source = _wasgi._read_component(file)
    imports, exports, wasi, handler, missing = _wasgi._outline(source)
    names = {name.partition("@")[0] for name in imports}
    versions = {name.partition("@")[2] for name in imports + exports if name.startswith("wasi:") and "@" in name}
    grants = list(dict.fromkeys(grant for name, grant in _GRANTS.items() if name in names))
    # by what an App does, so that the two never differ; the machine code is kept for it
    reason = None
    command = command_of(exports, wasi, handler)
    try:
        component = _wasgi.Component(source)
        if command is None:
            component._check()
        else:
            component._check_command()
    except ComponentError as exc:
        reason = str(exc)
    not_restorable = None if reason or command else _wasgi._why_not_restorable(source)
    return Inspected(
        file=str(file),
        size=len(source),
        wasi=wasi,
        handler=handler,
        command=command,
        versions=sorted(versions),
        exports=exports,
        imports=imports,
        grants=grants,
        missing=missing,
        restorable=reason is None and command is None and not_restorable is None,
        not_restorable=not_restorable,
        runs=reason is None,
        reason=reason,
    )


def lines(found: Inspected) -> list[str]:
    """The same for a reader."""
    nothing = "none: it exports neither `wasi:http/incoming-handler@0.2` nor `wasi:http/handler@0.3`"
    entry = f"  handler   {found.handler or nothing}"
    if found.command is not None:
        entry = f"  command   {found.command}"
    shown = [
        f"{found.file}: a component of WASI {found.wasi}, {found.size:,} bytes",
        entry,
        f"  WASI      {', '.join(found.versions) or 'none'}",
        *_listed("exports", found.exports),
        *_listed("imports", found.imports),
        *_listed("grants", found.grants or ["none needed"]),
    ]
    if found.missing:
        shown += _listed("missing", [f"{name}: not provided by wasgi" for name in found.missing])
    if found.restorable:
        shown.append("  isolated  yes: its instances can be put back to what they were (`Reuse(isolated=True)`)")
    elif found.not_restorable is not None:
        shown.append(f"  isolated  by fresh instances only: {found.not_restorable}")
    if found.reason is None and found.command is not None:
        return [*shown, "  verdict   `wasgi run` runs it"]
    if found.reason is None:
        return [*shown, "  verdict   runs on this version of wasgi"]
    return [*shown, "  verdict   does not run on this version of wasgi:", f"            {found.reason}"]


def _listed(title: str, items: Sequence[str]) -> list[str]:
    return [f"  {title if i == 0 else '':9} {item}" for i, item in enumerate(items or ["none"])]


def _inspect(file: Path, as_json: bool) -> int:
    try:
        found = inspect(file)
    except OSError as exc:
        raise unreadable(file, exc) from exc
    print(json.dumps(asdict(found), indent=2) if as_json else "\n".join(lines(found)))
    return 0 if found.runs else UNUSABLE


command = Command(
    "inspect",
    callback=_inspect,
    help="Show what a component is and needs, and whether it runs, also by the exit code: 3 if it does not.",
    params=[
        click.Argument(["file"], type=click.Path(path_type=Path)),
        click.Option(["--json", "as_json"], is_flag=True, help="As one object of JSON."),
    ],
    examples=[
        Example("wasgi inspect plugin.wasm", "its handler, imports, exports, and what it can be given"),
        Example("wasgi inspect --json plugin.wasm | jq .imports", "for a script"),
    ],
)
