"""A secret is hidden in every place of a guest's memory; the next exchange of its instance never finds it."""

from __future__ import annotations

import pytest

import wasgi
from tests.guest.isolated.asking import MODES, SECRETS, ask, expected, found, keep, masked
from tests.guest.isolated.conftest import AppMaker

PLACES = (
    "data",
    "zeros",
    "across",
    "many-pages",
    "first-page",
    "last-page",
    "last-bytes",
    "heap",
    "freed",
    "stack",
    "thread-local",
    "once",
    "variable",
    "body",
    "field",
)


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_is_not_found_by_the_next_exchange(app: AppMaker, mode: str, place: str) -> None:
    made, secret = app(), next(SECRETS)
    first = ask(made, "/find?secret=" + masked(secret))
    kept = keep(made, secret, place)
    after = ask(made, "/find?secret=" + masked(secret))
    assert (kept.text, after.text) == ("kept", "0 "), place
    assert first.entry == kept.entry == after.entry
    assert [first.reused, kept.reused, after.reused] == expected(mode, 0, 1, 2)


@pytest.mark.parametrize("place", PLACES)
def test_it_would_be_found(keeper: wasgi.Component, place: str) -> None:
    """Where nothing is put back: so the tests of this file can fail."""
    with wasgi.App(keeper, reuse=MODES["reused"]()) as made:
        secret = next(SECRETS)
        keep(made, secret, place)
        after = ask(made, "/find?secret=" + masked(secret))
    assert after.reused == 1
    assert int(after.text.split()[0]) > 0
    assert "counter=1" in after.entry


def test_the_first_exchange_is_no_exception(app: AppMaker, mode: str) -> None:
    """What is put back is the state before the first exchange, not the one after it."""
    made, secret = app(), next(SECRETS)
    kept = keep(made, secret, *PLACES)
    assert found(made, secret) == 0
    after = ask(made, "/digests")
    assert after.entry == kept.entry
    assert [kept.reused, after.reused] == expected(mode, 0, 2)


def test_all_places_over_and_over(app: AppMaker, mode: str) -> None:
    """Each exchange has a secret of its own, in other places than the one before."""
    made, secrets = app(), [next(SECRETS) for _ in range(3 * len(PLACES))]
    entries = set()
    for n, secret in enumerate(secrets):
        kept = keep(made, secret, *PLACES[n % len(PLACES) :])
        entries.add(kept.entry)
        assert kept.reused == (0 if mode == "fresh" else n)
    assert [found(made, secret) for secret in secrets] == [0] * len(secrets)
    assert len(entries) == 1


@pytest.mark.parametrize("between", [1, 10, 300])
def test_a_place_that_was_not_used_for_long(app: AppMaker, mode: str, between: int) -> None:
    """A page that was written once is written without a fault from then on, whether or not anybody still watches it."""
    made, secret = app(), next(SECRETS)
    first = keep(made, secret, *PLACES)
    for _ in range(3):
        for _ in range(between):
            assert ask(made, "/nowhere").entry == first.entry
        assert keep(made, secret, *PLACES).entry == first.entry
        after = ask(made, f"/find?secret={masked(secret)}")
        assert (after.text, after.entry) == ("0 ", first.entry)
    assert after.reused == expected(mode, 3 * (between + 2))[0]


def test_pages_in_turn(app: AppMaker, mode: str) -> None:
    """Each exchange writes other pages than the one before, all over memory, and some of them twice."""
    made, secret = app(), next(SECRETS)
    entry = ask(made, "/nowhere").entry
    for n in range(300):
        pages = ",".join(f"page-{(n * 89 + k * 131) % 200 + 20}" for k in range(n % 5 + 1))
        assert ask(made, f"/keep?in={pages}&secret={masked(secret)}").entry == entry
        if n % 10 == 0:
            assert found(made, secret) == 0
    after = ask(made, "/nowhere")
    assert (after.entry, after.reused) == (entry, expected(mode, 331)[0])


def test_random_bytes_that_the_host_gave(app: AppMaker, mode: str) -> None:
    made = app()
    given = keep(made, b"-", "random").text
    after = ask(made, f"/find?secret={given}")
    assert len(given) == 48
    assert (after.text, after.reused) == ("0 ", *expected(mode, 1))


def test_random_bytes_would_be_found(keeper: wasgi.Component) -> None:
    with wasgi.App(keeper, reuse=MODES["reused"]()) as made:
        assert found(made, bytes(byte ^ 0x5A for byte in bytes.fromhex(keep(made, b"-", "random").text))) > 0


@pytest.mark.parametrize("where", ["path", "field", "chunk", "printed", "answer of an upstream"])
def test_what_only_passes_through(app: AppMaker, mode: str, where: str) -> None:
    """A guest that hides nothing leaves traces all the same: in buffers that it has given back."""
    secret = next(SECRETS)
    plain = secret.decode()
    printed: list[str] = []
    made = app(outgoing=lambda _: wasgi.Response(body=secret * 1000), stdout=printed.append, stderr=printed.append)
    if where == "path":
        ask(made, f"/nowhere?{plain}")
    elif where == "field":
        ask(made, "/nowhere", headers={"x-secret": plain})
    elif where == "chunk":
        assert ask(made, "/echo", method="POST", body=[secret, secret * 100]).text == plain * 101
    elif where == "printed":
        ask(made, f"/print?line={plain}&n=100")
    else:
        assert plain in ask(made, "/fetch?url=a/").text
    after = ask(made, f"/find?secret={masked(secret)}")
    assert (after.text, after.reused) == ("0 ", *expected(mode, 1))


def test_what_is_hidden_after_the_response(app: AppMaker, mode: str) -> None:
    """A guest that works on when its caller has everything."""
    made, secret = app(stdout=lambda _: None), next(SECRETS)
    streamed = ask(made, f"/stream?n=3&bytes=10&ms=5&in=data,heap,stack,last-page&secret={masked(secret)}")
    assert streamed.text == "s" * 30
    after = ask(made, f"/find?secret={masked(secret)}")
    assert (after.text, after.entry) == ("0 ", streamed.entry)
    assert after.reused == expected(mode, 1)[0]


def test_every_page_is_as_on_a_fresh_instance(app: AppMaker, keeper: wasgi.Component) -> None:
    simulation = wasgi.testing.Simulation()  # the guest has drawn random numbers by then
    made = app(simulation=simulation)
    pristine = ask(wasgi.App(keeper, simulation=simulation), "/digests").text.splitlines()
    assert len(pristine) == 768
    for _ in range(5):
        keep(made, next(SECRETS), *PLACES)
        digests = ask(made, "/digests").text.splitlines()
        assert [one for one, other in zip(digests, pristine, strict=True) if one != other] == []


def test_memory_that_was_put_back_is_no_other_instances(keepers: dict[str, wasgi.Component]) -> None:
    """The pool gives the memory of an instance that has ended to the next one, of whichever app and component."""
    secret = next(SECRETS)
    fresh = {generation: wasgi.App(component) for generation, component in keepers.items()}
    entries = {generation: ask(app, "/nowhere").entry for generation, app in fresh.items()}
    for _ in range(10):
        for component in keepers.values():
            with wasgi.App(component, reuse=MODES["isolated"]()) as made:
                keep(made, secret, *PLACES)
                keep(made, secret, *PLACES)
            for generation, app in fresh.items():
                assert found(app, secret) == 0
                assert ask(app, "/nowhere").entry == entries[generation]
            # and with its last exchange's pages dirty
            with wasgi.App(component, reuse=MODES["isolated"]()) as made:
                keep(made, secret, *PLACES)
                made.handle(wasgi.Request("GET", "http://keeper.local/stream?n=1000&bytes=4096")).close()
            assert [found(app, secret) for app in fresh.values()] == [0, 0]


def test_memory_of_other_instances_is_nothing_to_one_that_is_put_back(keepers: dict[str, wasgi.Component]) -> None:
    """The other way round: what fresh instances left in memory is not found by those that take their place."""
    secret = next(SECRETS)
    for component in keepers.values():
        entry = ask(wasgi.App(component), "/nowhere").entry
        for _ in range(10):
            keep(wasgi.App(component), secret, *PLACES)
            with wasgi.App(component, reuse=MODES["isolated"]()) as made:
                assert [found(made, secret) for _ in range(3)] == [0, 0, 0]
                assert ask(made, "/nowhere").entry == entry
