"""Components made to cost more than their size suggests: each is refused, or loaded, in bounded time and memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import wasgi
from tests.component.test_loading import leb, limited, section
from tests.conftest import HELLO, ROOT, bare_text
from tests.processes import run
from wasgi import _wasgi

EMPTY_MODULE = b"\0asm\x01\0\0\0"


def with_sections(*sections: bytes) -> bytes:
    return HELLO.read_bytes() + b"".join(sections)


def of_types(count: int, content: bytes) -> bytes:
    return section(7, leb(count) + content)


def of_core_types(count: int, content: bytes) -> bytes:
    return section(3, leb(count) + content)


U8 = b"\x7d"
FUNC = b"\x60\0\0"
"""A core type."""
DECLARED = b"\x01" + U8
"""The declaration of a type in another."""


def instance_type(*declarations: bytes) -> bytes:
    return b"\x42" + leb(len(declarations)) + b"".join(declarations)


def component_type(*declarations: bytes) -> bytes:
    return b"\x41" + leb(len(declarations)) + b"".join(declarations)


def module_type(*declarations: bytes) -> bytes:
    return b"\x50" + leb(len(declarations)) + b"".join(declarations)


def nested(type_: bytes) -> bytes:
    """A declaration."""
    return b"\x01" + type_


def label(number: int) -> bytes:
    text = f"a{number}".encode()
    return leb(len(text)) + text


def exported(number: int) -> bytes:
    """A declaration of an export of the first type."""
    return b"\x04\0" + label(number) + b"\x03\0\0"


class TestTypes:
    @pytest.mark.parametrize(
        ("name", "more", "types"),
        [
            ("types", 1 + 7, of_types(1, instance_type(*[DECLARED] * 7))),
            ("types", 1 + 7, of_types(1, component_type(*[DECLARED] * 7))),
            ("types", 2 * (1 + 7), of_types(2, instance_type(*[DECLARED] * 7) * 2)),
            ("types", 1 + 1 + 7, of_types(1, component_type(nested(instance_type(*[DECLARED] * 7))))),
            (
                "types",
                1 + 1 + 1 + 7,
                of_types(1, instance_type(b"\x01" + instance_type(b"\x01" + component_type(*[DECLARED] * 7)))),
            ),
            ("types", 1 + 1 + 7, of_types(1, instance_type(nested(instance_type(*[DECLARED] * 7))))),
            ("types", 1 + 7, of_core_types(1, module_type(*[b"\x01" + FUNC] * 7))),
            ("types", 1 + 1 + 7, of_types(1, instance_type(b"\0" + module_type(*[b"\x01" + FUNC] * 7)))),
            ("types", 7, of_core_types(1, b"\x4e" + leb(7) + FUNC * 7)),
            ("types", 7, of_core_types(7, FUNC * 7)),
            ("types", 1 + 7, of_core_types(1, module_type(b"\x01\x4e" + leb(7) + FUNC * 7))),
            ("types", 7, section(1, EMPTY_MODULE + section(1, leb(1) + b"\x4e" + leb(7) + FUNC * 7))),
            ("names", 7, of_types(1, instance_type(DECLARED, *map(exported, range(7))))),
            ("names", 7, of_types(1, component_type(DECLARED, *map(exported, range(7))))),
            ("names", 7, of_types(1, instance_type(*[b"\x02\x03\x02\x01\x00"] * 7))),
            ("names", 7, of_types(1, b"\x72" + leb(7) + b"".join(label(n) + U8 for n in range(7)))),
            ("names", 7, of_types(1, b"\x71" + leb(7) + b"".join(label(n) + b"\0\0" for n in range(7)))),
            ("names", 7, of_types(1, b"\x6f" + leb(7) + U8 * 7)),
            ("names", 7, of_types(1, b"\x6e" + leb(7) + b"".join(label(n) for n in range(7)))),
            ("names", 7, of_types(1, b"\x6d" + leb(7) + b"".join(label(n) for n in range(7)))),
            ("names", 7, of_types(1, b"\x40" + leb(7) + b"".join(label(n) + U8 for n in range(7)) + b"\x01\0")),
            ("names", 7, of_types(1, instance_type(b"\x01\x6e" + leb(7) + b"".join(label(n) for n in range(7))))),
            (
                "names",
                7,
                of_core_types(1, module_type(b"\x01" + FUNC, *[b"\x03" + label(n) + b"\0\0" for n in range(7)])),
            ),
        ],
    )
    def test_what_is_declared_inside_of_types_is_counted(self, name: str, more: int, types: bytes) -> None:
        without = _wasgi._census(with_sections())[name]
        source = with_sections(types)
        found = without + more
        with pytest.raises(wasgi.ComponentLimitError) as caught:
            wasgi.Component(source, limits=limited(**{name: found - 1}))
        assert (caught.value.name, caught.value.found) == (name, found)
        assert _wasgi._census(source)[name] == found

    def test_parameters_of_core_types_of_a_component_are_counted(self) -> None:
        source = with_sections(of_core_types(1, module_type(b"\x01\x60" + leb(100) + b"\x7f" * 100 + b"\0")))
        with pytest.raises(wasgi.ComponentLimitError) as caught:
            wasgi.Component(source)
        assert (caught.value.name, caught.value.found) == ("parameters", 100)

    @pytest.mark.parametrize(
        ("name", "types"),
        [
            ("types", lambda: of_types(1, instance_type(*[DECLARED] * 200_000))),
            ("types", lambda: of_types(300, instance_type(*[DECLARED] * 1_000) * 300)),
            ("types", lambda: of_types(1, component_type(*[b"\x01" + instance_type(*[DECLARED] * 1_000)] * 200))),
            ("types", lambda: of_core_types(3, module_type(*[b"\x01" + FUNC] * 50_000) * 3)),
            ("names", lambda: of_types(30, (b"\x6d" + leb(10_000) + b"".join(label(n) for n in range(10_000))) * 30)),
        ],
    )
    def test_many_are_refused_by_default(self, name: str, types: Callable[[], bytes]) -> None:
        with pytest.raises(wasgi.ComponentLimitError) as caught:
            wasgi.Component(with_sections(types()))
        assert caught.value.name == name


class TestCounts:
    @pytest.mark.parametrize("kind", [2, 3, 5, 6, 7, 8, 10, 11])
    def test_a_section_that_lies_about_its_length_is_malformed_and_not_large(self, kind: int) -> None:
        with pytest.raises(wasgi.InvalidComponentError):
            wasgi.Component(with_sections(section(kind, leb(2**32 - 1))))

    @pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 6, 7, 9, 10, 11])
    def test_so_is_a_modules(self, kind: int) -> None:
        with pytest.raises(wasgi.InvalidComponentError):
            wasgi.Component(with_sections(section(1, EMPTY_MODULE + section(kind, leb(2**32 - 1)))))

    @pytest.mark.parametrize(
        ("name", "source"),
        [
            ("names", 'section(11, leb(8_000_000) + b"\\0\\1a\\3\\0\\0" * 8_000_000)'),
            ("names", 'section(10, leb(8_000_000) + b"\\0\\1a\\3\\0\\0" * 8_000_000)'),
            ("names", 'section(6, leb(8_000_000) + b"\\3\\2\\0\\0" * 8_000_000)'),
            ("names", 'section(5, leb(8_000_000) + b"\\1\\1\\0\\1a\\5\\0" * 8_000_000)'),
            ("modules", "section(1, EMPTY_MODULE) * 5_000_000"),
            ("components", "section(4, EMPTY_COMPONENT) * 5_000_000"),
            ("names", "section(4, EMPTY_COMPONENT + section(10, leb(8_000_000) + b'\\0\\1a\\3\\0\\0' * 8_000_000))"),
            ("nesting", 'section(7, b"\\x01" + b"\\x42\\x01\\x01" * 16_000_000 + b"\\x42\\x00")'),
            ("types", 'section(7, b"\\x01\\x42" + leb(900_000) + b"\\x01\\x7d" * 900_000) * 20'),
        ],
    )
    def test_what_is_refused_takes_little_memory_beside_its_source(self, name: str, source: str) -> None:
        done = run(f"""
import resource, sys
sys.path.insert(0, {str(ROOT)!r})
from tests.component.test_costs_of_loading import *
from tests.component.test_loading import EMPTY_COMPONENT, leb, section
source = with_sections({source})
wasgi.Component(HELLO)
used = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used + len(source) + (200 << 20), -1))
try:
    wasgi.Component(source)
except wasgi.ComponentLimitError as error:
    print(error.name, error.found)
""")
        assert done.stdout.split()[:1] == [name], done.stderr[-500:]


class TestExpansion:
    def test_arguments_are_counted_each_time_they_are_given(self) -> None:
        """A hundred thousand arguments, given to each of 131,072 instances."""
        many = "".join(f'(with "a{n}" (instance $none))' for n in range(100_000))
        inner = f"(component $c) (instance $none) (instance (instantiate $c {many}))"
        text = f'(component $n (import "m" (core module $m)) {inner})'
        for _ in range(17):
            one = '(instance (instantiate $n (with "m" (core module $m))))'
            text = f'(component $n (import "m" (core module $m)) {text} {one} {one})'
        around = f'{text} (core module $m) (instance (instantiate $n (with "m" (core module $m))))'
        with pytest.raises(wasgi.ComponentLimitError) as caught:
            wasgi.Component(bare_text(around=around).encode())
        assert (caught.value.name, caught.value.found) == ("instances", None)

    def test_what_is_written_down_is_refused_before_what_is_instantiated_is_followed(self) -> None:
        many = "".join(f'(with "a{n}" (instance $none))' for n in range(90_000))
        text = f"(component $c) (instance $none) {f'(instance (instantiate $c {many}))' * 3}"
        with pytest.raises(wasgi.ComponentLimitError) as caught:
            wasgi.Component(bare_text(around=text).encode())
        assert caught.value.name == "names"

    def test_long_names_are_counted_as_such(self) -> None:
        """Names of 100,000 bytes that differ in their last ones, looked up by each of 262,144 instances."""
        long = "a" * 99_000
        exports = "".join(f'(export "{long}{n}" (core module $m))' for n in range(20))
        aliases = "".join(f'(alias export $all "{long}{n}" (core module))' for n in range(20))
        text = f'(component $n (import "m" (core module $m)) (instance $all {exports}) {aliases})'
        for _ in range(18):
            one = '(instance (instantiate $n (with "m" (core module $m))))'
            text = f'(component $n (import "m" (core module $m)) {text} {one} {one})'
        around = f'{text} (core module $m) (instance (instantiate $n (with "m" (core module $m))))'
        with pytest.raises(wasgi.ComponentLimitError) as caught:
            wasgi.Component(bare_text(around=around).encode())
        assert caught.value.name == "instances"


class TestWithoutThreads:
    """Where no thread can be started, a component is loaded as elsewhere."""

    @pytest.mark.parametrize(
        "around",
        [
            f"(core module (func {'block ' * 900}{'end ' * 900}))",
            f"{'(component ' * 90}{')' * 90}",
            f"(type {'(instance (type ' * 45}(instance){'))' * 45})",
        ],
        ids=["blocks", "components", "types"],
    )
    def test_what_is_nested_deep_is_loaded(self, around: str) -> None:
        done = run(
            f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
os.environ["WASGI_CACHE_DIR"] = ""
from tests.confinement import refuse_threads
from tests.conftest import bare_text
import wasgi
refuse_threads()
print(wasgi.Component(bare_text(around=sys.argv[1]).encode()).wasi)
print(len(wasgi._wasgi._census(bare_text(around=sys.argv[1]).encode())) > 10)
""",
            around,
        )
        assert done.stdout.split() == ["0.2", "True"], done.stderr[-800:]

    def test_what_is_too_deep_is_refused_with_the_limit_that_there_is(self) -> None:
        done = run(f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.confinement import refuse_threads
from tests.conftest import bare_text
import wasgi
refuse_threads()
try:
    wasgi.Component(bare_text(around=f"(core module (func {{'block ' * 5000}}{{'end ' * 5000}}))").encode())
except wasgi.ComponentLimitError as error:
    print(error.name, error.limit, error.found)
""")
        assert done.stdout.split() == ["nesting", "4000", "5000"], done.stderr[-800:]

    def test_what_is_awaited_names_the_limit(self) -> None:
        done = run(f"""
import asyncio, sys
sys.path.insert(0, {str(ROOT)!r})
from tests.confinement import refuse_threads
from tests.conftest import HELLO
import wasgi
refuse_threads()
try:
    asyncio.run(wasgi.Component.load_async(HELLO))
except wasgi.WasgiError as error:
    print(error)
""")
        assert "no thread can be started for " in done.stdout
        assert "`ulimit -u`" in done.stdout
