"""Components composed of others, as `wac plug` makes them: there is no such tool among the packages that tests need.

Only what tests compose is understood: what `wit-component` has made, whose imports stand before its core modules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

HEAD = b"\0asm\x0d\0\x01\0"
CUSTOM, MODULE, COMPONENT, INSTANCE, ALIAS, IMPORT, EXPORT = 0, 1, 4, 5, 6, 10, 11
OF_INSTANCE = 5
"""The sort of component instances."""


def wrapped(binary: bytes) -> bytes:
    """A component that has this one inside of it, with the same imports, and exports what it exports."""
    outer = _Outer(binary)
    return outer.finished(outer.instantiated(binary), [each.name for each in _exports(binary)])


def plugged(outermost: bytes, middleware: bytes, handler: bytes, export: str) -> bytes:
    """A component with the imports of the first one, in which the second one calls the third."""
    outer = _Outer(outermost)
    inner = outer.instantiated(handler)
    called = outer.export_of(inner, _name(handler, export))
    outermost_instance = outer.instantiated(middleware, {_interface(export): called})
    return outer.finished(outermost_instance, [_name(middleware, export)])


class _Outer:
    def __init__(self, binary: bytes) -> None:
        sections = list(_sections(binary))
        end = next(at for at, (kind, _) in enumerate(sections) if kind in (MODULE, COMPONENT))
        before = [(kind, content) for kind, content in sections[:end] if kind != CUSTOM]
        self._bytes = HEAD + b"".join(_section(kind, content) for kind, content in before)
        self._imports = {_interface(each.name): each.index for each in _imports(binary)}
        self._instances = len(self._imports)
        self._components = 0

    def _add(self, kind: int, content: bytes) -> int:
        """Of an instance: which one it is."""
        self._bytes += _section(kind, content)
        self._instances += 1
        return self._instances - 1

    def instantiated(self, binary: bytes, given: dict[str, int] | None = None) -> int:
        self._bytes += _section(COMPONENT, binary)
        provided = self._imports | (given or {})
        args = [
            _text(each.name) + bytes([OF_INSTANCE]) + _number(provided[_interface(each.name)])
            for each in _imports(binary)
        ]
        self._components += 1
        component = _number(self._components - 1)
        return self._add(INSTANCE, _number(1) + b"\0" + component + _number(len(args)) + b"".join(args))

    def export_of(self, instance: int, name: str) -> int:
        alias = bytes([OF_INSTANCE]) + b"\0" + _number(instance) + _text(name)
        return self._add(ALIAS, _number(1) + alias)

    def finished(self, instance: int, exports: list[str]) -> bytes:
        """With these exports of this instance."""
        for name in exports:
            place = bytes([OF_INSTANCE]) + _number(self.export_of(instance, name))
            self._add(EXPORT, _number(1) + b"\0" + _text(name) + place + b"\0")
        return self._bytes


@dataclass(frozen=True)
class _Named:
    name: str
    index: int


def _name(binary: bytes, export: str) -> str:
    """By which it exports that interface, of whichever release."""
    (name,) = (each.name for each in _exports(binary) if _interface(each.name) == _interface(export))
    return name


def _interface(name: str) -> str:
    """Releases of one generation are one."""
    interface, _, version = name.partition("@")
    return f"{interface}@{version.rpartition('.')[0]}"


def _imports(binary: bytes) -> list[_Named]:
    """All are instances."""
    names = []
    for kind, content in _sections(binary):
        if kind == IMPORT:
            reader = _Reader(content)
            for _ in range(reader.number()):
                assert reader.byte() in (0, 1)
                names.append(reader.text())
                assert reader.byte() == OF_INSTANCE
                reader.number()
    return [_Named(name, at) for at, name in enumerate(names)]


def _exports(binary: bytes) -> list[_Named]:
    """Those that are instances, each with no type of its own."""
    found = []
    for kind, content in _sections(binary):
        if kind == EXPORT:
            reader = _Reader(content)
            for _ in range(reader.number()):
                assert reader.byte() in (0, 1)
                name = reader.text()
                assert reader.byte() == OF_INSTANCE
                found.append(_Named(name, reader.number()))
                assert reader.byte() == 0
    return found


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def at_end(self) -> bool:
        return self._at == len(self._content)

    def byte(self) -> int:
        return self.take(1)[0]

    def take(self, length: int) -> bytes:
        self._at += length
        return self._content[self._at - length : self._at]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def text(self) -> str:
        return self.take(self.number()).decode()


def _sections(binary: bytes) -> Iterator[tuple[int, bytes]]:
    assert binary[: len(HEAD)] == HEAD
    reader = _Reader(binary[len(HEAD) :])
    while not reader.at_end():
        kind = reader.byte()
        yield kind, reader.take(reader.number())


def _section(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + _number(len(content)) + content


def _text(text: str) -> bytes:
    return _number(len(text.encode())) + text.encode()


def _number(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
