"""Guests of each toolchain. The big ones are built once for each state of their sources, and kept."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.conftest import COMPONENTS, GUESTS, ROOT

sys.path.insert(0, str(ROOT / "examples" / "plugins"))
import build as plugins

WIT = ROOT / "wit"
CACHE = ROOT / ".cache" / "guests"
COMPONENTIZE_QJS = "componentize-qjs@0.4.5"
HONO, ESBUILD = "hono@4.13.19", "esbuild@0.28.2"
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


def python(
    world: str,
    name: str,
    wit: Path = WIT,
    folder: Path = GUESTS / "python",
    packages: tuple[str, ...] = (),
    uses: tuple[str, ...] = (),
) -> Path:
    """`uses`: other modules of its folder."""
    source = folder / f"{name}.py"

    def make(target: Path) -> None:
        tool = Path(sys.executable).parent / "componentize-py"
        with tempfile.TemporaryDirectory() as pure:
            for package in packages:
                copy_pure(package, Path(pure))
            paths = ["-p", ".", "-p", pure] if packages else []
            run(tool, "-d", wit, "-w", world, "componentize", name, *paths, "-o", target, cwd=source.parent)

    versions = [f"{package} {importlib.metadata.version(package)}" for package in packages]
    others = [(folder / f"{module}.py").read_text() for module in uses]
    return kept(source, make, wit, importlib.metadata.version("componentize-py"), world, *versions, *others)


def copy_pure(package: str, target: Path) -> None:
    """What is Python's of an installed package: machine code of this machine's is of no use to a guest."""
    for path in importlib.metadata.files(package) or []:
        if path.suffix == ".py" and ".." not in path.parts:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(path.locate()), target / path)


def flask() -> Path:
    packages = ("flask", "werkzeug", "jinja2", "markupsafe", "itsdangerous", "click", "blinker")
    return python("http-handler", "flask_app", packages=packages, uses=("wsgi_handler",))


def starlingmonkey() -> Path:
    source = GUESTS / "javascript" / "app.js"
    return kept(source, lambda target: plugins.javascript(source, target), WIT, Path(plugins.__file__).read_text())


def hono() -> Path:
    source = GUESTS / "javascript" / "hono_app.js"

    def make(target: Path) -> None:
        tools = npm(HONO, ESBUILD)
        bundle = target.with_suffix(".js")
        options = ["--bundle", "--format=esm", "--log-level=error", f"--outfile={bundle}"]
        try:
            run(tools / ".bin" / "esbuild", source, *options, cwd=source.parent, env={"NODE_PATH": str(tools)})
            plugins.javascript(bundle, target)
        finally:
            bundle.unlink(missing_ok=True)

    return kept(source, make, WIT, Path(plugins.__file__).read_text(), HONO, ESBUILD)


def npm(*packages: str) -> Path:
    """The folder of modules that has these packages."""
    folder = ROOT / ".cache" / "npm" / "+".join(packages)
    installed = folder / "installed"
    if not installed.exists():
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--no-audit", "--no-fund", "--no-package-lock", "--silent"]
        run("npm", "install", "--prefix", folder, *options, *packages, cwd=folder)
        installed.touch()
    return folder / "node_modules"


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


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> None:
    command_line = [str(part) for part in command]
    done = subprocess.run(command_line, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
