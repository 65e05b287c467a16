"""`wasgi.testing.check_isolation`: what a component lets one exchange see of another."""

from __future__ import annotations

import itertools

import pytest

import wasgi
from tests.conftest import PROBE_P3, AppMaker, get, post
from wasgi.testing import AsyncClient, Client, Upstream, check_isolation


def failure(app: wasgi.App | Client | AsyncClient, *requests: wasgi.Request | str) -> str:
    with pytest.raises(AssertionError) as failed:
        check_isolation(app, requests)
    return str(failed.value)


def test_a_component_that_keeps_nothing(app: AppMaker) -> None:
    upstream = Upstream()
    upstream.any().respond(text="the same", trailers={"x-end": "1"})
    made = app(outgoing=upstream, env={"A": "1"})
    check_isolation(
        made,
        [
            "/hello",
            post("/echo", b"a body"),
            "/env",
            "/fetch?url=https://a/",
            "/stdio?n=2",
            "/trailers",
            "/trap",
            "/code?name=DNS-timeout",
            "/unfinished",
        ],
    )
    assert {asked.request.url for asked in upstream.calls} == {"https://a/"}
    assert made.exchanges == wasgi.stats().idle == 0, "nothing is left of the check"


def test_what_it_answers(app: AppMaker) -> None:
    assert failure(app(), "/remember?word=ada", "/hello") == (
        """\
the component leaks state between exchanges

--- on a fresh instance
+++ GET http://component.test/remember?word=ada after GET http://component.test/remember?word=ada
@@ -2,2 +2,2 @@
   content-type: text/plain; charset=utf-8
-nothing
+ada"""
    )


def test_one_request_follows_on_itself(app: AppMaker) -> None:
    assert "+++ GET http://component.test/remember?word=ada after GET" in failure(app(), "/remember?word=ada")


def test_what_it_asks(app: AppMaker) -> None:
    upstream = Upstream()
    upstream.any()
    message = failure(app(outgoing=upstream), "/remember?quiet=1&word=secret&url=https://a/")
    assert message.endswith(
        """\
@@ -3,2 +3,2 @@
 quiet
-asked GET https://a/nothing
+asked GET https://a/secret"""
    )


def test_what_it_asks_though_it_may_not(app: AppMaker) -> None:
    """Whoever gets it in the end: it has left the component."""
    assert "+asked GET https://a/secret" in failure(app(), "/remember?quiet=1&word=secret&url=https://a/")


def test_what_it_prints(app: AppMaker) -> None:
    message = failure(app(), "/remember?quiet=1&word=secret&print=1")
    assert message.endswith('-stdout: before: None\n+stdout: before: Some("secret")')


def test_bodies_and_clients(app: AppMaker) -> None:
    """Requests with bodies are sent as often as it takes, and a client's base URL is that of relative ones."""
    requests: list[wasgi.Request | str] = [post("/collect", iter([b"two ", b"chunks"])), "/inspect"]
    check_isolation(Client(app(), base_url="http://plugin.test/"), requests)
    assert "GET http://plugin.test/remember" in failure(
        AsyncClient(app(), base_url="http://plugin.test/"), "/remember?word=a"
    )


def test_an_upstream_that_is_not_the_same_each_time(app: AppMaker) -> None:
    numbers = itertools.count()
    made = app(outgoing=lambda request: wasgi.Response(body=str(next(numbers))))
    assert failure(made, "/fetch?url=https://a/") == (
        """\
GET http://component.test/fetch?url=https://a/ differs on two fresh instances, so nothing can be told of reused ones; \
hint: its upstream must answer the same each time, and the component wait for what it asks

--- on a fresh instance
+++ on another fresh instance
@@ -1,3 +1,3 @@
 200
-0
+1
 asked GET https://a/"""
    )


def test_instances_that_are_never_kept(app: AppMaker) -> None:
    upstream = Upstream()
    upstream.any().respond(stream=[b"x", b"y"])
    made = app(outgoing=upstream)
    assert failure(made, "/trap", "/unfinished", "/keep?what=response-stream&url=https://a/") == (
        """\
nothing was checked: each exchange has ended its instance (`wasgi.Reuse` says why)
  GET http://component.test/trap: TrapError
  GET http://component.test/unfinished: BodyError
  GET http://component.test/keep?what=response-stream&url=https://a/: it left a body or a request open"""
    )
    assert failure(made) == "nothing was checked: no requests were given"


@pytest.mark.parametrize("between", ["/trap", "/unfinished", "/remember?word=nothing&quiet=1"])
def test_each_follows_on_each_other(app: AppMaker, between: str) -> None:
    """Whatever stands between them in the list, ends its instance or hides what was before."""
    message = failure(app(), "/remember?word=secret&quiet=1", between, "/remember?word=nothing")
    assert "/remember?word=nothing after GET http://component.test/remember?word=secret&quiet=1" in message


def test_what_is_seen_before_a_failure(app: AppMaker) -> None:
    message = failure(app(), "/remember?word=secret&quiet=1", "/remember?word=secret&then=break")
    assert "-x-before: nothing" in message.replace("-  ", "-")


def test_delays_take_no_time(app: AppMaker) -> None:
    upstream = Upstream()
    upstream.any().respond(text="late").delays(3600)
    check_isolation(app(outgoing=upstream), ["/fetch?url=https://a/"])


def test_its_own_world(app: AppMaker) -> None:
    """Clocks and randomness are no difference; a monotonic clock tells how old its instance is, which is one."""
    check_isolation(app(simulation=wasgi.testing.Simulation(seed=3, now=7)), ["/world?ms=0"])
    check_isolation(app(), ["/world?ms=0"])
    assert "20000000" in failure(app(), "/world?ms=10")


async def test_where_a_loop_runs(app: AppMaker) -> None:
    async def upstream(request: wasgi.Request) -> wasgi.Response:
        return wasgi.Response(body="ok")

    check_isolation(app(outgoing=upstream), [get("/fetch?url=https://a/")])


def together(**options: object) -> wasgi.App:
    """An app whose instances have up to four exchanges at once."""
    return wasgi.App(PROBE_P3, reuse=wasgi.Reuse(concurrent=4), **options)  # type: ignore[arg-type]


def names_itself(request: wasgi.Request) -> wasgi.Response:
    return wasgi.Response(body=request.path)


CALLERS = ["/only/whose?as=ada&ms=5", "/only/whose?as=bob&ms=3"]
"""To a guest that keeps its caller where the others find it, until it has answered."""


def test_a_leak_between_exchanges_that_overlap() -> None:
    """In turn there is none: the app's `Reuse` says that they may overlap."""
    check_isolation(wasgi.App(PROBE_P3, reuse=wasgi.Reuse()), CALLERS)
    with together() as app:
        message = failure(app, *CALLERS)
    assert "after" not in message
    ada, bob = (f"GET http://component.test{caller}" for caller in CALLERS)
    assert f"+++ {ada} beside {bob}, which came second\n@@ -2,2 +2,2 @@\n" in message
    assert "\n-ada\n+" in message


def test_a_leak_while_they_wait_for_an_upstream() -> None:
    with together(outgoing=names_itself) as app:
        message = failure(app, *(f"/only/whose?as={name}&url=http://up/{name}" for name in ("ada", "bob")))
    assert "after" not in message
    assert " beside GET " in message


def test_exchanges_that_overlap_and_have_nothing_in_common() -> None:
    upstream = Upstream()
    upstream.any().respond(text="the same", trailers={"x-end": "1"}).delays(60)
    with together(outgoing=upstream, simulation=wasgi.testing.Simulation(seed=3, now=7)) as app:
        check_isolation(
            app,
            [
                "/hello",
                post("/echo", b"a body"),
                "/fetch?url=https://a/",
                "/sleep?ms=50",
                "/stdio?n=2",
                "/only/print?n=2&ms=7",
                "/trap",
                "/code?name=DNS-timeout",
                "/unfinished",
            ],
        )
        assert app.exchanges == wasgi.stats().idle == 0, "nothing is left of the check"


def test_what_is_random_and_what_time_it_is_are_each_ones_own() -> None:
    """Of the same instance: one sleeps for an hour, and draws, between what the other does."""
    both = ["/world?ms=0", "/world?ms=3600000"]
    with together() as app:
        message = failure(app, *both)
        assert " beside " not in message, "a monotonic clock tells how old its instance is to those who come later"
        assert "after" in message


def warmed(*targets: str) -> wasgi.Reuse:
    return wasgi.Reuse(isolated=True, warm=[get(target) for target in targets])


def test_its_warm_ups_come_first(app: AppMaker) -> None:
    """Of each instance; what they ask and print is no difference, whichever request ends an instance."""
    upstream = Upstream()
    upstream.any().respond(text="the same")
    made = app(outgoing=upstream, reuse=warmed("/stdio?n=2", "/fetch?url=https://warm/"))
    check_isolation(made, ["/hello", "/fetch?url=https://a/", "/stdio?n=1", "/trap", "/unfinished"])
    assert {asked.request.url for asked in upstream.calls} == {"https://warm/", "https://a/"}


def test_what_a_warm_up_has_left_is_in_a_fresh_instance_as_well(app: AppMaker) -> None:
    check_isolation(app(reuse=warmed("/remember?word=warm&quiet=1")), ["/remember?word=ada", "/hello"])


def test_a_warm_up_that_fails(app: AppMaker) -> None:
    with pytest.raises(wasgi.TrapError):
        check_isolation(app(reuse=warmed("/trap")), ["/hello"])
