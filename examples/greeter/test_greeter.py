"""The tests of a component in Rust, with wasgi's pytest plug-in. Run them with pytest, in this folder."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import wasgi
from wasgi.testing import Client, Upstream

API = "https://api.example.com/v1"


@pytest.fixture
def greeter(wasgi_app: Callable[..., Client]) -> Client:
    return wasgi_app("greeter.wasm", env={"API": API})


def test_greets_by_name(greeter: Client, upstream: Upstream) -> None:
    upstream.get(f"{API}/users/1").respond(json={"name": "Ada"})
    response = greeter.get("/greet/1")
    assert response.status == 200
    assert response.text == "Hello, Ada"
    assert upstream.calls[0].request.headers["accept"] == "application/json"


@pytest.mark.parametrize("fault", wasgi.testing.every_error_code())
def test_survives_upstream_faults(greeter: Client, upstream: Upstream, fault: str) -> None:
    upstream.any().raises(fault)
    assert greeter.get("/greet/1").status == 502
    assert len(upstream.calls) == 2, "it has asked once more"


@pytest.mark.parametrize("fault", ["connection-terminated", "HTTP-response-incomplete"])
def test_once_more_is_enough(greeter: Client, upstream: Upstream, fault: str) -> None:
    upstream.get(f"{API}/users/1").respond(json={"name": "Ada"}).breaks_after(5, fault).then.respond(
        json={"name": "Ada"}
    )
    assert greeter.get("/greet/1").text == "Hello, Ada"


def test_an_api_that_is_too_slow(greeter: Client, upstream: Upstream) -> None:
    upstream.any().delays(2.5).then.respond(json={"name": "Ada"})
    assert greeter.get("/greet/1").text == "Hello, Ada"
    assert upstream.calls[0].request.url == f"{API}/users/1"


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [(404, b"", 404), (500, b"", 502), (200, b"no JSON", 502), (200, b'{"name": 1}', 502), (204, b"", 502)],
)
def test_other_answers(greeter: Client, upstream: Upstream, status: int, content: bytes, expected: int) -> None:
    upstream.get(f"{API}/users/1").respond(status, content=content)
    assert greeter.get("/greet/1").status == expected


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", "/greet/1")])
def test_what_is_not_there(greeter: Client, method: str, path: str) -> None:
    assert greeter.request(method, path).status == 404
