"""What a guest says reaches logs, errors, reports and error pages as one line that nobody obeys, and not all of it."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest

import wasgi
from tests import asgi_driver
from tests.conftest import AppMaker, bare, bare_text, get
from wasgi.errors import ERROR_CODES

FORGED = "bad\nINFO forged\r\x1b[2J\x00\x85\x9b1m\u2028\u2029\u202e\u2066\u200f."
TAMED = "bad\\nINFO forged\\r\\x1b[2J\\x00\\x85\\x9b1m\\u2028\\u2029\\u202e\\u2066\\u200f."

WITH_TEXT = {
    "DNS-error": "rcode",
    "TLS-alert-received": "alert_message",
    "HTTP-request-header-size": "field_name",
    "HTTP-request-trailer-size": "field_name",
    "HTTP-response-header-size": "field_name",
    "HTTP-response-trailer-size": "field_name",
    "HTTP-response-transfer-coding": "detail",
    "HTTP-response-content-coding": "detail",
    "internal-error": "detail",
}


def is_harmless(text: str) -> bool:
    return not any(unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") for character in text)


def of_code(name: str, text: str, times: int = 1) -> wasgi.Request:
    return get(f"/much?what=code&name={name}&times={times}&text={quote(text)}")


@pytest.mark.parametrize("name", WITH_TEXT)
def test_the_text_of_an_error_code_is_one_line(app: AppMaker, name: str) -> None:
    with pytest.raises(ERROR_CODES[name]) as raised:
        app().handle(of_code(name, FORGED))
    assert getattr(raised.value, WITH_TEXT[name]) == TAMED
    assert is_harmless(str(raised.value))
    assert "\nINFO forged" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("name", WITH_TEXT)
def test_the_text_of_an_error_code_is_cut(app: AppMaker, name: str) -> None:
    with pytest.raises(ERROR_CODES[name]) as raised:
        app().handle(of_code(name, "€", 300_000))
    assert getattr(raised.value, WITH_TEXT[name]) == "€" * 1365 + "… (895905 bytes more)"


def test_a_text_that_is_harmless_stays_as_it_is(app: AppMaker) -> None:
    with pytest.raises(ERROR_CODES["internal-error"]) as raised:
        app().handle(of_code("internal-error", "C:\\temp: 'Grüße', 世界"))
    assert str(raised.value) == "internal-error: C:\\temp: 'Grüße', 世界"


async def test_neither_the_log_nor_an_error_page_is_forged(app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "wasgi"):
        answer = await asgi_driver.get(app(debug=True), f"/much?what=code&text={quote(FORGED)}")
    text = answer.body.decode()
    assert answer.status == 502
    assert "forged" in text
    assert "\nINFO forged" not in text
    assert "\x1b" not in text
    formatter = logging.Formatter()
    logged = [formatter.format(record) for record in caplog.records if record.name.startswith("wasgi")]
    assert any("forged" in record for record in logged)
    for record in logged:
        assert not any(line.startswith("INFO forged") for line in record.splitlines())
        assert is_harmless(record.replace("\n", ""))


async def test_a_long_text_is_neither_logged_nor_sent(app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "wasgi"):
        answer = await asgi_driver.get(app(debug=True), "/much?what=code&text=x&times=1000000")
    text = answer.body.decode()
    assert answer.status == 502
    assert len(text) < 20_000
    formatter = logging.Formatter()
    assert all(len(formatter.format(record)) < 20_000 for record in caplog.records)


def test_last_words_are_one_line(app: AppMaker) -> None:
    with pytest.raises(wasgi.TrapError) as raised:
        app().handle(get(f"/long-line?to=stderr&then=trap&times=1&text={quote(FORGED.replace(chr(10), ''))}"))
    assert is_harmless(str(raised.value))
    assert TAMED.replace("\\n", "") in str(raised.value)
    assert all(is_harmless(line) for line in raised.value.stderr)


def test_records_of_lines_are_one_line_and_sinks_get_what_was_printed(
    app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
    printed = FORGED.replace("\n", "")
    request = f"/long-line?times=1&text={quote(printed)}"
    with caplog.at_level(logging.INFO, "wasgi.guest"):
        app().handle(get(request)).read()
    (record,) = (record for record in caplog.records if record.name == "wasgi.guest")
    assert is_harmless(record.getMessage())
    lines: list[str] = []
    app(stdout=lines.append).handle(get(request)).read()
    assert lines == [printed]


def mangled_to_be_long() -> str:
    """A name of some hundred bytes that says itself twice, that twice, and so on."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

    def back(to: int) -> str:
        number = ""
        to -= 1
        while to >= 62:
            to, digit = divmod(to, 62)
            number = digits[digit] + number
        return f"B{digits[to]}{number}_"

    name = "INvC1a1f"
    last = len(name)
    name += "TxxE"
    for _ in range(24):
        here = len(name)
        name += f"T{back(last)}{back(last)}E"
        last = here
    return f"_R{name}E"


NAMES = {
    "newlines and escapes": "first\\0aINFO forged\\1b[2J\\c2\\85\\e2\\80\\ae",
    "long": "n" * 1_000_000,
    "mangled": "_RNvC6_123foo3bar\\0aINFO forged",
    "mangled, and long when it is not": mangled_to_be_long(),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_functions_are_one_line_and_short(name: str) -> None:
    component = bare("(call $named)", f'(func $named (@name "{NAMES[name]}") unreachable)')
    with pytest.raises(wasgi.TrapError) as raised:
        wasgi.App(component).handle(get("/"))
    assert raised.value.backtrace
    for line in [str(raised.value), *raised.value.backtrace]:
        assert is_harmless(line), line
        assert len(line) < 2000


HANDLER = bare_text("").partition("(component")[2].rpartition(")")[0]
ODD = "a\\0aINFO forged\\1b[2J"
ODD_COMPONENTS = {
    "an import": f'(component (import "{ODD}" (func)) HANDLER)',
    "a url": f'(component (import "url=<https://a.b/{ODD}>" (func)) HANDLER)',
    "a long import": f'(component (import "x:y/z{"z" * 90_000}@1.0.0" (instance (export "x" (func)))) HANDLER)',
    "an export": f'(component HANDLER (export "{ODD}" (instance $handler)))',
    "a module": f'(component HANDLER (core module (func (export "{ODD}")) (func (export "{ODD}"))))',
    "a module's import": f"""(component HANDLER
        (core module $m (import "{ODD}" "{ODD}" (func))) (core instance (instantiate $m)))""",
}


@pytest.mark.parametrize("odd", ODD_COMPONENTS)
def test_names_in_a_component_are_one_line_and_short(odd: str, tmp_path: Path) -> None:
    """Whoever uploads it chooses them, and what is wrong with it is logged."""
    text = ODD_COMPONENTS[odd].replace("HANDLER", HANDLER)
    with pytest.raises(wasgi.ComponentError) as raised:
        wasgi.App(text.encode())
    assert is_harmless(str(raised.value))
    assert len(str(raised.value)) < 5000
    assert all(map(is_harmless, getattr(raised.value, "missing", [])))
    file = tmp_path / "odd.wat"
    file.write_text(text)
    done = subprocess.run([sys.executable, "-m", "wasgi", "inspect", str(file)], capture_output=True, text=True)
    for line in (done.stdout + done.stderr).splitlines():
        assert is_harmless(line)
        assert not line.startswith("INFO")


def test_an_error_in_a_components_text_shows_the_line() -> None:
    with pytest.raises(wasgi.InvalidComponentError, match=r"in text form.*\n.*2:3\n") as raised:
        wasgi.Component(b"(component\n (bogus))")
    assert "(bogus)" in str(raised.value)
