"""Builds components before the tests: the command of `wasgi_build` runs when its sources have changed."""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NOT_SOURCES = ("__pycache__", ".cache", ".hypothesis", ".pytest_cache")
"""Folders that tests write into. If the project is a home directory, our own code cache is in one of them."""


class BuildError(Exception):
    """The command cannot be run, or has failed."""


_HIDDEN = (".*", "__pycache__", "node_modules")
_MADE = ("build", "dist", "target", "venv")
"""Folders that tools write into, for projects without a `.gitignore`."""
_MOST = 20_000
"""The most files of a project without git: with more, the command always runs."""
_HINT = "hint: `--wasgi-no-build` tests what was built before"
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_OPERATORS = ("&&", "||", "|")
"""No command takes these as arguments. Without a shell `true && make` would succeed, and build nothing."""
_LIKELY_OPERATORS = ("&", ">", ">>", "<", "2>&1")


def _of_shell(words: list[str]) -> str | None:
    """The first word that only a shell understands."""
    if words and (words[0] in ("cd", "export") or words[0].endswith(";") or _ASSIGNMENT.match(words[0])):
        return words[0]
    return next((word for word in words if word in _OPERATORS), None)


def _perhaps_of_shell(words: list[str]) -> str | None:
    """Likewise, for a command that has failed: some commands take these, as `find -exec` takes a `;`."""
    return next((word for word in words if word in _LIKELY_OPERATORS or word.endswith(";") or word[:1] == "$"), None)


def _shell_hint(command: str) -> str:
    return f"hint: a shell runs it so: sh -c {shlex.quote(command)}"


def run(command: str, root: Path) -> None:
    """Runs the command in the root of the project.

    Raises:
        BuildError: It cannot be run, or fails; with its output.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise BuildError(f"`wasgi_build` is not a command: {error}: {command}\n{_HINT}") from None
    if (word := _of_shell(words)) is not None:
        raise BuildError(
            f"`wasgi_build` is run without a shell, which {word!r} needs: {command}\n{_shell_hint(command)}\n{_HINT}"
        )
    try:
        built = subprocess.run(
            words, cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
    except FileNotFoundError:
        raise BuildError(
            f"`wasgi_build` cannot be run: there is no {words[0]!r} on the PATH: {command}\n"
            f"hint: install it, or name it by its path; {_HINT.removeprefix('hint: ')}"
        ) from None
    except (OSError, ValueError) as error:
        raise BuildError(f"`wasgi_build` cannot be run: {error}: {command}\n{_HINT}") from None
    if built.returncode != 0:
        how = f"with status {built.returncode}" if built.returncode > 0 else f"by signal {-built.returncode}"
        said = built.stdout.decode(errors="replace")
        hints = [_HINT]
        if (word := _perhaps_of_shell(words)) is not None:
            hints.insert(0, f"{_shell_hint(command)} (without one {word!r} is an argument)")
        raise BuildError("\n".join([f"`wasgi_build` failed {how}: {command}", said.rstrip(), *hints]))


@dataclass
class Stamp:
    """The inputs and outputs of a build.

    Attributes:
        command: The command.
        sources: A digest of each file's content, by its path; "" if the file is not there.
        outputs: Likewise, for the components.
    """

    command: str
    sources: dict[str, str]
    outputs: dict[str, str]

    def packed(self) -> dict[str, Any]:
        """As JSON, to be compared."""
        whole = hashlib.sha256(json.dumps(self.sources, sort_keys=True).encode()).hexdigest()
        return {"command": self.command, "sources": whole, "outputs": self.outputs}


class Project:
    """The files of a project: its components and their sources.

    Args:
        root: Its folder.
        folders: The folders of the components.
        sources: Globs of the sources, relative to the root; none: all files that git does not ignore, or without git
            all files outside of the usual folders of tools.
    """

    def __init__(self, root: Path, folders: Iterable[Path], sources: Iterable[str] = ()) -> None:
        self.root = root
        self.folders = list(folders)
        self.globs = list(sources)

    def stamp(self, command: str) -> Stamp | None:
        """The stamp of the project as it is now; None if it has too many files."""
        sources = self._sources()
        if sources is None:
            return None
        outputs = self._outputs()
        made = {path.resolve() for path in outputs}
        return Stamp(
            command,
            {self._name(path): _digest(path) for path in sources if path.resolve() not in made},
            {self._name(path): _digest(path) for path in outputs},
        )

    def _name(self, path: Path) -> str:
        return Path(os.path.relpath(path, self.root)).as_posix()

    def _outputs(self) -> list[Path]:
        if not self.folders:  # they are named from the root then
            return sorted(path for path in _walked(self.root, _HIDDEN) if path.suffix == ".wasm")
        return sorted(path for folder in self.folders for path in folder.glob("*.wasm") if path.is_file())

    def _sources(self) -> list[Path] | None:
        if not self.globs:
            listed = _listed_by_git(self.root)
            if listed is None:
                listed = set(itertools.islice(_walked(self.root, (*_HIDDEN, *_MADE)), _MOST + 1))
                return sorted(listed) if len(listed) <= _MOST else None
            return sorted(listed)
        found: set[Path] = set()
        for pattern in self.globs:
            matched = [self.root / pattern] if (self.root / pattern).exists() else _glob(self.root, pattern)
            if not matched:
                raise BuildError(f"`wasgi_build_sources` matches no file: {pattern}")
            for path in matched:
                found.update(path.rglob("*") if path.is_dir() else [path])
        return sorted(path for path in found if not path.is_dir() and not _is_litter(Path(self._name(path))))


def _glob(root: Path, pattern: str) -> list[Path]:
    import glob

    return [root / name for name in glob.glob(pattern, root_dir=root, recursive=True, include_hidden=True)]


def _walked(folder: Path, without: Iterable[str]) -> Iterator[Path]:
    """The files below a folder, except in folders of some names."""
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not any(fnmatch.fnmatch(name, other) for other in without)]
        yield from (Path(where, name) for name in files)


def _is_litter(path: Path) -> bool:
    return any(part in _NOT_SOURCES for part in path.parts)


def _listed_by_git(folder: Path) -> set[Path] | None:
    """The files below a folder that git does not ignore; None outside of a repository."""
    # -z: names as they are
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError:
        return None
    if listed.returncode != 0:
        return None
    return set(_files(folder, (os.fsdecode(name) for name in listed.stdout.split(b"\0") if name)))


def _files(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    for name in names:
        path = folder / name
        if _is_litter(Path(name)):
            continue
        if path.is_dir() and not path.is_symlink():  # a repository of its own: a submodule, say
            yield from _listed_by_git(path) or ()
        else:
            yield path


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        if path.is_symlink():
            digest.update(os.fsencode(os.readlink(path)))
        if path.is_file():
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            return digest.hexdigest()
        return digest.hexdigest() if path.is_symlink() else ""
    except OSError:
        return ""


def build(command: str, project: Project, stamped: Any) -> Any:
    """Runs the command, unless sources and components are unchanged. Returns the new stamp; None if there is none.

    Args:
        command: The command.
        project: What it builds.
        stamped: The stamp of the last build.

    Raises:
        BuildError: It cannot be run, or fails.
    """
    before = project.stamp(command)
    if before is not None and before.outputs and before.packed() == stamped:
        return stamped
    run(command, project.root)
    after = project.stamp(command)
    if before is None or after is None or not after.outputs:
        return None
    # Sources as they were when the build began, since they may have changed meanwhile. Files that the build has made
    # beside its components, as it left them.
    sources = {name: before.sources.get(name, digest) for name, digest in after.sources.items()}
    return Stamp(command, sources, after.outputs).packed()
