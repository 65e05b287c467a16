"""TARGETs: a component's file, a folder of them, or an `App` that Python code makes."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from wasgi.cli.failures import UNUSABLE, USAGE, Failure, line_of, unreadable
from wasgi.cli.grants import Grants, make_app

if TYPE_CHECKING:
    from wasgi.app import App

SUFFIXES = (".wasm", ".wat")
_PYTHON = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*(?:\.[^\W\d]\w*)*)")


@dataclass(frozen=True)
class Target:
    """What a guest is loaded from."""

    text: str
    """As the user wrote it, or the path of a file in a folder."""
    python: tuple[str, str] | None = None
    """The module and the attribute, if Python code makes the `App`."""

    @property
    def name(self) -> str:
        """The last segment of the path that it is served at, where there are several."""
        return Path(self.text).stem if self.python is None else self.python[0].rpartition(".")[2]

    def load(self, grants: Grants) -> App:
        """Makes its `App`.

        Raises:
            Failure: It cannot be used.
        """
        if self.python is not None:
            return _of_python(*self.python)
        return load_file(self.text, grants)


def find(text: str) -> list[Target]:
    """The targets that a TARGET stands for: those of a folder in the order of their names.

    Raises:
        Failure: It is neither a file, nor a folder with components, nor an `App` of Python's.
    """
    if not text:
        raise Failure("a TARGET is empty", USAGE, hint="a variable of the shell that is not set?")
    path = Path(text)
    if path.is_dir():
        found = [Target(str(one)) for one in sorted(path.iterdir()) if is_component(one)]
        if not found:
            raise Failure(f"there is no component in `{text}`", UNUSABLE, hint="files that end with .wasm or .wat")
        return found
    if path.exists() or path.suffix in SUFFIXES:
        return [Target(text)]
    if (python := _PYTHON.fullmatch(text)) is not None:
        return [Target(text, (python[1], python[2]))]
    hint = "a .wasm or .wat file, a folder of them, or module:app" if ":" not in text else "module:app of Python"
    raise Failure(f"there is no `{text}`", UNUSABLE, hint=hint)


def is_component(path: Path) -> bool:
    """Whether a file of a folder is served: by its name."""
    return path.suffix in SUFFIXES and not path.name.startswith(".") and path.is_file()


def routes(texts: Iterable[str], routed: Iterable[tuple[str, str]]) -> dict[str, Target]:
    """The targets by the path or origin that they are served at.

    A single file or `App` is served at `/`; several, and those of a folder, at `/<stem>`.

    Args:
        texts: The TARGETs.
        routed: Patterns with TARGETs: `--route`.

    Raises:
        Failure: Two have the same place; a TARGET is none.
    """
    table: dict[str, Target] = {}

    def put(pattern: str, target: Target) -> None:
        if pattern in table:
            raise Failure(
                f"`{table[pattern].text}` and `{target.text}` would both be served at {pattern}",
                USAGE,
                hint="--route PATTERN=TARGET",
            )
        table[pattern] = target

    texts = list(texts)
    for text in texts:
        alone = len(texts) == 1 and not os.path.isdir(text)
        for target in find(text):
            put("/" if alone else f"/{quote(target.name, safe='')}", target)
    for pattern, text in routed:
        if os.path.isdir(text):
            base = pattern.rstrip("/")
            for target in find(text):
                put(f"{base}/{quote(target.name, safe='')}", target)
        else:
            put(pattern, find(text)[0])
    return table


def command_of(exports: Iterable[str], wasi: str, handler: str | None) -> str | None:
    """The export by which a component is run, if it is a command: it has no handler of requests."""
    if handler is not None:
        return None
    return next((name for name in exports if re.fullmatch(rf"wasi:cli/run@{re.escape(wasi)}\.\d+", name)), None)


def is_command(path: str) -> bool:
    """Whether a file is a component that is a command. What is no component, its load tells."""
    from wasgi import _wasgi
    from wasgi.errors import ComponentError

    if not os.path.isfile(path):
        return False
    try:
        _, exports, wasi, handler, _ = _wasgi._outline(_wasgi._read_component(path))
    except (OSError, ComponentError):
        return False
    return command_of(exports, wasi, handler) is not None


def load_file(path: str, grants: Grants, *, command: bool = False) -> App:
    """Makes an `App` of a component's file, which handles requests or is a command.

    Raises:
        Failure: It cannot be used.
    """
    from wasgi.errors import ComponentError

    try:
        app = make_app(path, grants)
        if command:
            app.component._check_command()
        else:
            app.component._check()
    except OSError as exc:
        raise unreadable(path, exc) from exc
    except ComponentError as exc:
        message = line_of(exc)
        if path not in message:
            message = f"`{path}`: {message}"
        raise Failure(message, UNUSABLE) from exc
    return app


def _of_python(module: str, attribute: str) -> App:
    import wasgi

    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = f"{module}:{attribute}"
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (module == exc.name or module.startswith(f"{exc.name}.")):
            raise Failure(f"there is no module `{module}`", UNUSABLE, hint=f"it is looked for in `{folder}`") from exc
        raise _python_failure(name, exc) from exc
    except (Exception, SystemExit) as exc:
        raise _python_failure(name, exc) from exc
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as exc:
            raise Failure(f"`{module}` has no `{attribute}`", UNUSABLE) from exc
    if not isinstance(found, wasgi.App) and callable(found) and not _needs_arguments(found):
        try:
            found = found()
        except (Exception, SystemExit) as exc:
            raise _python_failure(name, exc) from exc
    if not isinstance(found, wasgi.App):
        kind = type(found).__name__
        hint = "an application that has an App in it is for a server of ASGI or WSGI" if callable(found) else None
        raise Failure(f"`{name}` is not a wasgi.App, nor a function that returns one: {kind}", UNUSABLE, hint=hint)
    if found.closed:
        raise Failure(f"`{name}` is an App that is closed", UNUSABLE)
    return found


def _needs_arguments(function: Any) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    except ValueError:
        return False  # it does not tell
    return False


def _python_failure(name: str, error: BaseException) -> Failure:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    message = " ".join(f"{type(error).__name__}: {error}".split())
    return Failure(f"`{name}` cannot be loaded: {message}{place}", UNUSABLE)
