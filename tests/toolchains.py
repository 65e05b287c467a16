"""Guests of each toolchain. The big ones are built once for each state of their sources, and kept."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.conftest import COMPONENTS, GUESTS, ROOT

sys.path.insert(0, str(ROOT / "examples" / "plugins"))
import build as plugins

WIT = ROOT / "wit"
CACHE = ROOT / ".cache" / "guests"
COMPONENTIZE_QJS = "componentize-qjs@0.4.5"
# componentize-qjs cannot build against a world with an `async` function that is not in wasi:cli or wasi:clocks
WORLD_OF_QJS = """package wasgi:quickjs;

world guest {
  import wasi:cli/stdout@0.3.0;
  import wasi:clocks/monotonic-clock@0.3.0;
  import wasi:http/types@0.3.0;
  export wasi:http/handler@0.3.0;
}
"""


def spin() -> Path:
    return COMPONENTS / "spin.wasm"


def python(world: str, name: str, wit: Path = WIT, folder: Path = GUESTS / "python") -> Path:
    source = folder / f"{name}.py"

    def make(target: Path) -> None:
        tool = Path(sys.executable).parent / "componentize-py"
        run(tool, "-d", wit, "-w", world, "componentize", name, "-o", target, cwd=source.parent)

    return kept(source, make, wit, importlib.metadata.version("componentize-py"), world)


def starlingmonkey() -> Path:
    source = GUESTS / "javascript" / "app.js"
    return kept(source, lambda target: plugins.javascript(source, target), WIT, Path(plugins.__file__).read_text())


def quickjs(source: Path = GUESTS / "javascript" / "app_p3.js", world: str = WORLD_OF_QJS) -> Path:
    return kept(source, lambda target: componentize_qjs(source, world, target), WIT, COMPONENTIZE_QJS, world)


def componentize_qjs(source: Path, world: str, target: Path) -> None:
    tools = ROOT / ".cache" / "qjs" / COMPONENTIZE_QJS
    tool = tools / "node_modules" / "componentize-qjs" / "bin" / "componentize-qjs"
    if not tool.exists():
        tools.mkdir(parents=True, exist_ok=True)
        run("npm", "install", "--prefix", tools, "--no-audit", "--no-fund", "--silent", COMPONENTIZE_QJS, cwd=tools)
    wit = target.with_suffix(".wit")
    shutil.copytree(WIT / "deps", wit / "deps")
    (wit / "world.wit").write_text(world)
    try:
        run("node", tool, "--wit", wit, "--js", source.name, "--output", target, cwd=source.parent)
    finally:
        shutil.rmtree(wit)


def kept(source: Path, make: Callable[[Path], None], wit: Path, *more: str) -> Path:
    digest = hashlib.sha256("\0".join(more).encode())
    for path in [source, *sorted(wit.rglob("*.wit"))]:
        digest.update(path.read_bytes())
    target = CACHE / f"{source.parent.name}-{source.stem}-{digest.hexdigest()[:16]}.wasm"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        made = target.with_suffix(f".{os.getpid()}")
        make(made)
        made.replace(target)
    return target


def run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
