"""The service of `examples/plugins`, served for real: with clients that do not stop as it changes, and in a browser."""

from __future__ import annotations

import contextlib
import datetime
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.conftest import HELLO, PROBE, ROOT, until
from tests.processes import free_port, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EXAMPLE = ROOT / "examples" / "plugins"


@contextlib.contextmanager
def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx2.Client]:
    port = free_port()
    monkeypatch.setenv("PLUGINS", str(folder))
    command = ["uvicorn", "tests.served_plugins:application", "--log-level", "error", "--port", str(port)]
    with (
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
        serving(command, lambda: client.get("/api/plugins").status_code == 200),
    ):
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "plugins"
    made.mkdir()
    shutil.copy(EXAMPLE / "components" / "board.wasm", made)
    return made


@pytest.fixture
def client(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx2.Client]:
    with served(folder, monkeypatch) as client:
        yield client


def put(client: httpx2.Client, name: str, component: Path) -> dict[str, Any]:
    answer = client.put(f"/api/plugins/{name}", content=component.read_bytes())
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_the_board(client: httpx2.Client) -> None:
    assert "Notice board" in client.get("/plugins/board/").text
    pinned = client.post("/plugins/board/", data={"name": "Ada", "text": "1 + 1 & more"})
    assert (pinned.status_code, pinned.headers["location"]) == (303, "./")
    counted = client.post("/plugins/board/upload?name=list.txt", content=b"line\n" * 100_000)
    assert counted.text == "500000 bytes, 100000 lines"
    with client.stream("GET", "/plugins/board/events", headers={"last-event-id": "1"}) as response:
        assert response.headers["content-type"] == "text/event-stream"
        lines = response.iter_lines()
        assert next(line for line in lines if line.startswith("id")) == "id: 2"
        assert '"text": "500000 bytes, 100000 lines"' in next(lines)
        client.post("/plugins/board/", data={"name": "Grace", "text": "now"})
        assert next(line for line in lines if line.startswith("id")) == "id: 3"
    assert client.post("/plugins/board/", data={"name": "Ada"}).status_code == 400
    assert client.post("/plugins/board/", content=b"name=" + b"x" * 1_000_000).status_code == 413
    until(lambda: client.get("/api/plugins").json()[0]["running"] == 0)


def test_hot_swap_drops_no_request(client: httpx2.Client) -> None:
    """Clients that never stop, a stream that began before the swap, and a new version ten times."""
    put(client, "changing", PROBE)
    over = threading.Event()
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        with httpx2.Client(base_url=client.base_url, timeout=30) as own:
            while not over.is_set():
                answer = own.get("/plugins/changing/hello")
                answers.append((answer.status_code, answer.text))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        with client.stream("GET", "/plugins/changing/slow-body?ms=2000") as old:
            chunks = old.iter_raw()
            assert next(chunks) == b"first"
            for version in range(2, 12):
                already = len(answers)
                assert put(client, "changing", HELLO if version % 2 == 0 else PROBE)["version"] == version
                until(lambda already=already: len(answers) > already + 4)  # type: ignore[misc]
            assert b"".join(chunks) == b"last", "of the version that it began with"
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert len(answers) > 50
    assert set(answers) == {(200, "Hello, World!")}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"<html>", "an HTML page"),
        (PROBE.read_bytes()[:50_000], "a truncated component"),
        (b"\0asm\1\0\0\0", "core WebAssembly module"),
        (
            b'(component (import "acme:kv/store" (instance (export "get" (func)))))',
            "`board.wasm`: the component imports",
        ),
    ],
    ids=["page", "truncated", "module", "import"],
)
def test_what_is_no_plugin_is_refused_and_changes_nothing(
    client: httpx2.Client, folder: Path, content: bytes, why: str
) -> None:
    answer = client.put("/api/plugins/board", content=content)
    assert answer.status_code == 422
    assert why in answer.json()["detail"]
    assert client.get("/api/plugins").json()[0]["version"] == 1
    assert client.get("/plugins/board/").status_code == 200
    assert [path.name for path in folder.iterdir()] == ["board.wasm"]


def test_names_sizes_and_removal(client: httpx2.Client, folder: Path) -> None:
    assert client.put("/api/plugins/Up..", content=HELLO.read_bytes()).status_code == 422
    assert client.put("/api/plugins/large", content=bytes((64 << 20) + 1)).status_code == 413
    assert client.get("/plugins/none/").status_code == 404
    assert client.delete("/api/plugins/none").status_code == 404
    redirected = client.get("/plugins/board?x=1")
    assert (redirected.status_code, redirected.headers["location"]) == (308, "/plugins/board/?x=1")
    assert client.get("/plugins//board/").status_code == 404
    assert client.delete("/api/plugins/board").status_code == 204
    assert client.get("/plugins/board/").status_code == 404
    assert list(folder.iterdir()) == []


def test_an_upload_that_breaks_off_leaves_nothing(client: httpx2.Client, folder: Path) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
        connection.sendall(b"PUT /api/plugins/late HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n" + b"x" * 1000)
        until(lambda: any(path.suffix == ".upload" for path in folder.iterdir()))
    until(lambda: [path.name for path in folder.iterdir()] == ["board.wasm"])


# Chromium as Debian has it; nothing that it does by itself reaches for a network
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert found is not None, "this test needs Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, client: httpx2.Client) -> Iterator[Page]:
    """A page of the service, on which no script fails."""
    failures: list[object] = []
    with browser.new_context(base_url=str(client.base_url)) as context:
        context.on("weberror", lambda error: failures.append(error.error))
        yield context.new_page()
    assert failures == []


@pytest.mark.slow
def test_a_components_page_in_a_browser(page: Page, tmp_path: Path) -> None:
    """A form, a stream of events, and an upload, as a person uses them; another person sees it all at once."""
    other = page.context.new_page()
    other.goto("/plugins/board/")
    page.goto("/plugins/board/")
    page.get_by_label("Your name").fill("Ada")
    page.get_by_label("A note").fill("<b>not bold</b> & 100 %")
    page.get_by_role("button", name="Pin it").click()
    for seen in (page, other):
        seen.get_by_role("listitem").filter(has_text="<b>not bold</b> & 100 %").wait_for()
    file = tmp_path / "a list.txt"
    file.write_bytes(b"line\n" * 200_000)
    page.get_by_label("A file to count").set_input_files(file)
    page.get_by_role("button", name="Count it").click()
    page.get_by_text("1000000 bytes, 200000 lines", exact=True).first.wait_for()
    other.get_by_role("listitem").filter(has_text="a list.txt").wait_for()
    assert other.get_by_role("listitem").count() == 2
    other.close()


@pytest.mark.slow
def test_the_services_page_in_a_browser(page: Page, client: httpx2.Client, tmp_path: Path) -> None:
    page.goto("/")
    plugin = page.frame_locator("iframe")
    plugin.get_by_role("heading", name="Notice board").wait_for()
    chooser = page.locator("#drop input")
    named = tmp_path / "My Greeter.wasm"
    shutil.copy(HELLO, named)
    chooser.set_input_files(named)
    page.get_by_text("my-greeter runs, version 1").wait_for()
    plugin.get_by_text("Hello, World!").wait_for()
    chooser.set_input_files(named)
    page.get_by_text("my-greeter runs, version 2").wait_for()
    named.write_bytes(b"\0asm\1\0\0\0")
    chooser.set_input_files(named)
    page.get_by_text("a core WebAssembly module").wait_for()
    assert page.locator("#said").get_attribute("class") == "bad"
    page.get_by_role("button", name="remove my-greeter").click()
    page.get_by_text("my-greeter", exact=True).wait_for(state="detached")
    assert [plugin["name"] for plugin in client.get("/api/plugins").json()] == ["board"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plug-ins in Python and JavaScript, built by their own tools from packages, and kept."""
    folder = tmp_path_factory.mktemp("plugins")
    code = f"import build, pathlib; build.build(pathlib.Path({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=EXAMPLE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.copy(EXAMPLE / "components" / "board.wasm", folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_plugins_in_three_languages(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(built, monkeypatch) as client:
        assert [plugin["name"] for plugin in client.get("/api/plugins").json()] == ["almanac", "board", "chart"]
        for name in ("Ada", "Ada", "<Grace>"):
            assert client.post("/plugins/board/", data={"name": name, "text": "a note"}).status_code == 303
        today = datetime.datetime.now(datetime.UTC)
        month = client.get(f"/plugins/almanac/?month={today:%Y-%m}").text
        assert f"<h1>{today:%B %Y}</h1>" in month
        assert "<b>3</b>" in month
        assert "<b>" not in client.get("/plugins/almanac/?month=1999-12").text
        assert client.get("/plugins/almanac/?month=never").status_code == 400
        chart = client.get("/plugins/chart/").text
        assert '<text class="number" x="458.0" y="24">2</text>' in chart
        assert "&#60;Grace&#62;" in chart
        assert client.get("/plugins/chart/none").status_code == 404
