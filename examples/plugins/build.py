"""Builds the plug-ins in Python and JavaScript with their languages' own tools. The one in Rust is built already.

python examples/plugins/build.py     (needs componentize-py, and npm for the one in JavaScript)
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WIT = ROOT / "wit"
CACHE = ROOT / ".cache" / "plugins"
COMPONENTIZE_JS = "@bytecodealliance/componentize-js@0.23.0"
# componentize-js can only make components of the version of wasi:http that its engine was built with
WIT_OF_JS = "0.2.10"
WORLD_OF_JS = """package example:plugins;

world plugin {
  import wasi:http/types@VERSION;
  import wasi:http/outgoing-handler@VERSION;
  export wasi:http/incoming-handler@VERSION;
}
"""
BUILD_JS = """import { componentize } from "@bytecodealliance/componentize-js";
import { writeFile } from "node:fs/promises";
const [sourcePath, witPath, target] = process.argv.slice(2);
const { component } = await componentize({ sourcePath, witPath, worldName: "plugin" });
await writeFile(target, component);
"""


def run(*command: str | Path, cwd: Path = HERE) -> None:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


def almanac(target: Path) -> None:
    tool = Path(sys.executable).parent / "componentize-py"
    run(tool, "-d", WIT, "-w", "http-handler", "componentize", "almanac", "-o", target)


def chart(target: Path) -> None:
    javascript(HERE / "chart.js", target)


def javascript(source: Path, target: Path) -> None:
    tools = CACHE / "js"
    tools.mkdir(parents=True, exist_ok=True)
    installed = tools / "installed"
    if not installed.exists() or installed.read_text() != COMPONENTIZE_JS:
        # once: over an earlier one, npm takes packages away that componentize-js needs
        shutil.rmtree(tools / "node_modules", ignore_errors=True)
        options = ["--no-audit", "--no-fund", "--no-package-lock", "--silent"]
        run("npm", "install", "--prefix", tools, *options, COMPONENTIZE_JS, cwd=tools)
        installed.write_text(COMPONENTIZE_JS)
    wit = tools / "wit"
    shutil.rmtree(wit, ignore_errors=True)
    (wit / "deps").mkdir(parents=True)
    for path in (WIT / "deps").glob("*.wit"):
        (wit / "deps" / path.name).write_text(path.read_text().replace("0.2.12", WIT_OF_JS))
    (wit / "world.wit").write_text(WORLD_OF_JS.replace("VERSION", WIT_OF_JS))
    (tools / "build.mjs").write_text(BUILD_JS)
    run("node", tools / "build.mjs", source, wit, target, cwd=tools)


BUILDERS = {"almanac.py": almanac, "chart.js": chart}


def build(folder: Path = HERE / "components") -> list[Path]:
    """Builds what has changed since the last time; gives the components."""
    built = []
    for name, builder in BUILDERS.items():
        digest = hashlib.sha256()
        for path in (HERE / name, Path(__file__), *sorted(WIT.rglob("*.wit"))):
            digest.update(path.read_bytes())
        kept = CACHE / f"{Path(name).stem}-{digest.hexdigest()[:16]}.wasm"
        if not kept.exists():
            print(f"building {name}", flush=True)
            CACHE.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                made = Path(scratch) / "made.wasm"
                builder(made)
                os.replace(made, kept)
        target = folder / f"{Path(name).stem}.wasm"
        shutil.copyfile(kept, target)
        built.append(target)
    return built


if __name__ == "__main__":
    for component in build():
        print(f"{component}: {component.stat().st_size:,} bytes")
