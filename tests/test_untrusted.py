"""The promise of `docs/untrusted.md`, line by line: a test for each, of the line's name."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import wasgi
from tests.conftest import HELLO, PROBE, ROOT, AppMaker, bare, get, post, until
from tests.processes import run, told
from wasgi import errors

PAGE = ROOT / "docs" / "untrusted.md"


def test_each_line_of_the_page_has_a_test() -> None:
    lines = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert len(lines) > 20
    assert len(lines) == len(set(lines))
    here = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert here - {"each_line_of_the_page_has_a_test"} == set(lines)


async def up(request: wasgi.Request) -> wasgi.Response:
    return wasgi.Response(body=b"up")


# what it can reach


def test_nothing_is_granted(app: AppMaker) -> None:
    made = app()
    assert made.handle(get("/env")).text == ""
    assert made.handle(get("/read-file?path=/etc/hostname")).status == 500
    assert made.handle(get("/hostile/open?path=file")).text == "0 nothing is granted"
    assert made.handle(get("/fetch?url=http://example.com/")).text == "ErrorCode::HttpRequestDenied"


def test_sockets_are_denied(app: AppMaker) -> None:
    tcp, udp, name = app().handle(get("/hostile/sockets")).text.replace("\n\n", " ").split("\n")
    for made in (tcp, udp):
        assert re.match(r'0 (ErrorCode \{ code: 1, name: "access-denied"|access-denied$)', made)
    assert "permanent-resolver-failure" in name


def test_folders_end_at_their_root(app: AppMaker, tmp_path: Path) -> None:
    granted = tmp_path / "granted"
    granted.mkdir()
    (granted / "file").write_text("content")
    (tmp_path / "secret").write_text("secret")
    (granted / "link").symlink_to(tmp_path / "secret")
    (granted / "folder").symlink_to(tmp_path)
    made = app(dirs={"/data": wasgi.Dir(granted)})
    assert made.handle(get("/read-file?path=/data/file")).text == "content"
    for path in ("/data/link", "/data/../secret", "/data/folder/secret", "/secret", str(tmp_path / "secret")):
        response = made.handle(get(f"/read-file?path={path}"))
        assert response.status == 500, path
        assert "secret" not in response.text.removesuffix("secret")
    assert made.handle(get("/write-file?path=/data/new&content=x")).status == 500
    assert sorted(path.name for path in granted.iterdir()) == ["file", "folder", "link"]


def test_private_addresses(app: AppMaker) -> None:
    made = app(outgoing=wasgi.Network(["http://*", "http://localhost:9"]))
    for host in ("localhost:9", "127.0.0.1", "[::1]", "0x7f.1", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]"):
        text = made.handle(get(f"/fetch?url=http://{host}/")).text
        assert text == "ErrorCode::DestinationIpProhibited", host


def test_memory_of_others(app: AppMaker) -> None:
    """Two Apps in turn, more often than the pool hands out a slot's memory untouched."""
    tenants = [app(), app()]
    for number in range(20):
        assert tenants[number % 2].handle(get("/hostile/look?mib=16")).text == "0"


# what one exchange can use up


def test_guest_memory(app: AppMaker) -> None:
    made = app(limits=wasgi.Limits(memory=16 << 20))
    assert made.handle(get("/try-alloc?mib=32")).text == "refused"
    with pytest.raises(wasgi.MemoryLimitError) as raised:
        made.handle(get("/hostile/allocate?mib=32"))
    assert raised.value.limit == 16 << 20
    assert wasgi.Limits().memory == 256 << 20


def test_tables() -> None:
    assert wasgi.Limits().table_elements == 1_000_000
    grows = bare(
        "(if (i32.eq (table.grow (ref.null func) (i32.const 1000000)) (i32.const -1)) (then unreachable))",
        "(table 1 funcref)",
    )
    with pytest.raises(wasgi.TableLimitError):
        wasgi.App(grows).handle(get("/"))


def test_instances() -> None:
    assert wasgi.Limits().instances == 256
    with pytest.raises(wasgi.InstanceLimitError):
        wasgi.App(bare("", instances=3), limits=wasgi.Limits(instances=2)).handle(get("/"))


def test_stack(app: AppMaker) -> None:
    with pytest.raises(wasgi.TrapError, match="call stack exhausted"):
        app().handle(get("/overflow?n=10000000"))


def test_handles(app: AppMaker) -> None:
    assert wasgi.Limits().handles == 4096
    for route in ("/handles?n=5000", "/hostile/timers?n=5000&times=1", "/hostile/requests?n=5000&bytes=1"):
        with pytest.raises(wasgi.HandleLimitError):
            app().handle(get(route))


def test_fields(app: AppMaker, generation: str) -> None:
    assert wasgi.Limits().fields == 64 << 10
    target = "/hostile/fields?n=1&bytes=600&each=200"
    if generation == "0.3":
        app().handle(get(target)).read()  # the guest is told `size-exceeded`
        assert app().handle(get("/fields?n=1000000")).text.endswith("SizeExceeded")
    else:
        with pytest.raises(wasgi.FieldsLimitError):
            app().handle(get(target))
    with pytest.raises(errors.HttpRequestHeaderSectionSize):
        app().handle(get("/hello", headers={"x-large": "x" * 70_000}))
    made = app(outgoing=lambda request: wasgi.Response(headers={"x-large": "x" * 70_000}))
    assert "HttpResponseHeaderSectionSize" in made.handle(get("/fetch?url=http://up/")).text


def test_strings_of_requests(app: AppMaker) -> None:
    assert app().handle(get("/long-method?n=4097&times=3")).text == "0"
    asked: list[wasgi.Request] = []

    def upstream(request: wasgi.Request) -> wasgi.Response:
        asked.append(request)
        return wasgi.Response()

    # of 40,000 bytes, and of 5,000
    for url in ("http://up/" + "x" * 40_000, "http://" + "x" * 5_000 + "/"):
        # the guest's own request may be no longer than any other's
        made = app(outgoing=upstream, limits=wasgi.Limits(fields=None))
        assert "HttpRequestUriInvalid" in made.handle(get(f"/fetch?url={url}")).text
    assert asked == []


def test_body_in_flight(app: AppMaker) -> None:
    asked = 0

    def body() -> Iterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield b"x" * 4096

    with app().handle(post("/echo", body())) as response:
        until(lambda: asked > 8)
        received = len(next(iter(response)))
        # besides: one that the guest holds, one that it asked for, one that was looked at, one that is being put in
        assert asked <= received // 4096 + wasgi.Limits().chunks + 4


def test_bodies(app: AppMaker) -> None:
    with pytest.raises(errors.HttpRequestBodySize):
        app(limits=wasgi.Limits(request_body=10)).handle(post("/collect", iter([b"x" * 6] * 2)))
    with pytest.raises(wasgi.BodyError) as raised:
        app(limits=wasgi.Limits(response_body=1000)).handle(get("/endless")).read()
    assert isinstance(raised.value.__cause__, errors.HttpResponseBodySize)


@pytest.mark.parametrize(
    "route",
    [
        "/spin",
        "/sleep?ms=60000",
        "/hostile/fill?mib=20",
        "/hostile/random?bytes=4096",
        "/hostile/print",
        "/fetch?url=http://up/",
    ],
)
async def test_time(app: AppMaker, route: str) -> None:
    async def never(request: wasgi.Request) -> wasgi.Response:
        await asyncio.Event().wait()
        raise AssertionError

    assert wasgi.Limits().timeout == 30
    made = app(outgoing=never, limits=wasgi.Limits(timeout=0.2), stdout=lambda line: None)
    with pytest.raises(wasgi.GuestTimeoutError) as raised:
        await made.handle_async(get(route))
    assert raised.value.limit == 0.2


def test_fuel(app: AppMaker) -> None:
    with pytest.raises(wasgi.FuelExhaustedError):
        app(limits=wasgi.Limits(fuel=100_000_000, timeout=None)).handle(get("/spin"))


async def test_outgoing_requests(app: AppMaker) -> None:
    made = app(outgoing=up, limits=wasgi.Limits(outgoing=2))
    assert await (await made.handle_async(get("/fetch-in-turn?n=3&url=http://up/"))).aread() == (
        b"200 200 ErrorCode::HttpRequestDenied"
    )
    made = app(outgoing=up, limits=wasgi.Limits(outgoing_concurrency=1))
    assert await (await made.handle_async(get("/fetch-many?n=2&url=http://up/"))).aread() == (
        b"up,ErrorCode::ConnectionLimitReached"
    )


async def test_lines(app: AppMaker) -> None:
    """A sink that takes one line and then none: the guest waits for it until its time is over, and nobody else does."""
    taken: list[str] = []
    go_on = threading.Event()

    def slow(line: str) -> None:
        taken.append(line)
        go_on.wait()

    made = app(stdout=slow, limits=wasgi.Limits(timeout=0.5))
    task = asyncio.ensure_future(made.handle_async(get("/hostile/print")))
    try:
        while not taken:
            await asyncio.sleep(0)
        assert await (await app().handle_async(get("/hello"))).aread() == b"Hello, World!"
        await asyncio.to_thread(until, lambda: made.exchanges == 0)
    finally:
        go_on.set()
    with pytest.raises(wasgi.GuestTimeoutError):
        await task  # what was printed before is delivered first
    # those that waited for the sink, and as many that were being fetched
    assert sum(map(len, taken)) <= 2 * (256 << 10)
    taken.clear()
    assert app(stdout=taken.append).handle(get("/long-line?text=x&times=100000")).text == "printed"
    assert [len(line) for line in taken] == [64 << 10, 100_000 - (64 << 10)]


def test_refusals_in_logs(app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
    made = app(outgoing=up, limits=wasgi.Limits(outgoing=0))
    with caplog.at_level(logging.WARNING, "wasgi.outgoing"):
        made.handle(get("/fetch-in-turn?n=100&url=http://up/")).read()
    assert len(caplog.messages) == 10
    caplog.clear()
    other = app()
    with caplog.at_level(logging.WARNING, "wasgi.outgoing"):
        for number in range(60):
            other.handle(get(f"/fetch?url=http://host-{number}.example/")).read()
    assert len(caplog.messages) == 33


def test_traps(probe_path: Path) -> None:
    script = """
import faulthandler, signal, sys, wasgi
app = wasgi.App(sys.argv[1])
app.handle(wasgi.Request("GET", "http://guest.local/hello"))
faulthandler.enable()
signal.signal(signal.SIGSEGV, lambda *_: print("python's"))
for route in ("/trap", "/out-of-bounds", "/overflow?n=10000000", "/exit?code=7", "/panic"):
    try:
        app.handle(wasgi.Request("GET", "http://guest.local" + route))
    except wasgi.GuestError as error:
        print(type(error).__name__)
"""
    done = run(script, str(probe_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["TrapError", "TrapError", "TrapError", "GuestExitError", "TrapError"]


# what one App can use up


async def test_exchanges(app: AppMaker) -> None:
    assert (wasgi.Limits().concurrency, wasgi.Limits().queue) == (256, 0)
    made = app(limits=wasgi.Limits(concurrency=1))
    async with await made.handle_async(get("/endless")):
        with pytest.raises(wasgi.OverloadedError):
            await made.handle_async(get("/hello"))
        # another App has places of its own
        assert (await app().handle_async(get("/hello"))).status == 200


@pytest.mark.parametrize("route", ["/spin", "/hostile/fill?mib=200", "/hostile/random?bytes=65536", "/hostile/print"])
async def test_event_loop(app: AppMaker, route: str) -> None:
    """The loop runs a hundred rounds while guests run that end by their time limit only."""
    made = app(limits=wasgi.Limits(timeout=None), stdout=lambda line: None)
    tasks = [asyncio.ensure_future(made.handle_async(get(route))) for _ in range(4)]
    for _ in range(100):
        await asyncio.sleep(0.001)
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("route", ["/spin", "/hostile/fill?mib=200"])
async def test_turns(app: AppMaker, route: str) -> None:
    """Another App's guests, which wait and compute a little, end while eight go on that would never end."""
    hostile = app(limits=wasgi.Limits(timeout=None))
    tasks = [asyncio.ensure_future(hostile.handle_async(get(route))) for _ in range(8)]
    good = app(outgoing=up)
    for path in ("/hello", "/sleep?ms=10", "/fetch?url=http://up/", "/work?n=1") * 3:
        assert (await (await good.handle_async(get(path))).aread()) != b""
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_cancelled(app: AppMaker, nothing_is_left: None) -> None:
    async def never(request: wasgi.Request) -> wasgi.Response:
        await asyncio.Event().wait()
        raise AssertionError

    made = app(outgoing=never, limits=wasgi.Limits(timeout=None))
    routes = ["/spin", "/sleep?ms=60000", "/fetch?url=http://up/", "/hostile/fill?mib=20", "/hostile/print"]
    tasks = [asyncio.ensure_future(made.handle_async(get(route))) for route in routes]
    for _ in range(20):
        await asyncio.sleep(0.001)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    left = await made.handle_async(get("/endless"))
    await left.aclose()
    await asyncio.to_thread(until, lambda: made.exchanges == 0)


def test_debug_information() -> None:
    """`tests/component/test_debug_info.py` has the whole of it."""
    script = """
import logging, sys
import wasgi
from tests.component import test_debug_info
from tests.conftest import get

logging.basicConfig(stream=sys.stdout, format="%(message)s")
try:
    wasgi.App(test_debug_info.component(test_debug_info.nested())).handle(get("/"))
except wasgi.TrapError as error:
    print("trapped")
"""
    done = run(f"import os, sys\nos.environ['WASGI_CACHE_DIR'] = ''\nsys.path.insert(0, {str(ROOT)!r})\n" + script)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[-1] == "trapped"
    assert "the debug information of a component is ignored: its entries are nested more than 128 deep" in said[0]


def test_instance_cost() -> None:
    many = bare("", "(global i64 (i64.const 0))" * 5000)
    with pytest.raises(wasgi.MemoryLimitError):
        wasgi.App(many, limits=wasgi.Limits(memory=64 << 10)).handle(get("/"))


def test_memory_of_an_app(app: AppMaker) -> None:
    """An exchange beside another one finds less than one alone (more in `test_held.py`)."""
    seen: list[str] = []

    def upstream(request: wasgi.Request) -> wasgi.Response:
        seen.append(made.handle(get("/try-alloc?mib=20")).text)
        return wasgi.Response()

    made = app(outgoing=upstream, limits=wasgi.Limits(memory_per_app=(21 << 20) + (768 << 10)))
    assert made.handle(get("/try-alloc?mib=20")).text == "got it"
    until(lambda: made.exchanges == 0)
    made.handle(get("/fetch?url=http://up/")).read()
    assert seen == ["refused"]


def test_host_memory(app: AppMaker) -> None:
    made = app(limits=wasgi.Limits(memory=32 << 20))
    assert made.handle(get("/hostile/fields?n=20&bytes=600&each=90")).text == "done"
    with pytest.raises(wasgi.MemoryLimitError):
        made.handle(get("/hostile/fields?n=4000&bytes=600&each=90"))
    until(lambda: wasgi.stats().memory == 0)


def test_host_calls(app: AppMaker, generation: str) -> None:
    if generation == "0.2":  # in 0.3 a guest may be given less than it asks for
        with pytest.raises(wasgi.TrapError, match="67108864 random bytes"):
            app().handle(get("/hostile/random?mib=64&n=1"))
    with pytest.raises(wasgi.TrapError, match="strings and lists"):
        app().handle(get(f"/hostile/requests?n=1&bytes={60 << 20}"))


def test_files(app: AppMaker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    assert (wasgi.Limits().files, wasgi.Limits().files_per_app) == (64, 256)
    made = app(dirs={"/data": wasgi.Dir(tmp_path)})
    for _ in range(2):
        text = made.handle(get("/hostile/open?path=file")).text
        assert text.startswith("64 ")
        assert "quota" in text


def test_odd_files(app: AppMaker, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("content")
    made = app(dirs={"/data": wasgi.Dir(tmp_path)})
    # more than there are threads
    for _ in range(80):
        assert made.handle(get("/hostile/open?path=fifo")).text.startswith("0 ")
    assert made.handle(get("/read-file?path=/data/file")).text == "content"


def test_listings(app: AppMaker, tmp_path: Path) -> None:
    """Fifty listings of 2,000 entries, kept and not read, weigh less than one of them."""
    for number in range(2000):
        (tmp_path / f"{number:0200}").touch()
    response = app(dirs={"/data": wasgi.Dir(tmp_path)}).handle(get("/hostile/list?n=50"))
    assert response.text == "50 enough"
    report = response.wait()
    assert report is not None
    assert report.memory < 8 << 20


def test_disk(app: AppMaker, tmp_path: Path) -> None:
    made = app(dirs={"/data": wasgi.Dir(tmp_path)})
    assert made.handle(get("/write-file?path=/data/new&content=x")).status == 500
    assert list(tmp_path.iterdir()) == []


def test_texts(app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(errors.InternalError) as raised:
        app().handle(get("/hostile/code?bytes=100000"))
    text = raised.value.detail
    assert text is not None
    assert "\n" not in text
    assert "\x1b" not in text
    assert 4096 <= len(text) < 5000


def test_file_threads(app: AppMaker, tmp_path: Path) -> None:
    """Twice as many exchanges as threads all get their file; what hangs is `tests/guest/test_host_resources.py`'s."""
    (tmp_path / "file").write_text("content")
    made = app(dirs={"/data": wasgi.Dir(tmp_path)})
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(made.handle(get("/read-file?path=/data/file")).text))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["content"] * 16


def test_pool(probe_path: Path) -> None:
    """`tests/scheduler/test_shares.py` has what a component is made of, too."""
    done = run(
        f"""
import asyncio
import wasgi
from tests.scheduler.test_shares import beside
asyncio.run(beside([wasgi.Component({str(probe_path)!r})], 1100))
"""
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "served beside" in done.stdout


class Silent:
    """Accepts, reads the head, and nothing more."""

    def __enter__(self) -> Silent:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(30)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        return self

    def accept(self) -> socket.socket:
        taken, _ = self.listener.accept()
        taken.settimeout(30)
        return taken

    def __exit__(self, *_: object) -> None:
        self.listener.close()


async def test_connections(app: AppMaker, nothing_is_left: None) -> None:
    with Silent() as peer:
        made = app(outgoing=wasgi.Network([peer.url]))
        task = asyncio.ensure_future(
            made.handle_async(post(f"/proxy?method=POST&url={peer.url}/", iter(lambda: b"x" * 65536, b"")))
        )
        taken = await asyncio.to_thread(peer.accept)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        def read_to_its_end() -> None:
            with contextlib.suppress(ConnectionError):
                while taken.recv(65536):
                    pass
            taken.close()

        await asyncio.to_thread(read_to_its_end)


def test_unread_uploads(app: AppMaker) -> None:
    with Silent() as peer:
        made = app(outgoing=wasgi.Network([peer.url], timeout=0.5))
        # more than the system keeps on its way
        with pytest.raises(errors.HttpResponseTimeout):
            made.handle(post(f"/proxy?method=POST&url={peer.url}/", iter([b"x" * 65536] * 400)))


def test_component_size() -> None:
    text = "(component " + "(core module)" * 2000 + ")"
    with pytest.raises(wasgi.ComponentLimitError) as raised:
        wasgi.Component(text.encode())
    assert (raised.value.name, raised.value.limit, raised.value.found) == ("modules", 1000, 2000)


def test_nesting() -> None:
    with pytest.raises(wasgi.ComponentError, match="nest"):
        wasgi.Component(("(component " * 5000 + ")" * 5000).encode())
    with pytest.raises(wasgi.ComponentLimitError) as raised:
        bare("block " * 5000 + "end " * 5000)
    assert raised.value.name == "nesting"


def slow(size: int) -> str:
    """A function that takes long to compile, and its like to no other's."""
    lines = "(local.set $n (i32.add (local.get $n) (i32.const 7)))" * size
    return f"(func (local $n i32) (i32.const {os.getpid()}) drop {lines})" * 20


def test_compile_time() -> None:
    with pytest.raises(wasgi.ComponentLimitError) as raised:
        bare("", slow(10_000), limits=wasgi.ComponentLimits(timeout=0.1))
    assert (raised.value.name, raised.value.limit) == ("timeout", 0.1)


def test_compile_memory() -> None:
    with pytest.raises(wasgi.ComponentLimitError) as raised:
        bare("", slow(10_000), limits=wasgi.ComponentLimits(memory=20_000_000))
    assert (raised.value.name, raised.value.limit) == ("memory", 20_000_000)


async def test_loading_and_the_loop() -> None:
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1

    counting = asyncio.ensure_future(count())
    await wasgi.Component.load_async(PROBE.read_bytes() + b"\0\x05\x04loop")
    counting.cancel()
    assert rounds > 3


def test_sources(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises((wasgi.ComponentError, OSError)):
            wasgi.Component(path)


CACHED = """
import logging, sys
import wasgi
logging.basicConfig(format="%(message)s")
print(wasgi.App(sys.argv[1]).handle(wasgi.Request("GET", "http://guest.local/hello")).text)
"""


def cached(folder: Path, component: Path = HELLO, **surroundings: str) -> str:
    """Loads a component with that cache and runs it; what was logged."""
    done = subprocess.run(
        [sys.executable, "-c", CACHED, str(component)],
        env=os.environ | {"WASGI_CACHE_DIR": str(folder)} | surroundings,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stdout) == (0, "Hello, World!\n"), done.stderr
    return told(done.stderr)


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 10_000]


def test_cache_entries(tmp_path: Path) -> None:
    cached(tmp_path)
    [entry] = entries(tmp_path)
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 1
    entry.write_bytes(content)
    assert len(cached(tmp_path).splitlines()) == 1
    assert cached(tmp_path) == ""
    # another component's
    cached(tmp_path, PROBE)
    one, other = entries(tmp_path)
    kept = one.read_bytes(), other.read_bytes()
    one.write_bytes(kept[1])
    other.write_bytes(kept[0])
    cached(tmp_path)


def test_cache_modes(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    before = os.umask(0)
    try:
        cached(folder)
    finally:
        os.umask(before)
    for path in [folder, *folder.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    folder.chmod(0o777)
    assert "others" in cached(folder)


def test_cache_size(tmp_path: Path) -> None:
    cached(tmp_path, WASGI_CACHE_SIZE="1000000")
    cached(tmp_path, PROBE, WASGI_CACHE_SIZE="1000000")
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 1_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no PAGEMAP_SCAN")
def test_swap() -> None:
    """`test_swap.py` has pages swapped out. Here the system does not say whether they can be."""
    done = run(
        "import logging, sys\nimport wasgi\n"
        "from tests.confinement import refuse\nfrom tests.conftest import HELLO, get\n"
        "logging.basicConfig(level='INFO', format='%(message)s', stream=sys.stdout)\n"
        "refuse('sysinfo')\nwasgi.App(HELLO).handle(get('/hello'))\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("can be swapped out, and PAGEMAP_SCAN would pass them over: guests start slower") == 1
