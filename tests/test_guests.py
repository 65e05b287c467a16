"""The guests of these tests: each built from the sources that stand beside it, and each used."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

from tests.conftest import COMPONENTS, GUESTS

TESTS = Path(__file__).parent


def hashes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hashes", GUESTS / "hashes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_components_match_their_sources() -> None:
    module = hashes()
    recorded = json.loads(module.RECORD.read_text())
    assert module.present() == recorded, "build the guests again: tests/guests/build.sh"


def test_each_guest_is_small_and_names_no_machine() -> None:
    for path in [*COMPONENTS.glob("*.wasm"), *hashes().COMPONENTS.values()]:
        content = path.read_bytes()
        # one carries debug information, of Rust's standard library as well; two have all the behaviours
        assert len(content) < {"lines": 600_000, "probe": 400_000, "probe_p3": 600_000, "spin": 450_000}.get(
            path.stem, 300_000
        )
        for place in (b"/root/", b"/home/", b"/work/"):
            assert place not in content, f"{path.name} names {place!r}"


def test_each_route_of_the_probe_is_used() -> None:
    """Those of both generations, and those of WASI 0.3 alone."""
    both = (GUESTS / "probe" / "src" / "lib.rs").read_text()
    alone = (GUESTS / "probe_p3" / "src" / "only.rs").read_text()
    routes = set(re.findall(r'^ +"(/[\w-]+)" =>', both, re.MULTILINE))
    assert len(routes) > 30
    only = {f"/only/{route}" for route in re.findall(r'^ {8}"([\w-]+)" =>', alone, re.MULTILINE)}
    assert len(only) > 20
    tests = "".join(path.read_text() for path in TESTS.rglob("test_*.py"))
    unused = {route for route in routes | only if not re.search(re.escape(route) + r'["?& ]', tests)}
    assert unused == set()


def test_both_generations_of_the_probe_have_the_same_routes() -> None:
    """Those that WASI 0.3 cannot have are there, too, and say why not; how one gives no answer stands elsewhere."""

    def routes(probe: str, file: str) -> set[str]:
        return set(re.findall(r'^ +"([/\w-]+)" =>', (GUESTS / probe / "src" / file).read_text(), re.MULTILINE))

    for file in ("lib.rs", "hostile.rs", "holds.rs", "much.rs"):
        elsewhere = {"/silent", "out"} if file == "lib.rs" else set()
        assert len(routes("probe", file)) > 10
        assert routes("probe_p3", file) == routes("probe", file) - elsewhere


def test_each_hostile_route_is_used() -> None:
    source = (GUESTS / "probe" / "src" / "hostile.rs").read_text()
    routes = set(re.findall(r'^ +"([\w-]+)" =>', source, re.MULTILINE))
    assert len(routes) > 10
    users = "".join(path.read_text() for path in [TESTS / "chaos.py", *TESTS.rglob("test_*.py")])
    assert {route for route in routes if not re.search(f"/hostile/{route}" + r'["?& ]', users)} == set()
