"""Which sources the committed components were built from: a hash of each guest's sources and of its component."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
RECORD = HERE / "components" / "hashes.json"
COMPONENTS = {
    "demo": HERE.parents[1] / "python" / "wasgi" / "demo.wasm",
    "hello": HERE / "components" / "hello.wasm",
    "probe": HERE / "components" / "probe.wasm",
}


def of_sources(guest: str) -> str:
    """The hash of all that goes into a guest: its files, and the workspace's manifest and lock file."""
    files = [HERE / "Cargo.toml", HERE / "Cargo.lock", *sorted((HERE / guest).rglob("*"))]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(f"{file.relative_to(HERE)}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def of_component(guest: str) -> str:
    return hashlib.sha256(COMPONENTS[guest].read_bytes()).hexdigest()


def present() -> dict[str, dict[str, str]]:
    return {guest: {"sources": of_sources(guest), "component": of_component(guest)} for guest in COMPONENTS}


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    RECORD.write_text(json.dumps(present(), indent=2) + "\n")
