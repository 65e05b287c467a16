"""Which sources the committed components were built from: a hash of each guest's sources and of its component."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WIT = ROOT / "wit"
RECORD = HERE / "components" / "hashes.json"
GREETER = ROOT / "examples" / "greeter"
PLUGINS = ROOT / "examples" / "plugins"
SOURCES = {  # the others have a folder here
    "board": PLUGINS / "board",
    "everything_p3": HERE / "everything",
    "greeter": GREETER / "greeter",
}
COMPONENTS = {
    "board": PLUGINS / "components" / "board.wasm",
    "command": HERE / "components" / "command.wasm",
    "command_p3": HERE / "components" / "command_p3.wasm",
    "demo": ROOT / "python" / "wasgi" / "demo.wasm",
    "greeter": GREETER / "components" / "greeter.wasm",
    "everything": HERE / "components" / "everything.wasm",
    "everything_p3": HERE / "components" / "everything_p3.wasm",
    "hello": HERE / "components" / "hello.wasm",
    "hello_p3": HERE / "components" / "hello_p3.wasm",
    "keeper": HERE / "components" / "keeper.wasm",
    "keeper_p3": HERE / "components" / "keeper_p3.wasm",
    "lines": HERE / "components" / "lines.wasm",
    "middleware": HERE / "components" / "middleware.wasm",
    "probe": HERE / "components" / "probe.wasm",
    "probe_p3": HERE / "components" / "probe_p3.wasm",
    "spin": HERE / "components" / "spin.wasm",
    "wstd": HERE / "components" / "wstd.wasm",
}


def of_sources(guest: str) -> str:
    """The hash of all that goes into a guest: its files, the workspace's manifest and lock file, and what it shares."""
    files = [HERE / "Cargo.toml", HERE / "Cargo.lock", *sorted(SOURCES.get(guest, HERE / guest).rglob("*"))]
    if guest in ("everything", "everything_p3"):
        files += sorted(WIT.rglob("*.wit"))
    if guest == "probe_p3":
        files += sorted((HERE / "probe").rglob("*.rs"))  # it shares modules
    if guest == "keeper_p3":
        files += [*sorted((HERE / "keeper").rglob("*.rs")), HERE / "probe_p3" / "src" / "message.rs"]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(f"{file.relative_to(ROOT)}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def of_component(guest: str) -> str:
    return hashlib.sha256(COMPONENTS[guest].read_bytes()).hexdigest()


def present() -> dict[str, dict[str, str]]:
    return {guest: {"sources": of_sources(guest), "component": of_component(guest)} for guest in COMPONENTS}


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    RECORD.write_text(json.dumps(present(), indent=2) + "\n")
