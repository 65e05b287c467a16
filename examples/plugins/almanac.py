"""A plug-in in Python: the month as a page, with the days marked on which notes were pinned to the board."""

import calendar
import datetime
import html
import json
from collections import Counter
from urllib.parse import parse_qs, urlsplit

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import outgoing_handler, poll
from wit_world.imports.streams import InputStream, StreamError_Closed
from wit_world.imports.wasi_http_types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingRequest,
    OutgoingResponse,
    ResponseOutparam,
    Scheme_Http,
)

STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#20242b, #e8e6e1); --paper: light-dark(#fff, #1d2026);
  --line: light-dark(#e2e4e8, #343943); --accent: light-dark(#b4451f, #ff9a6b) }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0; padding: 1.5rem }
header { display: flex; align-items: baseline; gap: 1rem; margin-bottom: 1rem } h1 { font-size: 1.25rem; margin: 0 }
a { color: var(--accent); text-decoration: none; font-size: 1.25rem }
table { border-collapse: separate; border-spacing: .25rem; table-layout: fixed; width: 100%; max-width: 34rem }
th { font-weight: 500; font-size: .8rem; opacity: .6 }
td { border: 1px solid var(--line); border-radius: .5rem; height: 2.6rem; text-align: center }
td.out { border-color: transparent } td.today { border-color: var(--accent); border-width: 2px }
td b { display: inline-block; background: var(--accent); color: var(--paper); border-radius: 1rem; padding: 0 .45rem;
  font-size: .75rem; margin-left: .3rem }
footer { opacity: .6; font-size: .8rem; margin-top: 1rem }
"""


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        query = parse_qs(urlsplit(request.path_with_query() or "/").query)
        today = datetime.date.today()
        try:
            month = datetime.date.fromisoformat(query["month"][0] + "-01") if "month" in query else today.replace(day=1)
            status, text = 200, page(month, today, pinned())
        except ValueError:
            status, text = 400, "<!doctype html><title>No such month</title>?month=2026-11"
        response = OutgoingResponse(Fields.from_list([("content-type", b"text/html; charset=utf-8")]))
        response.set_status_code(status)
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        content = text.encode()
        with body.write() as stream:
            for start in range(0, len(content), 4096):
                stream.blocking_write_and_flush(content[start : start + 4096])
        OutgoingBody.finish(body, None)


def pinned() -> Counter[str]:
    """How many notes there are of each day, as the store has them."""
    request = OutgoingRequest(Fields())
    request.set_scheme(Scheme_Http())
    request.set_authority("store.local")
    request.set_path_with_query("/notes")
    with outgoing_handler.handle(request, None) as future:
        with future.subscribe() as pollable:
            poll.poll([pollable])
        with future.get().value.value as response, response.consume() as body, body.stream() as stream:
            lines = read(stream).splitlines()
    return Counter(json.loads(line)["at"][:10] for line in lines)


def read(stream: InputStream) -> bytes:
    content = b""
    while True:
        try:
            content += stream.blocking_read(65536)
        except Err as error:
            if isinstance(error.value, StreamError_Closed):
                return content
            raise


def page(month: datetime.date, today: datetime.date, notes: Counter[str]) -> str:
    def cell(day: datetime.date) -> str:
        if day.month != month.month:
            return '<td class="out"></td>'
        mark = f"<b>{count}</b>" if (count := notes[day.isoformat()]) else ""
        return f"<td{' class=today' if day == today else ''}>{day.day}{mark}</td>"

    weeks = "".join(
        f"<tr>{''.join(map(cell, week))}</tr>" for week in calendar.Calendar().monthdatescalendar(month.year, month.month)
    )
    names = "".join(f"<th>{name}</th>" for name in calendar.day_abbr)
    before, after = month - datetime.timedelta(days=1), month + datetime.timedelta(days=31)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Almanac</title><style>{STYLE}</style>'
        f'<header><a href="?month={before:%Y-%m}" aria-label="before">&larr;</a><h1>{html.escape(f"{month:%B %Y}")}</h1>'
        f'<a href="?month={after:%Y-%m}" aria-label="after">&rarr;</a></header>'
        f"<table><tr>{names}</tr>{weeks}</table><footer>Python. The marks are the board's notes.</footer>"
    )
