"""Secrets in cassettes: never written down, of the form that they had, and the same wherever they stand."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import zlib
from collections.abc import Callable, Sequence
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wasgi
from tests.conftest import AppMaker, get
from wasgi import errors
from wasgi.outgoing import call
from wasgi.testing import Cassette
from wasgi.testing.placeholders import Collected, Replaced, placeholders
from wasgi.testing.redaction import Message, Places

URL = "https://api.example.com"
Answer = Callable[[wasgi.Request], wasgi.Response]


def request(method: str = "GET", path: str = "/", **options: Any) -> wasgi.Request:
    return wasgi.Request(method, URL + path, **options)


def always(**options: Any) -> Answer:
    return lambda _: wasgi.Response(**options)


async def recorded(
    path: Path, upstream: Answer, requests: Sequence[wasgi.Request], **options: Any
) -> list[dict[str, Any]]:
    """The exchanges of a cassette."""
    recorder = Cassette(path, upstream, record=True, **options)
    for one in requests:
        await (await call(recorder, one)).aread()
    recorder.save()
    exchanges: list[dict[str, Any]] = json.loads(text_of(path))["exchanges"]
    return exchanges


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def field(message: dict[str, Any], name: str) -> str:
    return next(str(value) for other, value in message["headers"] if other == name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cassette.json"


PRESIGNED = "https://bucket.example/f?x=1&sig=hush-hush%2F1&y=2"


class TestUrlsElsewhere:
    """Presigned URLs, links to the next page: wherever they stand, their queries are those of URLs."""

    @pytest.mark.parametrize(
        "content",
        [
            json.dumps({"download": PRESIGNED}),
            json.dumps([f"see {PRESIGNED}."]),
            "let link = " + json.dumps(PRESIGNED).replace("&", "\\u0026"),
            f"{{not JSON: {PRESIGNED}, that is}}",
            f'<a href="{PRESIGNED}">x</a>',
            f'<a href="{PRESIGNED.replace("&", "&amp;")}">x</a>',
            PRESIGNED.replace("?x=1&", "#"),
            f"data: {PRESIGNED}\n\n",
            "https://bucket.example/f?Sig=hush-hush%2F1",
        ],
    )
    async def test_in_a_body(self, path: Path, content: str) -> None:
        (exchange,) = await recorded(path, always(body=content), [request()])
        assert "hush" not in text_of(path)
        assert re.sub(r"wasgi-secret-\d+", "hush-hush%2F1", exchange["response"]["body"]) == content

    async def test_in_a_field_and_a_trailer(self, path: Path) -> None:
        link = [("link", f"<{PRESIGNED}>; rel=next")]
        (exchange,) = await recorded(path, always(headers=link, body=b"", trailers=link), [request()])
        assert "hush" not in text_of(path)
        assert field(exchange["response"], "link").endswith("&y=2>; rel=next")

    async def test_in_an_error(self, path: Path) -> None:
        def fails(_: wasgi.Request) -> wasgi.Response:
            raise errors.InternalError(f"{PRESIGNED} is not there")

        recorder = Cassette(path, fails, record=True)
        with pytest.raises(errors.InternalError):
            await call(recorder, request())
        recorder.save()
        assert "hush" not in text_of(path)
        with pytest.raises(errors.InternalError, match="&y=2 is not there"):
            await call(Cassette(path), request())

    async def test_a_request_that_has_one_is_found_in_replay(self, path: Path) -> None:
        sent = request("POST", body=json.dumps({"from": PRESIGNED}))
        await recorded(path, always(body="done"), [sent])
        other = request("POST", body=json.dumps({"from": PRESIGNED.replace("hush", "loud")}))
        assert await (await call(Cassette(path), other)).aread() == b"done"

    async def test_other_names_stay(self, path: Path) -> None:
        text = "https://a/?design=hush-hush&x=sig=2 sig=hush-hush"
        (exchange,) = await recorded(path, always(body=text), [request()])
        assert exchange["response"]["body"] == text


class TestFields:
    @pytest.mark.parametrize(
        ("name", "value", "form"),
        [
            ("authorization", "Bearer hush-hush", r"Bearer wasgi-secret-\d+"),
            ("authorization", "bearer  hush-hush", r"bearer  wasgi-secret-\d+"),
            ("proxy-authorization", "Token hush-hush", r"Token wasgi-secret-\d+"),
            ("authorization", "hush-hush", r"wasgi-secret-\d+"),
            ("authorization", "Bearer aHVzaA==", r"Bearer wasgi-secret-\d+"),
            ("authorization", 'Bearer "hush hush"', r"Bearer wasgi-secret-\d+"),
            ("x-api-key", "hush hush", r"wasgi-secret-\d+"),
            ("x-api-key", "Bearer hush", r"Bearer wasgi-secret-\d+"),
            ("x-api-key", "", ""),
            (
                "authorization",
                'Digest username="hush", realm="a, b", nonce="hush-2", uri="/x?a=b", qop=auth, nc=00000001, '
                'response="hush3"',
                r'Digest username="wasgi-secret-\d+", realm="a, b", nonce="wasgi-secret-\d+", uri="/x\?a=b", qop=auth, '
                r'nc=00000001, response="wasgi-secret-\d+"',
            ),
            (
                "authorization",
                "AWS4-HMAC-SHA256 Credential=hush/20260101/eu/s3/aws4_request, SignedHeaders=host;date, Signature=hush",
                r"AWS4-HMAC-SHA256 Credential=wasgi-secret-\d+, SignedHeaders=host;date, Signature=wasgi-secret-\d+",
            ),
            ("cookie", "sid=hush; lang=hush2", r"sid=wasgi-secret-\d+; lang=wasgi-secret-\d+"),
            ("cookie", 'a="hush";b=hush=2;c=', r'a="wasgi-secret-\d+";b=wasgi-secret-\d+;c='),
            ("cookie", "hush", r"wasgi-secret-\d+"),
            ("cookie", "a=hush;  hush; b", r"a=wasgi-secret-\d+;  wasgi-secret-\d+; wasgi-secret-\d+"),
        ],
    )
    async def test_of_requests(self, path: Path, name: str, value: str, form: str) -> None:
        (exchange,) = await recorded(path, always(), [request(headers={name: value})])
        assert re.fullmatch(form, field(exchange["request"], name))
        assert "hush" not in text_of(path)
        player = Cassette(path)
        assert (await call(player, request(headers={name: value.replace("hush", "other")}))).status == 200
        assert player.complaints() == []

    @pytest.mark.parametrize(
        ("value", "form"),
        [
            ("sid=hush; Path=/; HttpOnly; SameSite=Lax", r"sid=wasgi-secret-1; Path=/; HttpOnly; SameSite=Lax"),
            (
                "sid=hush; Expires=Thu, 26 Nov 2026 15:00:00 GMT; Max-Age=60; Domain=example.com; Secure",
                r"sid=wasgi-secret-1; Expires=Thu, 26 Nov 2026 15:00:00 GMT; Max-Age=60; Domain=example\.com; Secure",
            ),
            ("sid=; Max-Age=0", r"sid=; Max-Age=0"),
            ('sid="hush"', r'sid="wasgi-secret-1"'),
            ("__Host-sid=hush%3D;path=/", r"__Host-sid=wasgi-secret-1;path=/"),
        ],
    )
    async def test_set_cookie(self, path: Path, value: str, form: str) -> None:
        (exchange,) = await recorded(path, always(headers={"set-cookie": value}), [request()])
        assert re.fullmatch(form, field(exchange["response"], "set-cookie"))
        assert "hush" not in text_of(path)
        assert list(SimpleCookie(field(exchange["response"], "set-cookie"))) == list(SimpleCookie(value))

    async def test_basic_is_basic(self, path: Path) -> None:
        def basic(user: str, password: str) -> dict[str, str]:
            return {"authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}

        (exchange,) = await recorded(path, always(), [request(headers=basic("ada", "hush:hush"))])
        scheme, _, given = field(exchange["request"], "authorization").partition(" ")
        user, colon, password = base64.b64decode(given).decode().partition(":")
        assert (scheme, colon) == ("Basic", ":")
        assert re.fullmatch(r"wasgi-secret-\d+", user)
        assert re.fullmatch(r"wasgi-secret-\d+", password)
        assert (await call(Cassette(path), request(headers=basic("other", "more")))).status == 200
        with pytest.raises(errors.DestinationNotFound):
            await call(Cassette(path), request(headers={"authorization": "Bearer x"}))

    async def test_basic_is_found_encoded(self, path: Path) -> None:
        """An echo of it is of the same stand-ins, and of what is sent when it is played."""

        def answer(asked: wasgi.Request) -> wasgi.Response:
            given = asked.headers["authorization"]
            echo = {"headers": {"Authorization": given}, "bare": given.split()[1], "unpadded": given.rstrip("=")}
            headers = {"x-echo": given, "content-type": "application/json"}
            return wasgi.Response(body=json.dumps(echo), headers=headers)

        def asking(value: bytes) -> wasgi.Request:
            return request(headers={"authorization": f"Basic {base64.b64encode(value).decode()}"})

        (exchange,) = await recorded(path, answer, [asking(b"user:pa55word")])
        assert "dXNlcjpwYTU1d29yZA" not in text_of(path)
        given = field(exchange["request"], "authorization")
        assert base64.b64decode(given.split()[1]) == b"wasgi-secret-1:wasgi-secret-2"
        assert field(exchange["response"], "x-echo") == given
        expected = {"headers": {"Authorization": given}, "bare": given.split()[1], "unpadded": given.rstrip("=")}
        assert json.loads(exchange["response"]["body"]) == expected
        response = await call(Cassette(path), asking(b"ada:other"))
        assert response.headers["x-echo"] == "Basic YWRhOm90aGVy"
        assert json.loads(await response.aread())["bare"] == "YWRhOm90aGVy"

    @pytest.mark.parametrize("password", ["", "x", "x-oauth-basic", "api_token"])
    async def test_without_a_password_the_user_is_the_secret(self, path: Path, password: str) -> None:
        key = base64.b64encode(f"sk_live_12345:{password}".encode()).decode()
        answer = always(body="the key sk_live_12345 is of x", headers={"content-type": "text/plain"})
        (exchange,) = await recorded(path, answer, [request(headers={"authorization": f"Basic {key}"})])
        assert "sk_live_12345" not in text_of(path)
        assert exchange["response"]["body"] == "the key wasgi-secret-1 is of x"
        assert key not in text_of(path)

    async def test_with_a_password_the_user_is_a_name(self, path: Path) -> None:
        headers = {"authorization": f"Basic {base64.b64encode(b'adalovelace:pa55word').decode()}"}
        answer = always(body="adalovelace has pa55word", headers={"content-type": "text/plain"})
        (exchange,) = await recorded(path, answer, [request(headers=headers)])
        assert exchange["response"]["body"] == "adalovelace has wasgi-secret-2"

    async def test_several_of_one_name(self, path: Path) -> None:
        headers = [("set-cookie", "a=hush1; Path=/"), ("set-cookie", "b=hush2")]
        (exchange,) = await recorded(path, always(headers=headers), [request()])
        cookies = [value for name, value in exchange["response"]["headers"] if name == "set-cookie"]
        assert cookies == ["a=wasgi-secret-1; Path=/", "b=wasgi-secret-2"]

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ({"authorization": "Bearer x"}, {"authorization": "Token x"}),
            ({"cookie": "a=1; b=2"}, {"cookie": "a=1"}),
            ({"cookie": "a=1"}, {"cookie": "b=1"}),
            ({"x-api-key": "a"}, {}),
            ({}, {"x-api-key": "a"}),
        ],
    )
    async def test_another_form_is_another_request(
        self, path: Path, before: dict[str, str], after: dict[str, str]
    ) -> None:
        await recorded(path, always(), [request(headers=before)])
        with pytest.raises(errors.DestinationNotFound):
            await call(Cassette(path), request(headers=after))

    async def test_of_trailers(self, path: Path) -> None:
        (exchange,) = await recorded(path, always(body="x", trailers={"x-api-key": "hush"}), [request()])
        assert exchange["response"]["trailers"] == [["x-api-key", "wasgi-secret-1"]]

    async def test_of_names_that_a_test_gives(self, path: Path) -> None:
        headers = {"X-Custom-Authorization": "Bearer hush", "X-Key": "hush2", "authorization": "Bearer shown"}
        options = {"secret": ["x-custom-authorization", "X-KEY"]}
        (exchange,) = await recorded(path, always(), [request(headers=headers)], **options)
        assert [value for _, value in exchange["request"]["headers"]] == [
            "Bearer wasgi-secret-1",
            "wasgi-secret-2",
            "Bearer shown",
        ]
        for name in ("secret", "secret_query", "secret_body"):
            with pytest.raises(TypeError, match="names of secrets must be a list: 'x-key'"):
                Cassette(path, always(), **{name: "x-key"})  # type: ignore[arg-type]


class TestUrlsAndBodies:
    async def test_queries(self, path: Path) -> None:
        target = "/p;x?a=1&access_token=hush%20hush&b&KEY=hush&key=&a=%2F"
        (exchange,) = await recorded(path, always(), [request(path=target)], secret_query=["key", "access_token"])
        assert exchange["request"]["url"] == (
            f"{URL}/p;x?a=1&access_token=wasgi-secret-1&b&KEY=wasgi-secret-2&key=&a=%2F"
        )
        options: Any = {"secret_query": ["key", "access_token"]}
        other = target.replace("hush", "an%26other")
        assert (await call(Cassette(path, **options), request(path=other))).status == 200
        with pytest.raises(errors.DestinationNotFound):
            await call(Cassette(path, **options), request(path=target.replace("a=1", "a=2")))

    async def test_queries_in_fields(self, path: Path) -> None:
        answer = always(status=302, headers={"location": "https://b.example/cb?access_token=hush&state=1#frag"})
        (exchange,) = await recorded(path, answer, [request()])
        assert field(exchange["response"], "location") == (
            "https://b.example/cb?access_token=wasgi-secret-1&state=1#frag"
        )

    async def test_fragments_in_fields(self, path: Path) -> None:
        answer = always(status=302, headers={"location": "https://b.example/cb#access_token=hush&state=1"})
        (exchange,) = await recorded(path, answer, [request()])
        assert field(exchange["response"], "location") == "https://b.example/cb#access_token=wasgi-secret-1&state=1"

    @pytest.mark.parametrize(
        "name", ["access_token", "api_key", "apikey", "token", "sig", "signature", "password", "client_secret"]
    )
    async def test_names_that_are_secret_by_themselves(self, path: Path, name: str) -> None:
        (exchange,) = await recorded(path, always(body="x"), [request(path=f"/?{name.upper()}=hush-hush&q=1")])
        assert exchange["request"]["url"] == f"{URL}/?{name.upper()}=wasgi-secret-1&q=1"
        assert (await call(Cassette(path), request(path=f"/?{name.upper()}=other&q=1"))).status == 200

    @pytest.mark.parametrize(
        "kind",
        [
            "text/plain;charset=UTF-8",
            "text/plain",
            "text/json",
            "text/html",
            "application/json",
            "application/problem+json",
            "application/vnd.api+json; charset=utf-8",
            "application/x-www-form-urlencoded",
            "application/octet-stream",
            None,
        ],
    )
    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ('{"password": "hush-1"}', '{"password": "wasgi-secret-1"}'),
            (' \n[{"password": "hush-1"}]\n', ' \n[{"password": "wasgi-secret-1"}]\n'),
            ('\ufeff{"password": "hush-1"}', '\ufeff{"password": "wasgi-secret-1"}'),
            (
                '{"a": 1, "password": "hush-1"}\r\n\r\n{"password": "hush-2"}\r\n',
                '{"a": 1, "password": "wasgi-secret-1"}\r\n\r\n{"password": "wasgi-secret-2"}\r\n',
            ),
        ],
        ids=["object", "array", "mark", "lines"],
    )
    async def test_json_however_it_is_labelled(self, path: Path, kind: str | None, body: str, expected: str) -> None:
        headers = {"content-type": kind} if kind is not None else {}
        (exchange,) = await recorded(
            path, always(body=body, headers=headers), [request("POST", headers=headers, body=body)]
        )
        assert "hush" not in text_of(path)
        assert (exchange["request"]["body"], exchange["response"]["body"]) == (expected, expected)
        other = request("POST", headers=headers, body=body.replace("hush", "other"))
        assert (await call(Cassette(path), other)).status == 200
        with pytest.raises(errors.DestinationNotFound):
            more = body.replace('"password"', '"other"')
            await call(Cassette(path), request("POST", headers=headers, body=more))

    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            ("application/x-ndjson", '{"token": "hush-1"}\n{"token": "hush-2"}'),
            ("application/jsonl", '{"token": "hush-1"}\n[{"token": "hush-2"}]\n'),
            ("application/json-seq", '\x1e{"token": "hush-1"}\n\x1e{"token": "hush-2"}\n'),
            ("text/event-stream", 'event: a\ndata: {"token": "hush-1"}\n\ndata:{"token": "hush-2"}\n\n'),
            ("text/plain", 'a log:\n{"token": "hush-1"}\n{"broken": \n{"token": "hush-2"} \n{"more"}'),
        ],
    )
    async def test_lines_of_json(self, path: Path, kind: str, body: str) -> None:
        answer = always(body=body, headers={"content-type": kind})
        (exchange,) = await recorded(path, answer, [request()])
        expected = body.replace("hush-1", "wasgi-secret-1").replace("hush-2", "wasgi-secret-2")
        assert exchange["response"]["body"] == expected

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "utf-8-sig"])
    async def test_json_in_other_encodings(self, path: Path, encoding: str) -> None:
        body = '{"password": "hush-é", "é": 1}'.encode(encoding)
        answer = always(body=body, headers={"content-type": "application/json", "content-length": str(len(body))})
        await recorded(path, answer, [request("POST", body=body)])
        response = await call(Cassette(path), request("POST", body='{"password": "x", "é": 1}'.encode(encoding)))
        again = await response.aread()
        assert again == '{"password": "x", "é": 1}'.encode(encoding)
        for written in json.loads(text_of(path))["exchanges"][0].values():
            packed = written["body"]
            content = packed.encode() if isinstance(packed, str) else base64.b64decode(packed["base64"])
            assert content == '{"password": "wasgi-secret-1", "é": 1}'.encode(encoding)

    @pytest.mark.parametrize("kind", ["text/plain;charset=UTF-8", "application/octet-stream", None])
    @pytest.mark.parametrize("end", ["", "\n"])
    async def test_forms_that_no_label_tells_of(self, path: Path, kind: str | None, end: str) -> None:
        headers = {"content-type": kind} if kind is not None else {}
        body = f"grant_type=password&username=ada&password=hush+%26&x=%C3%A9{end}"
        (exchange,) = await recorded(path, always(), [request("POST", headers=headers, body=body)])
        assert exchange["request"]["body"] == body.replace("hush+%26", "wasgi-secret-1")
        other = request("POST", headers=headers, body=body.replace("hush", "other"))
        assert (await call(Cassette(path), other)).status == 200

    @pytest.mark.parametrize("body", ["a password=hush", "1=1&password", "{password=hush}&", b"\0\1password=hush"])
    async def test_what_is_no_form_is_left_as_it_is(self, path: Path, body: str | bytes) -> None:
        await recorded(path, always(body=body), [request()])
        content = body if isinstance(body, bytes) else body.encode()
        assert await (await call(Cassette(path), request())).aread() == content

    async def test_fields_in_json(self, path: Path) -> None:
        """Services that echo requests tell fields by their names, as text or as lists."""
        echo = {"Cookie": "lang=en; sid=ab", "Authorization": ["Bearer ab", "Token cd"], "Accept": "text/plain"}
        more = {"cookie": {"lang": "en"}, "x-api-key": ""}
        body = json.dumps({"headers": echo, "more": more})
        (exchange,) = await recorded(path, always(body=body), [request()])
        assert json.loads(exchange["response"]["body"]) == {
            "headers": {
                "Cookie": "lang=wasgi-secret-1; sid=wasgi-secret-2",
                "Authorization": ["Bearer wasgi-secret-2", "Token wasgi-secret-3"],
                "Accept": "text/plain",
            },
            "more": more,
        }

    JSON = (
        '{ "user":"ada","password" : "hu\\"sh" , "n":1.50,"deep":[{"Refresh_Token":"hush2","pin":1234},'
        '[true,null,-0.5e3]],"access_token":{"a":"hush3","b":["hush4",12345.5],"c":null},"\\u00e9":"\\u00e9","x":"é"}'
    )

    async def test_json(self, path: Path) -> None:
        answer = always(body=self.JSON, headers={"content-type": "application/json", "content-length": "213"})
        sent = request("POST", headers={"content-type": "application/vnd.api+json"}, body=self.JSON)
        (exchange,) = await recorded(
            path, answer, [sent], secret_body=["password", "refresh_token", "access_token", "pin"]
        )
        expected = (
            self.JSON.replace('hu\\"sh', "wasgi-secret-1")
            .replace("hush2", "wasgi-secret-2")
            .replace("1234}", "999993}")
            .replace("hush3", "wasgi-secret-4")
            .replace("hush4", "wasgi-secret-5")
            .replace("12345.5", "9999996")
        )
        assert exchange["request"]["body"] == expected
        assert exchange["response"]["body"] == expected
        json.loads(expected)

    async def test_what_is_sent_as_json_is_matched_but_for_secrets(self, path: Path) -> None:
        await recorded(path, always(), [request("POST", body='{"password": "hush", "a": 1}')])
        assert (await call(Cassette(path), request("POST", body='{"password": "x", "a": 1}'))).status == 200
        assert (await call(Cassette(path), request("POST", body='{"password": "\\u00e9\\"", "a": 1}'))).status == 200
        for body in ('{"password": "x", "a": 2}', '{"password": 1, "a": 1}', '{"password": "", "a": 1}', "{}", ""):
            with pytest.raises(errors.DestinationNotFound):
                await call(Cassette(path), request("POST", body=body))

    async def test_forms(self, path: Path) -> None:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        body = "grant_type=password&username=ada&password=hush+%26&client_secret=hush2&x=%C3%A9+1"
        (exchange,) = await recorded(
            path, always(body=body, headers=headers), [request("POST", headers=headers, body=body)]
        )
        expected = body.replace("hush+%26", "wasgi-secret-1").replace("hush2", "wasgi-secret-2")
        assert (exchange["request"]["body"], exchange["response"]["body"]) == (expected, expected)
        other = body.replace("hush", "%3Dother")
        assert (await call(Cassette(path), request("POST", headers=headers, body=other))).status == 200

    @pytest.mark.parametrize("body", ["{", "[" * 50_000, '{"password": }', "password=hush", ""])
    async def test_what_is_no_json_is_left_as_it_is(self, path: Path, body: str) -> None:
        answer = always(body=body, headers={"content-type": "application/json"})
        (exchange,) = await recorded(path, answer, [request()])
        assert exchange["response"]["body"] == body

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "Password", ""]), inner),
        ),
        st.sampled_from([None, 1]),
    )
    def test_json_is_the_same_but_for_secrets(self, value: Any, indent: int | None) -> None:
        def expected(value: Any, is_secret: bool = False) -> Any:
            match value:
                case dict():
                    return {name: expected(one, is_secret or name == "Password") for name, one in value.items()}
                case list():
                    return [expected(one, is_secret) for one in value]
                case None | bool() | "":
                    return value
                case str():
                    return texts[value] if is_secret else value
            return json.loads(texts[json.dumps(value)]) if is_secret else value

        body = json.dumps(value, indent=indent).encode()
        places = Places.of((), (), ["PASSWORD"])
        message, found = Message("", [["content-type", "application/json"]], body), Collected()
        assert places.walk(message, found) == message
        texts = placeholders(found.values)
        walked = places.walk(message, Replaced(texts, lambda _: False)).body
        assert json.loads(walked) == expected(value)

    @pytest.mark.parametrize(
        ("coding", "pack", "unpack"),
        [
            ("gzip", gzip.compress, gzip.decompress),
            ("x-gzip", gzip.compress, gzip.decompress),
            ("deflate", zlib.compress, zlib.decompress),
        ],
    )
    async def test_compressed_bodies(self, path: Path, coding: str, pack: Any, unpack: Any) -> None:
        headers = {"content-type": "application/json", "content-encoding": coding}
        answer = always(body=pack(b'{"access_token": "hush-hush"}'), headers=headers)
        await recorded(path, answer, [request()])
        response = await call(Cassette(path), request())
        assert unpack(await response.aread()) == b'{"access_token": "wasgi-secret-1"}'
        assert response.headers["content-encoding"] == coding

    async def test_what_says_it_is_compressed(self, path: Path) -> None:
        await recorded(path, always(body=b"x", headers={"content-encoding": "gzip"}), [request()])
        assert await (await call(Cassette(path), request())).aread() == b"x"


class TestTheSameEverywhere:
    async def test_echoes(self, path: Path) -> None:
        """In URLs, fields, JSON, forms, text and bytes, before and after it is known for a secret."""
        secret = "s3cr3t/+é&"
        key = {"x-api-key": secret}

        def answer(asked: wasgi.Request) -> wasgi.Response:
            match asked.path:
                case "/json":
                    return wasgi.Response(body=json.dumps({"key": secret, "more": f"a {secret} b"}))
                case "/text":
                    return wasgi.Response(body=f"is {secret}.", headers={"content-type": "text/plain"})
                case "/bytes":
                    return wasgi.Response(body=b"\xff\0s3cr3t-2\xff")
                case "/fail":
                    raise errors.InternalError(f"about {secret}")
            return wasgi.Response(headers={"x-echo": secret}, trailers={"x-sum": f"={secret}"})

        recorder = Cassette(path, answer)
        quoted = "s3cr3t%2F%2B%C3%A9%26"
        for one in (
            request(path="/json"),
            request(path=f"/q?x={quoted}&y=z%20{quoted}"),
            request(path=f"/p/{quoted}/more"),
            request("POST", "/form", body=f"a={quoted}", headers={"content-type": "application/x-www-form-urlencoded"}),
            request(path="/text"),
            request(path="/bytes", headers={"authorization": "Bearer s3cr3t-2"}),
            request(path="/last", headers=key),
        ):
            await (await call(recorder, one)).aread()
        with pytest.raises(errors.InternalError):
            await call(recorder, request(path="/fail"))
        recorder.save()
        text = text_of(path)
        for spelling in (secret, quoted, "s3cr3t", quoted.lower()):
            assert spelling not in text
        exchanges = json.loads(text)["exchanges"]
        stand = field(exchanges[6]["request"], "x-api-key")
        assert json.loads(exchanges[0]["response"]["body"]) == {"key": stand, "more": f"a {stand} b"}
        assert exchanges[1]["request"]["url"] == f"{URL}/q?x={stand}&y=z%20{stand}"
        assert exchanges[2]["request"]["url"] == f"{URL}/p/{stand}/more"
        assert exchanges[3]["request"]["body"] == f"a={stand}"
        assert exchanges[4]["response"]["body"] == f"is {stand}."
        assert base64.b64decode(exchanges[5]["response"]["body"]["base64"]) == b"\xff\0wasgi-secret-1\xff"
        assert field(exchanges[6]["response"], "x-echo") == stand
        assert exchanges[6]["response"]["trailers"] == [["x-sum", f"={stand}"]]
        assert exchanges[7]["error"]["payload"] == [f"about {stand}"]

    async def test_cookies_are_found_decoded(self, path: Path) -> None:
        answer = always(headers={"set-cookie": "sid=s%3Aabc123"}, body='{"sid": "s:abc123"}')
        (exchange,) = await recorded(path, answer, [request()])
        assert exchange["response"]["body"] == '{"sid": "wasgi-secret-1"}'

    async def test_two_secrets_are_two(self, path: Path) -> None:
        requests = [request(headers={"authorization": f"Bearer {name}"}) for name in ("ada-1", "eve-1", "ada-1")]
        exchanges = await recorded(path, always(), requests)
        stands = [field(exchange["request"], "authorization") for exchange in exchanges]
        assert stands[0] == stands[2] != stands[1]

    async def test_short_words_are_not_searched_for(self, path: Path) -> None:
        """They would be found by chance, and what they are part of would be destroyed."""
        headers = {"cookie": "lang=en; theme=dark; n=1", "x-api-key": "abc"}
        answer = always(body='{"lang": "en", "theme": "dark", "n": 1, "one": "1", "abc": "abcd"}')
        (exchange,) = await recorded(path, answer, [request(path="/1?en=dark", headers=headers)])
        assert exchange["request"]["url"] == f"{URL}/1?en=dark"
        assert exchange["response"]["body"] == '{"lang": "en", "theme": "dark", "n": 1, "one": "1", "abc": "abcd"}'

    @pytest.mark.parametrize(
        ("headers", "is_hidden"),
        [
            ({"cookie": "a=ab12"}, True),
            ({"cookie": "a=1234"}, False),
            ({"cookie": "a=abcd"}, False),
            ({"cookie": "a=abcdef"}, True),
            ({"cookie": "a=123456"}, True),
            ({"x-api-key": "abcd"}, True),
            ({"x-api-key": "----"}, False),
            ({"authorization": "Bearer ab1"}, False),
        ],
    )
    async def test_how_short_they_may_be(self, path: Path, headers: dict[str, str], is_hidden: bool) -> None:
        value = next(iter(headers.values())).removeprefix("a=").removeprefix("Bearer ")
        answer = always(body=f"<{value}>", headers={"content-type": "text/plain"})
        (exchange,) = await recorded(path, answer, [request(headers=headers)])
        assert (value not in exchange["response"]["body"]) == is_hidden

    async def test_long_ones_are_found_anywhere(self, path: Path) -> None:
        secret = "0rFk3-9sJd82-kdPw01-x"
        answer = always(body=f"the{secret}s", headers={"content-type": "text/plain"})
        (exchange,) = await recorded(path, answer, [request(headers={"x-api-key": secret})])
        assert exchange["response"]["body"] == "thewasgi-secret-1s"

    async def test_nor_are_parts_of_words(self, path: Path) -> None:
        answer = always(body="the keyboard has a key1 and a key12, key1.", headers={"content-type": "text/plain"})
        (exchange,) = await recorded(path, answer, [request(headers={"x-api-key": "key1"})])
        assert exchange["response"]["body"] == "the keyboard has a wasgi-secret-1 and a key12, wasgi-secret-1."

    @pytest.mark.parametrize("framed", [True, False])
    async def test_lengths_stay_true(self, path: Path, framed: bool) -> None:
        body = '{"access_token": "hush"}'
        headers = {"content-type": "application/json"} | ({"content-length": str(len(body))} if framed else {})
        await recorded(path, always(body=body, headers=headers), [request()])
        response = await call(Cassette(path), request())
        assert await response.aread() == b'{"access_token": "wasgi-secret-1"}'
        assert not framed or response.headers["content-length"] == "34"

    async def test_a_length_without_a_body_is_left(self, path: Path) -> None:
        await recorded(path, always(headers={"content-length": "24", "set-cookie": "a=hush"}), [request("HEAD")])
        assert json.loads(text_of(path))["exchanges"][0]["response"]["headers"][0] == ["content-length", "24"]

    async def test_numbers_and_tokens_keep_their_form(self, path: Path) -> None:
        def part(value: Any) -> str:
            return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

        claims = {"sub": "ada", "exp": 1_800_000_000, "iat": 1, "name": "hush"}
        values = {
            "number": "123456789",
            "uuid": "6f0b3c1e-58a2-4b8e-9d3f-0123456789ab",
            "hex": "0123456789abcdef0123456789abcdef",
            "jwt": f"{part({'alg': 'HS256'})}.{part(claims)}.c2lnbmF0dXJl",
        }
        cookies = "; ".join(f"{name}={value}" for name, value in values.items())
        (exchange,) = await recorded(path, always(), [request(headers={"cookie": cookies})])
        found = dict(pair.split("=", 1) for pair in field(exchange["request"], "cookie").split("; "))
        assert not set(found.values()) & set(values.values())
        assert re.fullmatch(r"\d{9}", found["number"])
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}", found["uuid"])
        assert re.fullmatch(r"[0-9a-f]{32}", found["hex"])
        header, payload, signature = (one + "=" * (-len(one) % 4) for one in found["jwt"].split("."))
        assert json.loads(base64.urlsafe_b64decode(header)) == {"alg": "HS256"}
        shown = json.loads(base64.urlsafe_b64decode(payload))
        assert {name: shown[name] for name in ("exp", "iat")} == {"exp": 1_800_000_000, "iat": 1}
        assert "hush" not in str(shown)
        assert "sub" not in shown
        assert b"wasgi-secret" in base64.urlsafe_b64decode(signature)


class TestReplay:
    def test_a_cookie_that_is_sent_back(self, app: AppMaker, path: Path) -> None:
        """The guest's own way: what it was given, it gives back."""
        jar: list[str] = []

        def login(asked: wasgi.Request) -> wasgi.Response:
            if asked.path == "/login":
                return wasgi.Response(headers={"set-cookie": "sid=abc123; Path=/; HttpOnly"}, body='{"sid": "abc123"}')
            assert asked.headers["cookie"] == "sid=abc123"
            return wasgi.Response(body="hello")

        def guest(cassette: Cassette) -> str:
            made = app(outgoing=cassette, simulation=cassette.world)
            body = made.handle(get(f"/fetch?url={URL}/login")).json()
            jar.append(body["sid"])
            return made.handle(get(f"/fetch?url={URL}/me&header=cookie:sid={body['sid']}")).text

        recorder = Cassette(path, login)
        assert guest(recorder) == "hello"
        recorder.save()
        assert "abc123" not in text_of(path)
        player = Cassette(path)
        assert guest(player) == "hello"
        assert player.complaints() == []
        assert jar == ["abc123", "wasgi-secret-1"]

    async def test_set_cookie_is_a_cookie(self, path: Path) -> None:
        await recorded(path, always(headers={"set-cookie": "sid=abc123; Path=/"}), [request()])
        response = await call(Cassette(path), request())
        assert SimpleCookie(response.headers["set-cookie"])["sid"].value == "wasgi-secret-1"

    async def test_what_was_sent_comes_back(self, path: Path) -> None:
        """A secret of the environment is another one on another machine; its echo is that one."""

        def answer(asked: wasgi.Request) -> wasgi.Response:
            key = asked.headers["x-api-key"]
            headers = {"x-you-sent": key, "content-type": "application/json"}
            return wasgi.Response(headers=headers, body=json.dumps({"key": key, "url": asked.url}))

        def asking(key: str) -> wasgi.Request:
            return request(path=f"/?me={key}", headers={"x-api-key": key})

        await recorded(path, answer, [asking("real-key-1")])
        for key in ("real-key-1", "dummy", "a-much-longer-key-than-that", "k"):
            response = await call(Cassette(path), asking(key))
            assert response.headers["x-you-sent"] == key
            assert json.loads(await response.aread()) == {"key": key, "url": f"{URL}/?me={key}"}

    async def test_who_is_who(self, path: Path) -> None:
        """Of two that have asked the same, each gets the own answers, in any order."""

        def answer(asked: wasgi.Request) -> wasgi.Response:
            return wasgi.Response(body=f"hello {asked.headers['authorization'][-3:]} at {asked.path}")

        def asking(who: str, where: str) -> wasgi.Request:
            return request(path=f"/{where}", headers={"authorization": f"Bearer token-{who}"})

        await recorded(path, answer, [asking("ada", "1"), asking("eve", "1"), asking("ada", "2"), asking("eve", "2")])
        player = Cassette(path)
        texts = [
            await (await call(player, asking(*one))).aread()
            for one in (("one", "1"), ("two", "1"), ("two", "2"), ("one", "2"))
        ]
        assert texts == [b"hello ada at /1", b"hello eve at /1", b"hello eve at /2", b"hello ada at /2"]

    async def test_reports_tell_no_secrets(self, path: Path) -> None:
        headers = {"authorization": "Bearer hush-1", "cookie": "a=hush-2"}
        await recorded(path, always(), [request("POST", headers=headers, body='{"password": "hush-3", "a": 1}')])
        player = Cassette(path)
        sent = request(
            "POST",
            "/other?access_token=hush-4",
            headers={"authorization": "Bearer hush-5", "cookie": "a=hush-6; b=hush-7"},
            body='{"password": "hush-8", "a": "hush-5"}',
        )
        with pytest.raises(errors.DestinationNotFound):
            await call(player, sent)
        (complaint,) = player.complaints()
        assert "hush" not in complaint
        assert "  -cookie: a=(secret)\n  +cookie: a=(secret); b=(secret)" in complaint
        assert "   authorization: Bearer (secret)" in complaint

    def test_of_the_first_version(self, path: Path) -> None:
        hidden = "(not recorded)"
        exchange = {
            "request": {
                "method": "GET",
                "url": f"{URL}/?key={hidden}&a=b",
                "headers": [["authorization", hidden], ["cookie", hidden], ["accept", "text/plain"]],
                "body": '{"password": "x"}',
            },
            "response": {"status": 201, "headers": [["set-cookie", hidden]], "body": "old", "trailers": None},
        }
        world = {"seed": 1, "now": 1.0}
        path.write_text(json.dumps({"wasgi-cassette": 1, "world": world, "exchanges": [exchange]}))

        async def ask(cassette: Cassette, accept: str = "text/plain") -> wasgi.Response:
            headers = {"authorization": "Bearer x", "cookie": "a=b; c=d", "accept": accept}
            return await call(cassette, request(path="/?key=x&a=b", headers=headers, body='{"password": "x"}'))

        player = Cassette(path, secret_query=["key"])
        response = asyncio.run(ask(player))
        assert (response.status, response.headers["set-cookie"]) == (201, hidden)
        with pytest.raises(errors.DestinationNotFound):
            asyncio.run(ask(Cassette(path, secret_query=["key"]), "text/html"))


async def test_nothing_is_left_beside_a_cassette_that_cannot_be_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Cassette(path, always())
    await call(recorder, request())

    def full(self: Path, *_: object, **__: object) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        recorder.save()
    assert list(path.parent.iterdir()) == []
