"""Docstrings of the native module. Their home is `_wasgi.pyi`; the Rust sources repeat them, so that `help` has them.

Run as a program with ``--write``, it brings the sources up to date; a test fails where they are not.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
STUB = ROOT / "python" / "wasgi" / "_wasgi.pyi"
SOURCES = ROOT / "src" / "py"


def documented() -> Iterator[tuple[str | None, str, str]]:
    """The class (None for a function), the name (empty for a class) and the docstring of all that has one."""
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef) and (doc := ast.get_docstring(node)):
            yield None, node.name, doc
        if not isinstance(node, ast.ClassDef):
            continue
        if doc := ast.get_docstring(node):
            yield node.name, "", doc
        for member in node.body:
            if isinstance(member, ast.FunctionDef) and (doc := ast.get_docstring(member)):
                yield node.name, member.name, doc


@dataclass
class StubSignature:
    """What the stub says of a class's constructor, a method, or a function: names, kinds and defaults of parameters."""

    name: str
    parameters: list[tuple[str, inspect._ParameterKind, Any]]


def stub_signatures() -> Iterator[StubSignature]:
    """Of all public classes that can be made, and their methods but for special ones."""
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield StubSignature(node.name, _parameters(node, 0))
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        for member in node.body:
            if not isinstance(member, ast.FunctionDef) or any(
                isinstance(decorator, ast.Name) and decorator.id in ("property", "staticmethod")
                for decorator in member.decorator_list
            ):
                continue
            if member.name == "__new__":
                yield StubSignature(node.name, _parameters(member, 1))
            elif not member.name.startswith("__"):
                yield StubSignature(f"{node.name}.{member.name}", _parameters(member, 1))


def _parameters(function: ast.FunctionDef, skip: int) -> list[tuple[str, inspect._ParameterKind, Any]]:
    kinds = inspect.Parameter
    arguments = function.args
    none = kinds.empty
    found: list[tuple[str, inspect._ParameterKind, Any]] = []
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    for argument, default in zip(positional, defaults, strict=True):
        kind = kinds.POSITIONAL_ONLY if argument in arguments.posonlyargs else kinds.POSITIONAL_OR_KEYWORD
        found.append((argument.arg, kind, none if default is None else ast.literal_eval(default)))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found.append((argument.arg, kinds.KEYWORD_ONLY, none if default is None else ast.literal_eval(default)))
    return found[skip:]


def _commented(doc: str, indent: str) -> list[str]:
    return [f"{indent}/// {line}".rstrip() for line in inspect.cleandoc(doc).splitlines()]


def _with_doc(lines: list[str], place: int, doc: str) -> list[str]:
    """The lines with the comment above the item at `place` and its attributes replaced."""
    indent = re.match(r" *", lines[place])[0]  # type: ignore[index]
    top = place
    depth = 0  # of an attribute that has several lines
    while top > 0:
        line = lines[top - 1].strip()
        if line.endswith(")]") and not line.startswith("#["):
            depth += 1
        elif depth and line.startswith("#["):
            depth -= 1
        elif not depth and not line.startswith(("#[", "///")):
            break
        top -= 1
    kept = [line for line in lines[top:place] if not line.strip().startswith("///")]
    return [*lines[:top], *_commented(doc, indent), *kept, *lines[place:]]


def _write() -> None:
    texts = {path: path.read_text().splitlines() for path in sorted(SOURCES.rglob("*.rs"))}
    structs: dict[str, str] = {}
    for lines in texts.values():
        for name, struct in re.findall(
            r"#\[pyclass\(([^\]]*)\)\]\n(?: *#\[[^\n]*\n)* *pub (?:struct|enum) (\w+)", "\n".join(lines)
        ):
            given = re.search(r'name = "(\w+)"', name)
            structs[given[1] if given else struct] = struct
    for owner, name, doc in documented():
        for path, lines in texts.items():
            place = _find(lines, structs.get(owner or "", ""), name)
            if place is not None:
                texts[path] = _with_doc(lines, place, doc)
                break
        else:
            sys.exit(f"{owner or ''}.{name} is not in the Rust sources")
    for path, lines in texts.items():
        path.write_text("\n".join(lines) + "\n")


def _find(lines: list[str], struct: str, name: str) -> int | None:
    """Where a class, one of its methods or fields, or a function begins."""
    if not struct:
        return _first(lines, rf"pub(\(crate\))? fn {name}\(", 0, len(lines), below="#[pyfunction]")
    top = _first(lines, rf" *pub (struct|enum) {struct}\b", 0, len(lines))
    if not name:
        return top
    methods = _first(lines, rf"impl {struct} {{", 0, len(lines), below="#[pymethods]")
    for start, pattern in ((methods, rf"    fn {name}\b"), (top, rf"    (pub )?{name}: ")):
        if start is not None:
            end = next(i for i in range(start, len(lines)) if lines[i] == "}")
            place = _first(lines, pattern, start, end)
            if place is not None:
                return place
    return None


def _first(lines: list[str], pattern: str, start: int, end: int, below: str = "") -> int | None:
    for place in range(start, end):
        if re.match(pattern, lines[place]) and (not below or below in lines[max(0, place - 6) : place]):
            return place
    return None


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    _write()
