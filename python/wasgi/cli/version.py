"""``wasgi --version``: of wasgi, of its engine, of WASI."""

from __future__ import annotations

import re

from wasgi import _wasgi


def versions() -> list[str]:
    """A line for each version that a bug report needs."""
    wasi = sorted({version for _, text in _wasgi._wit() for version in re.findall(r"wasi:http/\S+?@([\d.]+\d)", text)})
    lines = [f"wasgi {_wasgi.__version__}"]
    engine: str | None = getattr(_wasgi, "_wasmtime_version", None)
    if engine is not None:
        lines.append(f"wasmtime {engine}")
    lines.append(f"WASI {', '.join(wasi)}")
    return lines
