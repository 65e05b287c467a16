"""Sequences of exchanges as they come: all that can be observed of each is what a fresh instance shows, to the byte."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import wasgi
from tests.conftest import GENERATIONS, until
from tests.guest.isolated.asking import MODES, masked, request
from tests.guest.isolated.test_places import PLACES
from wasgi.testing import Simulation

SECRET = b"one secret for all of these"


@dataclass(frozen=True)
class Step:
    """An exchange: `body` are its chunks, `taken` how many chunks of the answer its caller takes, if not all."""

    target: str
    body: tuple[bytes, ...] = ()
    taken: int | None = None


@dataclass
class Observed:
    """All that there is to see of an exchange."""

    answer: list[object] = field(default_factory=list)
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)


chunks = st.lists(
    st.one_of(st.binary(max_size=50), st.integers(1, 20).map(lambda n: bytes(range(256)) * 32 * n), st.just(SECRET)),
    max_size=4,
).map(tuple)
OF_GUEST = [place for place in PLACES if place not in ("body", "field")] + ["grown"]


def some(places: list[str]) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(places), min_size=1, unique=True).map(",".join)


small = st.integers(0, 12)
steps = st.one_of(
    st.builds(
        lambda where, body: Step(f"/keep?in={where}&secret={masked(SECRET)}", body),
        some([*OF_GUEST, "body", "field", "random"]),
        chunks,
    ),
    st.builds(Step, st.sampled_from(["/nowhere", "/world", f"/find?secret={masked(SECRET)}", "/digests"])),
    st.builds(lambda n: Step(f"/handles?n={n}"), small),
    st.builds(lambda n: Step(f"/forget?n={n}"), small),
    st.builds(
        lambda what: Step(f"/leave?what={','.join(what)}"),
        st.lists(st.sampled_from(["fields", "headers", "options"]), min_size=1, max_size=9),
    ),
    st.builds(Step, st.sampled_from(["/echo", "/collect"]), chunks),
    st.builds(
        lambda n, forget: Step(f"/fetch?url=up/x&n={n}{forget}"), st.integers(1, 4), st.sampled_from(["", "&forget=1"])
    ),
    st.builds(lambda n: Step(f"/print?line=words&n={n}"), small),
    st.builds(lambda ms: Step(f"/sleep?ms={ms}"), small),
    st.builds(
        lambda n, size, where: Step(f"/stream?n={n}&bytes={size}&ms=3&in={where}&secret={masked(SECRET)}"),
        small,
        st.integers(0, 20_000),
        some(OF_GUEST),
    ),
    # their callers go away while the guest has more to write than is taken from it
    st.builds(lambda taken: Step("/stream?n=1000&bytes=5000", taken=taken), st.integers(0, 5)),
    # these end their instance in WASI 0.3
    st.builds(Step, st.sampled_from(["/leave?what=response,fields", "/leave?what=request", "/shelf?secret=61"])),
    st.builds(Step, st.sampled_from(["/trap", "/exit", "/grow?pages=1", "/grow?pages=40"])),
)


def upstream_body(url: str) -> bytes:
    return b"".join(b"%d " % n + url.encode() for n in range(len(url) * 20))


class World:
    """An app whose exchanges are observed."""

    def __init__(self, component: wasgi.Component, reuse: wasgi.Reuse | None) -> None:
        self._asked: list[tuple[str, str, bytes]] = []
        self._printed: defaultdict[int | None, list[str]] = defaultdict(list)
        self.app = wasgi.App(
            component,
            reuse=reuse,
            outgoing=self._answer,
            stdout=self._print,
            stderr=self._print,
            simulation=Simulation(seed=11, now=1_000_000),
        )

    def _answer(self, asked: wasgi.Request) -> wasgi.Response:
        self._asked.append((asked.method, str(asked.url), asked.read()))
        return wasgi.Response(200 + len(self._asked), headers={"x-n": "1"}, body=upstream_body(str(asked.url)))

    def _print(self, line: str) -> None:
        self._printed[line.exchange].append(f"{line.stream}: {line}")  # type: ignore[attr-defined]

    def observe(self, *sequence: Step) -> tuple[list[Observed], list[int]]:
        """Of each, and how many exchanges its instance had before."""
        seen, reused, numbers = [], [], []
        with self.app:
            for step in sequence:
                seen.append(Observed())
                self._asked = seen[-1].asked
                number, earlier = self._run(step, seen[-1])
                numbers.append(number)
                reused.append(earlier)
                until(lambda: self.app.exchanges == 0)
        # closing has waited for the lines
        for observed, number in zip(seen, numbers, strict=True):
            observed.printed = sorted(self._printed[number])
        return seen, reused

    def _run(self, step: Step, seen: Observed) -> tuple[int | None, int]:
        number, reused, content = None, 0, b""
        try:
            body: Iterator[bytes] | None = iter(step.body) if step.body else None
            with self.app.handle(request(step.target, method="POST", body=body)) as response:
                seen.answer += [response.status, *response.headers.raw]
                if response.report is not None:
                    number, reused = response.report.exchange, response.report.reused
                if step.taken is not None:
                    taken = list(itertools.islice(response, step.taken))
                    seen.answer.append(len(taken))
                    return None, reused  # how long its chunks are and what it has printed by then is chance
                for chunk in response:
                    content += chunk
                response.wait()
        except wasgi.WasgiError as error:
            # of an instrumented component no places are told
            seen.answer += [type(error).__name__, re.sub(r" \(at 0x[0-9a-f]+\)", "", str(error))]
        finally:
            seen.answer.append(content)
        return number, reused


@pytest.mark.parametrize("generation", GENERATIONS)
@given(sequence=st.lists(steps, min_size=2, max_size=12))
@example(sequence=[Step(f"/keep?in={','.join(PLACES)}&secret={masked(SECRET)}", (SECRET,) * 9), Step("/digests")] * 3)
@example(sequence=[Step("/world"), Step("/sleep?ms=60000"), Step("/world")])
@example(sequence=[Step("/nowhere"), Step("/stream?n=1000&bytes=5000", taken=1), Step("/nowhere"), Step("/nowhere")])
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_they_are_what_fresh_instances_show(
    keepers: dict[str, wasgi.Component], generation: str, sequence: list[Step]
) -> None:
    fresh, _ = World(keepers[generation], None).observe(*sequence)
    isolated, reused = World(keepers[generation], MODES["isolated"]()).observe(*sequence)
    for step, one, other in zip(sequence, isolated, fresh, strict=True):
        assert dataclasses.asdict(one) == dataclasses.asdict(other), step
    assert_reused(sequence, reused)


def ends(step: Step) -> bool:
    """Whether its instance is dropped: some may be, others must not."""
    return step.taken is not None or any(
        word in step.target for word in ("trap", "exit", "grow", "forget=1", "response", "request")
    )


def assert_reused(sequence: list[Step], reused: list[int]) -> None:
    """An instance is put back unless something has ended it. Otherwise these tests would prove nothing."""
    for before, (step, earlier, later) in zip(
        sequence, zip(sequence[1:], reused, reused[1:], strict=False), strict=False
    ):
        if "/trap" in step.target or "/exit" in step.target:
            continue  # they tell of no report
        if not ends(before):
            assert later == earlier + 1, (before, step)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.slow
@given(sequence=st.lists(steps, min_size=10, max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_long_ones(keepers: dict[str, wasgi.Component], generation: str, sequence: list[Step]) -> None:
    test_they_are_what_fresh_instances_show.hypothesis.inner_test(keepers, generation, sequence)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_they_would_differ(keepers: dict[str, wasgi.Component], generation: str) -> None:
    sequence = [Step("/nowhere"), Step("/nowhere")]
    fresh, _ = World(keepers[generation], None).observe(*sequence)
    plain, reused = World(keepers[generation], MODES["reused"]()).observe(*sequence)
    assert reused == [0, 1]
    assert fresh != plain
