"""A guest of another toolchain: JavaScript, built by componentize-js."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

import wasgi
from tests.conftest import GUESTS, ROOT, get

sys.path.insert(0, str(ROOT / "examples" / "plugins"))
import build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def component() -> wasgi.Component:
    """Built once for each state of its sources, and kept."""
    source = GUESTS / "javascript" / "app.js"
    digest = hashlib.sha256(source.read_bytes() + Path(build.__file__).read_bytes()).hexdigest()
    target = ROOT / ".cache" / "guests" / f"javascript-{digest[:16]}.wasm"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        made = target.with_suffix(".made")
        build.javascript(source, made)
        made.replace(target)
    return wasgi.Component(target)


@pytest.mark.parametrize("size", [1, 300_000])
def test_an_answer_is_seen_that_comes_before_the_body_is_read(component: wasgi.Component, size: int) -> None:
    app = wasgi.App(component, outgoing=lambda request: wasgi.Response(413, body="too much"))
    for _ in range(5):
        response = app.handle(get(f"/?url=http://api.example/&bytes={size}"))
        assert (response.status, response.text) == (200, "413 too much")


@pytest.mark.parametrize("size", [1, 300_000])
def test_a_refusal_is_an_exception_of_fetch(component: wasgi.Component, size: int) -> None:
    response = wasgi.App(component).handle(get(f"/?url=http://api.example/&bytes={size}"))
    assert response.status == 502
    assert "NetworkError" in response.text
