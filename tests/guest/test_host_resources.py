"""What a guest takes of the host while it runs: the largest argument of each call, files, memory behind handles."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import wasgi
from tests.conftest import PROBES, AppMaker, get, post, until


def much(what: str, **options: object) -> wasgi.Request:
    return get("/much?what=" + what + "".join(f"&{name}={value}" for name, value in options.items()))


def memory_of(response: wasgi.Response) -> int:
    response.read()
    report = response.wait()
    assert report is not None
    return report.memory


class TestHostCalls:
    """No host call takes so much that whoever shares its thread waits."""

    @pytest.mark.parametrize("what", ["random", "insecure"])
    def test_random_bytes(self, app: AppMaker, generation: str, what: str) -> None:
        assert app().handle(much(what, n=256 << 10)).text == str(256 << 10)
        if generation == "0.3":  # where a guest may be given less than it asks for
            assert app().handle(much(what, n=64 << 20)).text == str(256 << 10)
            return
        with pytest.raises(wasgi.TrapError, match="67108864 random bytes at once, of at most 262144"):
            app().handle(much(what, n=64 << 20))

    @pytest.mark.parametrize("what", ["path", "field"])
    def test_strings_and_lists(self, app: AppMaker, what: str) -> None:
        with pytest.raises(wasgi.TrapError, match=r"more bytes of strings and lists than it takes: 2 MiB") as raised:
            app().handle(much(what, n=60 << 20))
        assert "hint: hand them over in pieces" in str(raised.value)
        assert app().handle(get("/hello")).status == 200

    def test_a_text_of_an_error_code(self, app: AppMaker) -> None:
        with pytest.raises(wasgi.WasgiError) as raised:
            app().handle(much("code", text="x", times=60 << 20))
        assert len(str(raised.value)) < 10_000

    def test_a_path_that_is_too_long_is_refused_and_not_kept(self, app: AppMaker) -> None:
        assert app().handle(much("path", n=1 << 20, times=5)).text == "0"
        assert app().handle(much("path", n=32 << 10, times=5)).text == "5"

    def test_fields_are_refused_before_they_are_read(self, app: AppMaker, generation: str) -> None:
        for request in (much("field", n=1 << 20), much("values", n=50_000)):
            if generation == "0.3":
                assert "SizeExceeded" in app().handle(request).text
                continue
            with pytest.raises(wasgi.FieldsLimitError, match="65536 bytes of fields"):
                app().handle(request)

    def test_what_a_limit_of_fields_allows_can_be_handed_over(self, app: AppMaker) -> None:
        large = app(limits=wasgi.Limits(fields=16 << 20))
        assert large.handle(much("field", n=15 << 20)).text == "Ok(())"
        assert app(limits=wasgi.Limits(fields=None)).handle(much("field", n=15 << 20)).text == "Ok(())"

    def test_a_body_of_one_chunk_is_read_in_pieces(self, app: AppMaker) -> None:
        largest, total = map(int, app().handle(post("/much?what=read", b"x" * (5 << 20))).text.split())
        assert total == 5 << 20
        assert largest <= 256 << 10

    def test_a_body_in_pieces_is_the_body(self, app: AppMaker) -> None:
        body = os.urandom((1 << 20) + 17)
        assert app().handle(post("/echo", body)).read() == body
        with pytest.raises(wasgi.errors.HttpRequestBodySize):
            app(limits=wasgi.Limits(request_body=1 << 20)).handle(post("/collect", iter([body]))).read()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plain").write_text("content")
    return tmp_path


def of(folder: Path, **options: object) -> dict[str, object]:
    return {"dirs": {"/data": wasgi.Dir(folder)}, **options}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class TestFiles:
    def test_an_exchange_opens_so_many_files(self, app: AppMaker, folder: Path) -> None:
        lines: list[str] = []
        assert app(**of(folder)).handle(much("open", path="plain", n=64)).text == "64 enough"
        assert app(**of(folder)).handle(much("open", path="plain", n=1000)).text == "64 quota"
        few = app(**of(folder, limits=wasgi.Limits(files=3), stderr=lines.append))
        assert few.handle(much("open", path="plain", n=1000)).text == "3 quota"
        none = app(**of(folder, limits=wasgi.Limits(files=0)))
        assert none.handle(much("open", path="plain", n=1000)).text == "0 quota"

    def test_it_is_said_once_which_limit_it_was(
        self, app: AppMaker, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        made = app(**of(folder, limits=wasgi.Limits(files=3)))
        made.handle(get("/read-file?path=/data/plain")).read()
        assert not caplog.records
        made.handle(much("open", path="plain", n=10)).read()
        until(lambda: bool(caplog.records))
        (record,) = caplog.records
        assert record.getMessage() == (
            "a file was not opened: this exchange has 3 open (`Limits.files`); the guest is told `quota`"
        )

    def test_files_that_are_closed_do_not_count(self, app: AppMaker, folder: Path) -> None:
        few = app(**of(folder, limits=wasgi.Limits(files=3)))
        assert few.handle(much("open", path="plain", n=500, keep="nothing")).text == "500 enough"
        for _ in range(10):
            assert few.handle(get("/read-file?path=/data/plain")).text == "content"

    def test_a_file_counts_while_a_stream_has_it_open(self, app: AppMaker, folder: Path) -> None:
        before = descriptors()
        assert app(**of(folder)).handle(much("open", path="plain", n=1000, keep="stream")).text == ("64 quota")
        until(lambda: descriptors() <= before + 10)

    def test_a_folder_that_is_listed_is_open(self, app: AppMaker, folder: Path) -> None:
        for number in range(600):
            (folder / f"file-{number}").touch()
        assert app(**of(folder)).handle(much("listings", n=1000)).text == "64 quota"

    def test_all_exchanges_of_an_app_together(self, app: AppMaker, folder: Path) -> None:
        made = app(**of(folder, limits=wasgi.Limits(files=None, files_per_app=100)))
        assert made.handle(much("open", path="plain", n=1000)).text == "100 quota"
        until(lambda: made.handle(much("open", path="plain", n=100)).text == "100 enough")
        other = app(**of(folder, limits=wasgi.Limits(files=None, files_per_app=100)))
        assert other.handle(much("open", path="plain", n=100)).text == "100 enough"

    def test_no_guest_takes_the_last_descriptor_of_the_process(self, app: AppMaker, folder: Path) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        made = [app(**of(folder)) for _ in range(2)]
        with socket.socket() as listening:
            for taking in made:
                taking.handle(much("open", path="plain", n=soft * 2)).read()
            listening.bind(("127.0.0.1", 0))

    def test_none_lifts_both(self, app: AppMaker, folder: Path) -> None:
        made = app(**of(folder, limits=wasgi.Limits(files=None, files_per_app=None)))
        assert made.handle(much("open", path="plain", n=300)).text == "300 enough"

    @pytest.mark.parametrize("kind", ["fifo", "socket", "link to a fifo", "device"])
    def test_what_is_no_file_is_refused_at_once(self, app: AppMaker, folder: Path, kind: str) -> None:
        special = folder / "special"
        if kind == "socket":
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(str(special))
            listening.close()
        elif kind == "device":
            folder = Path("/dev")
            special = folder / "zero"
        else:
            os.mkfifo(folder / "fifo")
            special = folder / "fifo" if kind == "fifo" else special
            if kind == "link to a fifo":
                special.symlink_to("fifo")
        made = app(**of(folder))
        for _ in range(100):
            assert made.handle(much("open", path=special.name, n=1)).text == "0 not-permitted"
        assert "not permitted" in made.handle(much("std-open", path=f"/data/{special.name}")).text

    def test_a_folder_is_listed_with_types(self, app: AppMaker, folder: Path, generation: str) -> None:
        (folder / "folder").mkdir()
        (folder / "link").symlink_to("plain")
        os.mkfifo(folder / "fifo")
        (folder / os.fsdecode(b"no-\xff-text")).touch()
        listed = app(**of(folder)).handle(much("list")).text.splitlines()
        # a word that 0.3 has
        fifo = "Fifo" if generation == "0.3" else "Unknown"
        assert listed == [
            f"fifo DescriptorType::{fifo}",
            "folder DescriptorType::Directory",
            "illegal-byte-sequence",
            "link DescriptorType::SymbolicLink",
            "plain DescriptorType::RegularFile",
        ]

    def test_a_large_folder_is_listed_whole(self, app: AppMaker, folder: Path) -> None:
        names = {f"file-{number:04}" for number in range(1500)}
        for name in names:
            (folder / name).touch()
        listed = app(**of(folder)).handle(much("list")).text.splitlines()
        assert {line.split()[0] for line in listed} == names | {"plain"}
        assert len(listed) == 1501

    def test_a_guest_without_a_folder_has_no_files(self, app: AppMaker) -> None:
        assert "content" not in app().handle(get("/read-file?path=/data/plain")).text

    def test_a_granted_folder_is_open_once_whatever_number_of_exchanges(self, app: AppMaker, folder: Path) -> None:
        made = app(**of(folder))
        made.handle(get("/hello")).read()
        before = descriptors()
        responses = [made.handle(get("/endless")) for _ in range(100)]
        assert descriptors() < before + 20
        for response in responses:
            response.close()

    def test_a_granted_folder_is_the_one_that_is_there_now(self, app: AppMaker, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        made = app(dirs={"/data": wasgi.Dir(folder)})
        for content in ("first", "second"):
            folder.mkdir(exist_ok=True)
            (folder / "plain").write_text(content)
            assert made.handle(get("/read-file?path=/data/plain")).text == content
            (folder / "plain").unlink()
            folder.rmdir()
        with pytest.raises(wasgi.WasgiError, match="cannot open the granted directory"):
            made.handle(get("/hello"))

    def test_files_after_a_fork(self, folder: Path, generation: str) -> None:
        script = """
import os, sys, wasgi
app = wasgi.App(sys.argv[1], dirs={"/data": wasgi.Dir(sys.argv[2])})
def call():
    return app.handle(wasgi.Request("GET", "http://guest.local/read-file?path=/data/plain")).text
print(call(), flush=True)
child = os.fork()
print(call(), flush=True)
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    del app
    sys.exit(7)
"""
        done = subprocess.run(
            [sys.executable, "-c", script, str(PROBES[generation]), str(folder)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.split() == ["content"] * 3 + ["7"], done.stderr


@pytest.mark.generation("0.3", reason="a stream of a file is one of the host's functions in 0.2, and no value")
class TestStreamsOfFiles:
    """A file's stream is handed on, cut off, written."""

    def test_one_is_a_body(self, app: AppMaker, folder: Path) -> None:
        content = os.urandom(3_000_001)
        (folder / "large").write_bytes(content)
        assert app(**of(folder)).handle(get("/only/send-file?path=/data/large")).read() == content

    def test_one_is_a_body_that_its_guest_leaves_to_the_host(self, app: AppMaker, folder: Path) -> None:
        content = os.urandom(3_000_001)
        (folder / "large").write_bytes(content)
        assert app(**of(folder)).handle(get("/only/send-file?path=/data/large&leaves=1")).read() == content

    def test_a_folder_has_none(self, app: AppMaker, folder: Path) -> None:
        (folder / "folder").mkdir()
        response = app(**of(folder)).handle(get("/read-file?path=/data/folder"))
        assert (response.status, response.text) == (500, "is-directory")

    def test_one_that_nobody_reads_is_closed(self, app: AppMaker, folder: Path) -> None:
        (folder / "large").write_bytes(b"x" * 10_000_000)
        before = descriptors()
        made = app(**of(folder))
        for _ in range(30):
            made.handle(get("/only/send-file?path=/data/large")).close()
        until(lambda: descriptors() <= before + 10)
        assert made.handle(much("open", path="plain", n=64)).text == "64 enough"

    def test_one_is_written_to_the_end_of_another(self, app: AppMaker, folder: Path) -> None:
        content = os.urandom(200_003)
        (folder / "large").write_bytes(content)
        writing = app(dirs={"/data": wasgi.Dir(folder, write=True)})
        appended = writing.handle(get("/only/append-file?path=/data/large&to=/data/copy&n=3"))
        assert appended.text == "Ok(())"
        assert (folder / "copy").read_bytes() == content * 3
        (folder / "copy").write_bytes(b"kept")
        reading = app(**of(folder))
        refused = reading.handle(get("/only/append-file?path=/data/large&to=/data/copy&n=1"))
        assert refused.text == 'Err("not-permitted")'
        assert (folder / "copy").read_bytes() == b"kept"

    def test_one_whose_opening_was_called_off_is_closed_or_counts(self, app: AppMaker, folder: Path) -> None:
        seen = []

        def upstream(request: wasgi.Request) -> wasgi.Response:
            seen.append(descriptors())
            return wasgi.Response()

        made = app(**of(folder, outgoing=upstream))
        before = descriptors()
        assert made.handle(get("/only/open-impatiently?path=/data/plain&n=2000&url=http://up/")).status == 200
        assert seen[0] <= before + 64 + 10
        until(lambda: made.handle(much("open", path="plain", n=64)).text == "64 enough")

    def test_reads_that_are_called_off_lose_nothing(self, app: AppMaker, folder: Path) -> None:
        (folder / "large").write_bytes(os.urandom(1_000_003))
        made = app(**of(folder))

        def some_are_called_off() -> bool:
            """None is where each chunk has come before the guest looks, as a busy machine may have it."""
            said = made.handle(get("/only/read-impatiently?path=/data/large")).text
            called_off, read = said.removeprefix('Ok("').removesuffix('")').split()
            assert read == "1000003"
            return int(called_off) > 0

        until(some_are_called_off)


class TestThreadsOfFiles:
    """Operations on files wait for one another in one app, and for those of no other."""

    def test_threads_go_with_their_app(self, app: AppMaker, folder: Path) -> None:
        def of_files() -> int:
            found = 0
            for task in Path("/proc/self/task").iterdir():
                with contextlib.suppress(OSError):  # it may end just now
                    found += (task / "comm").read_text().startswith("wasgi-files")
            return found

        until(lambda: of_files() == 0)
        made = app(**of(folder))

        def call(made: wasgi.App) -> None:
            made.handle(much("open", path="plain", n=60)).read()

        callers = [threading.Thread(target=call, args=[made]) for _ in range(30)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert 1 <= of_files() <= 8
        del made, callers, caller
        until(lambda: of_files() == 0)


class TestMemory:
    """What the host holds behind handles is the guest's memory, too."""

    def test_fields_count(self, app: AppMaker) -> None:
        alone = memory_of(app().handle(much("fields", n=1, bytes=60_000)))
        many = memory_of(app().handle(much("fields", n=1000, bytes=60_000)))
        assert 50 << 20 < many - alone < 70 << 20
        with pytest.raises(wasgi.MemoryLimitError, match=r"`Limits.memory`"):
            app(limits=wasgi.Limits(memory=32 << 20)).handle(much("fields", n=1000, bytes=60_000))

    def test_paths_of_requests_count(self, app: AppMaker) -> None:
        with pytest.raises(wasgi.MemoryLimitError):
            app(limits=wasgi.Limits(memory=16 << 20)).handle(much("requests", n=1000, bytes=30_000))

    def test_what_is_dropped_does_not_count(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(memory=16 << 20))
        assert made.handle(much("passing-fields", n=3000, bytes=60_000)).text == "dropped"

    def test_what_is_shared_counts_once(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(memory=16 << 20))
        assert made.handle(much("clones", n=3000, bytes=60_000)).text == "kept"

    def test_a_guest_that_has_much_held_gets_less_memory_of_its_own(self, app: AppMaker) -> None:
        made = app(limits=wasgi.Limits(memory=100 << 20))
        assert made.handle(much("fields", n=1, bytes=60_000, mib=60)).text == "kept"
        assert made.handle(much("fields", n=1000, bytes=60_000, mib=20)).text == "kept"
        assert made.handle(much("fields", n=1000, bytes=60_000, mib=60)).text == "refused"

    def test_it_is_given_back(self, app: AppMaker) -> None:
        made = app()
        for request in (much("fields", n=1000, bytes=60_000), much("requests", n=1000, bytes=30_000)):
            made.handle(request).read()
        small = app(limits=wasgi.Limits(memory=16 << 20))
        with pytest.raises(wasgi.MemoryLimitError):
            small.handle(much("fields", n=1000, bytes=60_000))
        until(lambda: wasgi.stats().exchanges == 0 and wasgi.stats().memory == 0)

    def test_the_process_shrinks_after_heavy_exchanges(self, generation: str) -> None:
        script = """
import sys, threading, time, wasgi
app = wasgi.App(sys.argv[1], limits=wasgi.Limits(memory=512 << 20))
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20
def call():
    app.handle(wasgi.Request("GET", "http://guest.local/much?what=fields&n=3000&bytes=60000")).read()
call()
before = resident()
threads = [threading.Thread(target=call) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
deadline = time.monotonic() + 60
while resident() > 200 and time.monotonic() < deadline:
    time.sleep(0.05)
print(resident() <= 200, before, resident())
"""
        command = [sys.executable, "-c", script, str(PROBES[generation])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.stdout.startswith("True"), (done.stdout, done.stderr)

    def test_timers_are_handles(self, app: AppMaker) -> None:
        with pytest.raises(wasgi.HandleLimitError):
            app().handle(much("timers", n=100_000))
