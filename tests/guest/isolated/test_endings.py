"""Which instances are dropped and not put back; whatever ended them, the next exchange finds what a fresh one shows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

import wasgi
from tests.conftest import until
from tests.guest.isolated.asking import MODES, SECRETS, Answer, ask, expected, found, keep, masked, request, seen
from tests.guest.isolated.conftest import AppMaker

ENDINGS = {
    "it traps": "/trap?",
    "it exits": "/exit?",
    "it computes for too long": "/loop?",
    "it waits for too long": "/sleep?ms=60000",
}


def ended(app: wasgi.App, target: str) -> Answer | Exception:
    try:
        return ask(app, target)
    except wasgi.WasgiError as error:
        return error


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_exchange_that_fails_ends_its_instance(app: AppMaker, mode: str, ending: str) -> None:
    made, secret = app(limits=wasgi.Limits(timeout=1 if "too long" in ending else 60)), next(SECRETS)
    first = keep(made, secret, "data", "heap")
    assert isinstance(ended(made, ENDINGS[ending]), wasgi.GuestError)
    until(lambda: made.exchanges == 0)
    assert wasgi.stats().idle == 0
    after = ask(made, f"/find?secret={masked(secret)}")
    assert (after.text, after.entry, after.reused) == ("0 ", first.entry, 0)
    assert seen(made, "/nowhere") == expected(mode, 1)


def test_a_guest_that_gives_no_answer(keepers: dict[str, wasgi.Component], mode: str) -> None:
    """Nobody does in WASI 0.3: an error-code is an answer."""
    with wasgi.App(keepers["0.2"], reuse=MODES[mode]()) as made:
        first = ask(made, "/nowhere")
        assert isinstance(ended(made, "/silent"), wasgi.GuestError)
        assert wasgi.stats().idle == 0
        after = ask(made, "/nowhere")
        assert (after.entry, after.reused) == (first.entry, 0)
    with wasgi.App(keepers["0.3"], reuse=MODES[mode]()) as made:
        first = ask(made, "/nowhere")
        assert isinstance(ended(made, "/silent"), wasgi.errors.InternalError)
        assert ask(made, "/nowhere").entry == first.entry


@pytest.mark.parametrize("pages", [1, 16, 200])
def test_memory_that_has_grown(app: AppMaker, mode: str, pages: int) -> None:
    made, secret = app(), next(SECRETS)
    first = ask(made, "/nowhere")
    assert seen(made, "/nowhere") == expected(mode, 1)
    assert ask(made, f"/grow?pages={pages}").text == str(48 << 16)
    assert wasgi.stats().idle == 0
    kept = keep(made, secret, "grown")
    assert (kept.entry, kept.reused) == (first.entry, 0)
    after = ask(made, f"/find?secret={masked(secret)}")
    assert (after.text, after.entry, after.reused) == ("0 ", first.entry, 0)
    assert seen(made, "/nowhere") == expected(mode, 1)


def test_memory_would_stay_grown(keeper: wasgi.Component) -> None:
    with wasgi.App(keeper, reuse=MODES["reused"]()) as made:
        secret = next(SECRETS)
        keep(made, secret, "grown")
        after = ask(made, f"/find?secret={masked(secret)}")
    assert (int(after.text.split()[0]) > 0, after.reused) == (True, 1)
    assert "pages=49" in after.entry


@pytest.mark.parametrize("chunks", [0, 1, 5])
def test_a_caller_that_goes_away(app: AppMaker, mode: str, chunks: int) -> None:
    made, secret = app(stdout=lambda _: None), next(SECRETS)
    first = keep(made, secret, "stack", "many-pages")
    with made.handle(request("/stream?n=1000&bytes=4096")) as response:
        taken = list(itertools.islice(response, chunks))
    assert len(taken) == chunks
    until(lambda: made.exchanges == 0)
    assert wasgi.stats().idle == 0
    after = ask(made, f"/find?secret={masked(secret)}")
    assert (after.text, after.entry, after.reused) == ("0 ", first.entry, 0)
    assert seen(made, "/nowhere") == expected(mode, 1)


def test_a_body_that_breaks_off(app: AppMaker) -> None:
    """The guest sees that or traps over it; what it has read is not found."""
    secret = next(SECRETS)

    def body() -> Iterator[bytes]:
        yield secret * 100
        raise OSError("gone")

    made = app()
    first = ask(made, "/nowhere")
    for target in ("/echo", "/collect", "/keep?in=body"):
        with pytest.raises((OSError, wasgi.WasgiError)):
            ask(made, target, method="POST", body=body())
        until(lambda: made.exchanges == 0)
        assert found(made, secret) == 0
        assert ask(made, "/nowhere").entry == first.entry


def test_more_handles_than_may_be_kept(app: AppMaker) -> None:
    made = app(limits=wasgi.Limits(handles=200))
    first = ask(made, "/nowhere")
    for _ in range(3):
        assert ask(made, "/forget?n=60").text == "forgotten"
        assert ask(made, "/nowhere").entry == first.entry


def test_so_many_exchanges_and_no_more(keeper: wasgi.Component) -> None:
    with wasgi.App(keeper, reuse=wasgi.Reuse(isolated=True, requests=3)) as made:
        assert seen(made, *["/nowhere"] * 7) == [0, 1, 2, 0, 1, 2, 0]
        assert len({ask(made, "/nowhere").entry for _ in range(5)}) == 1


def test_it_waits_no_longer_than_it_may(keeper: wasgi.Component) -> None:
    with wasgi.App(keeper, reuse=wasgi.Reuse(isolated=True, idle=0.05)) as made:
        assert seen(made, "/nowhere") == [0]
        until(lambda: wasgi.stats().idle == 0)
        assert seen(made, "/nowhere") == [0]


def test_it_goes_with_its_app(keeper: wasgi.Component) -> None:
    made = wasgi.App(keeper, reuse=MODES["isolated"]())
    assert seen(made, "/nowhere", "/nowhere") == [0, 1]
    assert wasgi.stats().idle == 1
    made.close()
    until(lambda: wasgi.stats().idle == 0 and wasgi.stats().memories == 0)
