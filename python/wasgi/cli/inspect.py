"""``wasgi inspect``: what a component is, what it needs, and whether it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wasgi import _wasgi
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


def inspect(file: Path) -> tuple[list[str], bool]:
    """Says what a component is, and whether it runs: it is loaded, and not called.

    Args:
        file: A component, binary or text.

    Returns:
        Lines for a reader, and whether it runs.

    Raises:
        InvalidComponentError: It is not a component; the message says what it is instead.
        ComponentLimitError: It is larger than the defaults of `ComponentLimits`.
        OSError: It cannot be read.
    """
    source = _wasgi._read_component(file)
    imports, exports, wasi, handler, missing = _wasgi._outline(source)
    names = {name.partition("@")[0] for name in imports}
    versions = sorted(
        {name.partition("@")[2] for name in imports + exports if name.startswith("wasi:") and "@" in name}
    )
    lines = [f"{file}: a component of WASI {wasi}, {len(source):,} bytes"]
    if handler is None:
        lines.append(
            "  handler   none: it exports neither `wasi:http/incoming-handler@0.2` nor `wasi:http/handler@0.3`"
        )
    else:
        lines.append(f"  handler   {handler}")
    lines.append(f"  WASI      {', '.join(versions) or 'none'}")
    lines += _listed("exports", exports)
    lines += _listed("imports", imports)
    grants = list(dict.fromkeys(grant for name, grant in _GRANTS.items() if name in names))
    lines += _listed("grants", grants or ["none needed"])
    if missing:
        lines += _listed("missing", [f"{name}: not provided by wasgi" for name in missing])
    # by what an App does, so that the two never differ; the machine code is kept for it
    try:
        _wasgi.Component(source)._check()
    except ComponentError as exc:
        lines.append("  verdict   does not run on this version of wasgi:")
        lines.append(f"            {exc}")
        return lines, False
    lines.append("  verdict   runs on this version of wasgi")
    return lines, True


def _listed(title: str, items: Sequence[str]) -> list[str]:
    return [f"  {title if i == 0 else '':9} {item}" for i, item in enumerate(items or ["none"])]
