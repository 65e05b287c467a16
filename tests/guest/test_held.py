"""What a guest can have the host keep for it, as much of one thing as it can get: within `Limits.memory`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import wasgi
from tests.conftest import PROBES, ROOT, AppMaker, get, until

MEMORY = 16 << 20

# The upstream looks while the guest has what it has; a process of its own, since others' memory is none of this.
SCRIPT = """
import sys
import wasgi

kind, n, probe, folder, memory = sys.argv[1:]

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096

seen = []

def upstream(request):
    seen.append(resident())
    return wasgi.Response()

limits = wasgi.Limits(memory=int(memory), timeout=None)
app = wasgi.App(probe, dirs={"/data": wasgi.Dir(folder, write=True)}, outgoing=upstream, limits=limits)
app.handle(wasgi.Request("GET", "http://guest.local/fetch?url=http://up/"))
before = resident()
try:
    print(app.handle(wasgi.Request("GET", f"http://guest.local/holds/{kind}?n={n}&url=http://up/")).text)
except wasgi.WasgiError as error:
    print(type(error).__name__)
print(max([resident(), *seen[1:]]) - before)
"""


NO_BODY_BEFORE_IT_IS_SENT = pytest.mark.generation(
    "0.2", reason="nothing of a body is taken before its request is sent"
)
NO_ERROR_IS_A_RESOURCE = pytest.mark.generation("0.2", reason="an error of a stream is a value, and no resource")


MANY_HANDLES: dict[str, tuple[str, ...]] = {"0.2": (), "0.3": ("HandleLimitError",)}
"""A body is several handles in 0.3: two ends of a stream, and of two futures."""


def hold(generation: str, kind: str, n: int, folder: Path) -> tuple[str, int]:
    """What came of it, and the memory that it took."""
    (folder / "file").write_bytes(b"x" * (64 << 10))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind, str(n), str(PROBES[generation]), str(folder), str(MEMORY)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    outcome, grown = done.stdout.splitlines()
    return outcome, int(grown)


@pytest.mark.skipif(sys.platform != "linux", reason="its memory is looked at in /proc")
@pytest.mark.parametrize(
    ("kind", "n"),
    [
        ("reads", 1900),
        ("reads-at-once", 1900),
        ("writes", 3900),
        ("bodies", 1300),
        pytest.param("finished-bodies", 3900, marks=NO_BODY_BEFORE_IT_IS_SENT),
        ("options", 3900),
        ("empty-fields", 3900),
        ("timers", 1900),
        ("folders", 3900),
        ("listings", 30),
        pytest.param("errors", 1900, marks=NO_ERROR_IS_A_RESOURCE),
    ],
)
def test_whatever_a_guest_holds_takes_no_more_than_its_memory(
    tmp_path: Path, generation: str, kind: str, n: int
) -> None:
    outcome, grown = hold(generation, kind, n, tmp_path)
    assert outcome in ("Ok(200)", "MemoryLimitError", *MANY_HANDLES[generation])
    assert grown < 2 * MEMORY


@pytest.mark.parametrize(
    "kind", ["reads", "reads-at-once", "bodies", pytest.param("finished-bodies", marks=NO_BODY_BEFORE_IT_IS_SENT)]
)
def test_one_that_holds_more_is_told_so(tmp_path: Path, generation: str, kind: str) -> None:
    assert hold(generation, kind, 1300, tmp_path)[0] in ("MemoryLimitError", *MANY_HANDLES[generation])


def test_one_that_holds_less_goes_on(tmp_path: Path, generation: str) -> None:
    assert hold(generation, "reads", 100, tmp_path)[0] == "Ok(200)"
    assert hold(generation, "bodies", 100, tmp_path)[0] == "Ok(200)"


def test_a_set_of_fields_that_can_have_no_more_names_is_an_error_and_no_trap(
    app: AppMaker, generation: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However many `Limits.fields` allows: `http` has room for some 24,000."""
    count, why = app(limits=wasgi.Limits(fields=None)).handle(get("/fields?n=100000")).text.split(" ", 1)
    assert int(count) > 20_000
    if generation == "0.3":
        assert "SizeExceeded" in why  # 0.2 has no word for it
    else:
        assert "Forbidden" in why
        until(lambda: "a set of fields has the maximum number of names" in caplog.text)


class TestMemoryPerApp:
    """`Limits.memory_per_app`: what all exchanges of an app hold."""

    @staticmethod
    def beside(app: AppMaker, most: int, target: str) -> list[str]:
        """What an exchange says alone, beside another one, and alone again."""
        seen: list[str] = []

        def ask() -> None:
            try:
                response = made.handle(get(target))
                seen.append(response.text)
                response.wait()  # the next one is to find its memory given back
            except wasgi.MemoryLimitError as error:
                seen.append(str(error))

        def upstream(request: wasgi.Request) -> wasgi.Response:
            ask()  # while the guest that asks has its memory
            return wasgi.Response()

        made = app(outgoing=upstream, limits=wasgi.Limits(memory_per_app=most))
        ask()
        response = made.handle(get("/fetch?url=http://up/"))
        assert response.status == 200
        response.wait()
        ask()
        return seen

    @staticmethod
    def of_one(app: AppMaker) -> int:
        response = app(outgoing=lambda request: wasgi.Response()).handle(get("/fetch?url=http://up/"))
        response.read()
        report = response.wait()
        assert report is not None
        return report.memory

    def test_a_guest_may_grow_if_the_others_leave_room(self, app: AppMaker) -> None:
        most = self.of_one(app) * 3 // 2 + (4 << 20)
        assert self.beside(app, most, "/try-alloc?mib=4") == ["got it", "refused", "got it"]

    def test_a_guest_may_begin_if_the_others_leave_room(self, app: AppMaker) -> None:
        most = self.of_one(app) * 3 // 2
        alone, beside, again = self.beside(app, most, "/hello")
        assert alone == again == "Hello, World!"
        assert f"its limit of {most} bytes for all exchanges of its app (`Limits.memory_per_app`)" in beside

    def test_another_app_has_a_limit_of_its_own(self, app: AppMaker) -> None:
        limits = wasgi.Limits(memory_per_app=self.of_one(app) * 3 // 2)
        inner = app(limits=limits)
        assert app(outgoing=inner, limits=limits).handle(get("/fetch?url=http://up/hello")).text == "Hello, World!"
