"""What is written into a mock's matchers: it fits what it says, or is refused where it is written."""

from __future__ import annotations

import datetime
import enum
import http
import json
import re
import uuid
from collections import OrderedDict
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

import wasgi
from wasgi import errors
from wasgi.outgoing import call
from wasgi.testing import Upstream
from wasgi.testing.matchers import has_part

URL = "https://api.example.com/x"
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


class Text(str, enum.Enum):  # noqa: UP042 -- not a `StrEnum`: its `str()` is its name
    A = "a"


class Number(enum.IntEnum):
    ONE = 1


class Plain(enum.Enum):
    A = "a"
    ONE = 1


async def fits(options: dict[str, Any], **request: Any) -> bool:
    """Whether a route for it is taken; a request that is not answered must be a complaint that can be shown."""
    upstream = Upstream()
    route = upstream.post(URL, **options)
    str(route.wanted)
    try:
        await call(upstream, wasgi.Request("POST", f"{URL}{request.pop('query', '')}", **request))
    except errors.DestinationNotFound:
        assert not route.called
        assert "no route matches" in upstream.complaints()[0]
        return False
    assert route.called
    upstream.check()
    return True


VALUES: list[tuple[Any, list[str], bool]] = [
    ("1", ["1"], True),
    ("1", ["2", "1"], True),
    ("1", ["01"], False),
    ("", [""], True),
    ("", [], False),
    (1, ["1"], True),
    (1, ["2"], False),
    (0, ["0"], True),
    (0, [""], False),
    (-5, ["-5"], True),
    (10**30, [str(10**30)], True),
    (10**30, ["1e30"], True),
    (1, ["1.0"], True),
    (1, ["1e0"], True),
    (1, ["1.5"], False),
    (7, ["007"], False),
    (2**53 + 1, ["9007199254740992.0"], False),
    (Number.ONE, ["1.0"], True),
    (1.5, ["1.5"], True),
    (1.5, ["1.50"], True),
    (1.0, ["1"], True),
    (1.0, ["1.0"], True),
    (0.1, ["0.1"], True),
    (1.0, ["one"], False),
    (1.0, ["1e99999999999999999999"], False),
    (Decimal("1.10"), ["1.1"], True),
    (True, ["true"], True),
    (True, ["1"], False),
    (False, ["false"], True),
    (False, [], False),
    (b"a", ["a"], True),
    (Text.A, ["a"], True),
    (Plain.A, ["a"], True),
    (Plain.ONE, ["1"], True),
    (Number.ONE, ["1"], True),
    (http.HTTPMethod.GET, ["GET"], True),
    (Path("/data/x"), ["/data/x"], True),
    (ID, [str(ID)], True),
    (re.compile("^a"), ["b", "ab"], True),
    (re.compile("^a"), ["b"], False),
    (ANY, [""], True),
    (ANY, [], False),
    (["1", "2"], ["1", "2"], True),
    (["1", "2"], ["2", "1"], False),
    (["1"], ["1", "2"], False),
    (("1", 2), ["1", "2"], True),
    ([1, re.compile("x")], ["1", "axb"], True),
    ([], [], True),
    ([], ["1"], False),
]

REFUSED: list[tuple[Any, type[Exception], str]] = [
    (None, TypeError, '"" for an empty value'),
    (datetime.datetime(2026, 1, 1), TypeError, r"`isoformat\(\)`"),
    (datetime.date(2026, 1, 1), TypeError, r"`isoformat\(\)`"),
    ({"a": 1}, TypeError, "not dict"),
    ({"a"}, TypeError, "not set"),
    ([["a"]], TypeError, "not list"),
    (object(), TypeError, "not object"),
    (re.compile(b"a"), TypeError, "a regular expression of str, not of bytes"),
    (float("nan"), ValueError, "must be finite"),
    (lambda value: True, TypeError, "not function"),
]


class TestNamesWithValues:
    @pytest.mark.parametrize(("wanted", "values", "expected"), VALUES)
    async def test_in_a_query(self, wanted: Any, values: list[str], expected: bool) -> None:
        query = "?" + "&".join(["other=o", *(f"n={value}" for value in values)])
        assert await fits({"query": {"n": wanted}}, query=query) == expected
        assert await fits({"params": {"n": wanted}}, query=query) == expected

    @pytest.mark.parametrize(("wanted", "values", "expected"), VALUES)
    async def test_in_fields(self, wanted: Any, values: list[str], expected: bool) -> None:
        headers = [("x-n", value) for value in values]
        assert await fits({"headers": {"X-N": wanted}}, headers=headers) == expected

    @pytest.mark.parametrize(("wanted", "values", "expected"), VALUES)
    async def test_in_a_form(self, wanted: Any, values: list[str], expected: bool) -> None:
        body = "&".join(["other=o", *(f"n={value}" for value in values)])
        assert await fits({"data": {"n": wanted}}, body=body) == expected

    @pytest.mark.parametrize(("wrong", "error", "why"), REFUSED)
    @pytest.mark.parametrize("where", ["query", "params", "headers", "data"])
    def test_what_is_no_value_is_refused(self, where: str, wrong: Any, error: type[Exception], why: str) -> None:
        upstream = Upstream()
        with pytest.raises(error, match=why) as raised:
            upstream.post(URL, **{where: {"n": wrong}})  # type: ignore[arg-type]
        assert f"`{where}['n']`" in str(raised.value)
        assert not upstream.routes

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ([("n", "1"), ("n", 2)], True),
            ([("n", "1")], True),
            ([("n", "2"), ("n", "1")], False),
            ((("n", 1), ("o", "o")), True),
            ("n=1&n=2", True),
            ("?o=o", True),
            ("n=2&n=1", False),
            ("o=", False),
            (b"o=o", True),
            (OrderedDict(o="o"), True),
            (httpx2.QueryParams([("n", "1"), ("n", "2")]), True),
            (httpx2.QueryParams([("n", "2")]), True),
            ({1: "x"}, False),
            ({b"o": "o"}, True),
            ({}, True),
            (None, True),
        ],
    )
    async def test_queries_in_other_forms(self, query: Any, expected: bool) -> None:
        assert await fits({"query": query}, query="?n=1&n=2&o=o") == expected

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ([("X-N", "1"), ("x-n", "2")], True),
            ([("x-n", "2"), ("x-n", "1")], False),
            (wasgi.Headers([("X-N", "1"), ("x-n", "2")]), True),
            (httpx2.Headers([("x-n", "1"), ("x-n", "2")]), True),
            ({"x-n": "1, 2"}, True),
            ({"x-n": ["1", "2"]}, True),
            ({"x-list": ["a", "b"]}, True),
            ({"x-list": ["b", "a"]}, False),
            ({"x-list": "a, b"}, True),
            ({"x-list": "a"}, False),
            ({b"x-list": b"a, b"}, True),
            ({"x-list": " a, b "}, True),
            ({"content-length": 0}, True),
            ({"x-text": "\xe9"}, True),
            ({"x-list": "a,b"}, True),
            ({"x-list": "a ,\tb"}, True),
            ({"x-list": ["a, b"]}, True),
            ({"x-list": [re.compile("a"), "b"]}, True),
            ({"x-n": "1,2"}, True),
            ({"x-n": ["1, 2"]}, True),
            ({"x-n": ["1,2", "3"]}, False),
            ({"x-quoted": ['"a, b"', "c"]}, True),
            ({"x-quoted": ['"a', 'b"', "c"]}, False),
            ({"x-quoted": '"a, b",c'}, True),
            ({"set-cookie": ["a=1", "b=2"]}, True),
            ({"set-cookie": "a=1, b=2"}, False),
            ({"set-cookie": ["a=1, b=2"]}, False),
        ],
    )
    async def test_fields_in_other_forms(self, headers: Any, expected: bool) -> None:
        sent = [("x-n", "1"), ("x-n", "2"), ("x-list", "a, b"), ("content-length", "0"), ("x-text", "\xe9")]
        sent += [("x-quoted", '"a, b", c'), ("set-cookie", "a=1"), ("set-cookie", "b=2")]
        assert await fits({"headers": headers}, headers=sent) == expected

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"query": 1}, "`query` must be a mapping or pairs"),
            ({"query": ["n"]}, "`query` must be a mapping or pairs"),
            ({"headers": "a: b"}, "`headers` must be a mapping or pairs"),
            ({"query": {None: "x"}}, "a name in `query`"),
            ({"query": {re.compile("a"): "x"}}, "a name in `query` must be text"),
            ({"query": {"a": 1}, "params": {"b": 1}}, "`query` and `params` are the same"),
            ({"content": {"a": 1}}, "hint: `json` compares"),
            ({"content": 5}, "`content` must be bytes, text or a regular expression, not int"),
            ({"where": "x"}, "`where` must be a plain function"),
            ({"where": True}, "`where` must be a plain function"),
        ],
    )
    def test_what_is_no_matcher_is_refused(self, options: dict[str, Any], why: str) -> None:
        with pytest.raises(TypeError, match=why):
            Upstream().post(URL, **options)

    @pytest.mark.parametrize("url", [Path("/a"), b"https://a/", httpx2.URL(URL), 1, re.compile(b"a")])
    def test_urls_are_text(self, url: Any) -> None:
        with pytest.raises(TypeError, match="`url` must be"):
            Upstream().get(url)

    @pytest.mark.parametrize("method", [["GET", "POST"], b"GET", 1])
    def test_methods_are_text(self, method: Any) -> None:
        with pytest.raises(TypeError, match="`method` must be str, or None for any"):
            Upstream().request(method, URL)

    @pytest.mark.parametrize("method", ["", "GET ", " GET", "GE T", "GET\n", "G/T", "GÉT"])
    def test_methods_are_such(self, method: str) -> None:
        upstream = Upstream()
        with pytest.raises(ValueError, match="`method` is not a valid method"):
            upstream.request(method, URL)
        assert not upstream.routes

    def test_a_coroutine_function_is_no_predicate(self) -> None:
        async def where(_: Any) -> bool:
            return False

        with pytest.raises(TypeError, match="`where` must be a plain function"):
            Upstream().any(where=where)  # type: ignore[arg-type]

    async def test_nor_is_what_gives_one(self) -> None:
        async def where() -> bool:
            return False

        upstream = Upstream()
        upstream.any(where=lambda asked: where())  # type: ignore[arg-type, return-value]
        with pytest.raises(TypeError, match="`where` must be a plain function"):
            await call(upstream, wasgi.Request("GET", URL))


class TestContent:
    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            (b"h\xc3\xa9", True),
            ("hé", True),
            (bytearray(b"h\xc3\xa9"), True),
            (memoryview(b"h\xc3\xa9"), True),
            ("h", False),
            (re.compile("^h.$"), True),
            (re.compile(rb"^h..$"), True),
            (re.compile("x"), False),
            (ANY, True),
        ],
    )
    async def test_it(self, wanted: Any, expected: bool) -> None:
        assert await fits({"content": wanted}, body="hé") == expected


class TestJson:
    @pytest.mark.parametrize(
        ("wanted", "body", "expected"),
        [
            # numbers by value: RFC 8259, 6
            ({"n": 1.0}, '{"n": 1}', True),
            ({"n": 1}, '{"n": 1.0}', True),
            ({"n": 1}, '{"n": 1e0}', True),
            ({"n": 100}, '{"n": 1E2}', True),
            ({"n": 0}, '{"n": -0.0}', True),
            ({"n": 1}, '{"n": 1.5}', False),
            ({"n": 10**30}, '{"n": 1e30}', True),
            ({"n": 10**30}, '{"n": 1.0e30}', True),
            ({"n": 1e30}, '{"n": 1' + "0" * 30 + "}", True),
            ({"n": 1e30}, '{"n": 1e30}', True),
            ({"n": 10**30}, '{"n": 1.1e30}', False),
            ({"n": 0.1}, '{"n": 0.1}', True),
            ({"n": 0.1}, '{"n": 0.1000000000000000055}', True),
            ({"n": 0.1}, '{"n": 0.11}', False),
            ({"n": 1}, '{"n": 1e99999999999999999999}', False),
            ({"n": 1}, '{"n": NaN}', False),
            ({"n": Decimal("0.30")}, '{"n": 0.3}', True),
            ({"n": 2**53 + 1}, '{"n": 9007199254740993}', True),
            ({"n": 2**53 + 1}, '{"n": 9007199254740992.0}', False),
            ({"n": Decimal("0.1")}, '{"n": 0.1}', True),
            ({"n": Decimal("1")}, '{"n": 1}', True),
            ({"n": 1}, '{"n": "1"}', False),
            ({"n": "1"}, '{"n": 1}', False),
            # true is no number
            ({"n": True}, '{"n": 1}', False),
            ({"n": 1}, '{"n": true}', False),
            ({"n": False}, '{"n": 0}', False),
            ({"n": 0.0}, '{"n": false}', False),
            ({"n": True}, '{"n": true}', True),
            ({"n": None}, '{"n": null}', True),
            ({"n": None}, "{}", False),
            ({"n": None}, '{"n": false}', False),
            ([1, True], "[1.0, true]", True),
            ([True, 1], "[1, true]", False),
            # tuples are arrays
            ((1, 2), "[1, 2]", True),
            ({"a": (1, (2.0,))}, '{"a": [1.0, [2]]}', True),
            ((1,), "[1, 2]", False),
            ((), "[]", True),
            # parts
            ({"a": {"b": 1}}, '{"a": {"b": 1.0, "c": 2}, "d": 3}', True),
            ({"a": [{"b": 1}]}, '{"a": [{"b": 1, "c": 2}]}', True),
            ({}, '{"a": 1}', True),
            ({}, "[]", False),
            ([], "{}", False),
            (OrderedDict(a=1), '{"a": 1}', True),
            # names as `json.dumps` has them
            ({1: "x"}, '{"1": "x"}', True),
            ({None: "y"}, '{"null": "y"}', True),
            ({True: "z"}, '{"true": "z"}', True),
            ({Text.A: 1}, '{"a": 1}', True),
            # values of enumerations
            ({"a": Text.A, "b": Plain.ONE, "c": Number.ONE}, '{"a": "a", "b": 1, "c": 1.0}', True),
            # looser ones
            ({"a": re.compile(r"^\d+$")}, '{"a": "12"}', True),
            ({"a": re.compile(r"^\d+$")}, '{"a": 12}', False),
            ({"a": ANY}, '{"a": [1]}', True),
            ({"a": ANY}, "{}", False),
            (None, "null", True),
            (1, "1.0", True),
            ("x", '"x"', True),
            # what came is no JSON
            ({"a": 1}, "", False),
            ({"a": 1}, "{", False),
            ({"a": 1}, b"\xff", False),
            ({"a": 1}, "[" * 100_000, False),
            ({"a": 1}, '{"a": ' + "9" * 5000 + "}", False),
        ],
    )
    async def test_a_part(self, wanted: Any, body: Any, expected: bool) -> None:
        assert await fits({"json": wanted}, body=body) == expected

    @pytest.mark.parametrize(
        ("wrong", "error", "why"),
        [
            (
                {"at": datetime.datetime(2026, 1, 1)},
                TypeError,
                r"`json`\['at'\] .* datetime; hint: its `isoformat\(\)`",
            ),
            (
                {"a": [{"b": {1}}]},
                TypeError,
                r"`json`\['a'\]\[0\]\['b'\] has a type that JSON does not have: set; hint: a list",
            ),
            ({"a": b"x"}, TypeError, "bytes; hint: `content`"),
            ({"a": ID}, TypeError, r"UUID; hint: its `str\(\)`"),
            ({"a": Path("x")}, TypeError, r"hint: its `str\(\)`"),
            ({"a": object()}, TypeError, "object; hint: what `json.dumps` takes"),
            ({("a",): 1}, TypeError, "a member's name in `json` must be text, not tuple"),
            ({"a": float("nan")}, ValueError, "must be finite"),
            ({"a": float("inf")}, ValueError, "must be finite"),
            ({"a": re.compile(b"x")}, TypeError, "not of bytes"),
        ],
    )
    def test_what_json_has_not_is_refused_where_it_is_written(
        self, wrong: Any, error: type[Exception], why: str
    ) -> None:
        with pytest.raises(error, match=why):
            Upstream().post(URL, json=wrong)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        )
    )
    def test_all_json_has_itself(self, value: Any) -> None:
        assert has_part(json.loads(json.dumps(value)), value)

    async def test_what_was_wanted_is_not_changed_later(self) -> None:
        wanted = {"a": [1]}
        upstream = Upstream()
        upstream.post(URL, json=wanted)
        wanted["a"].append(2)
        assert (await call(upstream, wasgi.Request("POST", URL, body='{"a": [1]}'))).status == 200


class TestReports:
    async def test_whatever_was_wanted_can_be_shown(self) -> None:
        upstream = Upstream(allow_unused=True)
        upstream.post(
            URL,
            query={"page": 1, "all": [True, re.compile("x")]},
            headers={"x-a": [1, 2]},
            data={"f": 1.5},
            json={"n": Decimal("1.5"), "r": re.compile("^a"), "any": ANY},
        )
        with pytest.raises(errors.DestinationNotFound):
            await call(upstream, wasgi.Request("POST", f"{URL}?page=2", headers={"x-a": "2"}, body="f=1"))
        assert upstream.complaints() == [
            f"no route matches a request of the component: POST {URL}?page=2\n"
            f"the nearest route is: POST {URL} with query page=1, query all=true, /x/, header x-a: 1, 2, data f=1.5, "
            'json {"n": 1.5, "r": "/^a/", "any": "(anything)"}\n'
            "  query 'page'\n    wanted  1\n    came    '2'\n"
            "  query 'all'\n    wanted  true, /x/\n    came    nothing\n"
            "  header 'x-a'\n    wanted  1, 2\n    came    '2'\n"
            "  data 'f'\n    wanted  1.5\n    came    '1'\n"
            '  json\n    wanted  {"n": 1.5, "r": "/^a/", "any": "(anything)"}\n    came    b\'f=1\', which is not JSON'
        ]

    @pytest.mark.parametrize(
        ("body", "headers", "text"),
        [
            (b"\xff", {}, "\ufffd"),
            (b"\xe9", {"content-type": "text/plain; charset=latin-1"}, "é"),
            (b"\xc3\xa9", {"content-type": "text/plain; charset=no-such"}, "é"),
        ],
    )
    async def test_the_text_of_a_request_never_raises(self, body: bytes, headers: dict[str, str], text: str) -> None:
        upstream = Upstream()
        upstream.any()
        await call(upstream, wasgi.Request("POST", URL, body=body, headers=headers))
        assert upstream.calls[0].request.text == text
