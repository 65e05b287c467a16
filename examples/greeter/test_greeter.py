"""The tests of a component in Rust, with wasgi's pytest plug-in. Run them with pytest, in this folder."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import wasgi
from wasgi.testing import Client, Simulation, Upstream

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


def test_an_api_that_is_too_slow(wasgi_app: Callable[..., Client], upstream: Upstream) -> None:
    """For two seconds, of a time in which an hour takes none."""
    upstream.any().delays(3600).then.respond(json={"name": "Ada"}).delays(1.9)
    greeter = wasgi_app("greeter.wasm", env={"API": API}, simulation=Simulation())
    assert greeter.get("/greet/1").text == "Hello, Ada"
    assert [call.request.url for call in upstream.calls] == [f"{API}/users/1"] * 2


def test_users_see_nothing_of_each_other(greeter: Client, upstream: Upstream) -> None:
    """Not on one instance either: it may be served with `wasgi.Reuse`."""
    upstream.get(f"{API}/users/1").respond(json={"name": "Ada"})
    upstream.get(f"{API}/users/2").respond(json={"name": "Grace"})
    wasgi.testing.check_isolation(greeter, ["/greet/1", "/greet/2", "/"])


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
