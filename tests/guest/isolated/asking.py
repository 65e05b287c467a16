"""Asking the keeper, `tests/guests/keeper`: it hides secrets in every place that it has, and looks for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import wasgi
from tests.conftest import COMPONENTS

KEEPERS = {"0.2": COMPONENTS / "keeper.wasm", "0.3": COMPONENTS / "keeper_p3.wasm"}
MODES: dict[str, Callable[[], wasgi.Reuse | None]] = {
    "fresh": lambda: None,
    "isolated": lambda: wasgi.Reuse(isolated=True, requests=None, idle=None),
    # where a test that can find something finds it
    "reused": lambda: wasgi.Reuse(requests=None, idle=None),
}
MASK = 0x5A
SECRETS = (f"secret-{n:08}-{n * 7919 % 10007:05}".encode() for n in itertools.count())


def masked(secret: bytes) -> str:
    """How the keeper is told a secret: neither the request nor its search holds the bytes that it looks for."""
    return bytes(byte ^ MASK for byte in secret).hex()


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    entry: str
    """What its handler found when it began: a digest of all memory, its handles' numbers, what the guest keeps."""
    reused: int


def request(target: str, **options: Any) -> wasgi.Request:
    return wasgi.Request(options.pop("method", "GET"), f"http://keeper.local{target}", **options)


def answered(response: wasgi.Response) -> Answer:
    """Waits for the end of the guest."""
    response.read()
    response.wait()
    assert response.report is not None
    return Answer(response.status, response.text, response.headers.get("x-entry", ""), response.report.reused)


def ask(app: wasgi.App, target: str, **options: Any) -> Answer:
    with app.handle(request(target, **options)) as response:
        return answered(response)


def keep(app: wasgi.App, secret: bytes, *places: str) -> Answer:
    return ask(
        app,
        f"/keep?in={','.join(places)}&secret={masked(secret)}",
        method="POST",
        body=secret * 2000,
        headers={"x-secret": secret.decode()},
    )


def found(app: wasgi.App, secret: bytes) -> int:
    """In how many places it lies."""
    return int(ask(app, f"/find?secret={masked(secret)}").text.split()[0])


def seen(app: wasgi.App, *targets: str) -> list[int]:
    """How many exchanges their instances had before."""
    return [ask(app, target).reused for target in targets]


def expected(mode: str, *reused: int) -> list[int]:
    """What `Report.reused` says: nothing is ever reused where instances are fresh."""
    return [0] * len(reused) if mode == "fresh" else list(reused)
