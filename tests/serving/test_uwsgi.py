"""Under uWSGI, which blocks all signals in all of its threads but the first."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.conftest import PROBE, until
from tests.processes import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

APPLICATION = f"import wasgi\napplication = wasgi.App({str(PROBE)!r}).wsgi\n"


@pytest.fixture(scope="module")
def uwsgi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It has no wheels, and is compiled for this interpreter."""
    uv = shutil.which("uv")
    if uv is None or shutil.which("cc") is None:
        pytest.skip("it takes uv and a C compiler to build uWSGI")
    folder = tmp_path_factory.mktemp("uwsgi")
    command = [uv, "pip", "install", "--python", sys.executable, "--target", str(folder), "uwsgi"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "bin" / "uwsgi"


def test_a_trap_is_a_trap(uwsgi: Path, tmp_path: Path) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    port = free_port()
    command = [str(uwsgi), "-H", sys.prefix, "--http-socket", f"127.0.0.1:{port}", "--wsgi-file", "application.py"]
    command += ["--threads", "4", "--master", "--lazy-apps", "--need-app", "--no-orphans", "--die-on-term"]

    def get(route: str) -> httpx2.Response:
        return httpx2.get(f"http://127.0.0.1:{port}{route}")  # uWSGI keeps no connection

    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log) as server,
    ):

        def answers() -> bool:
            assert server.poll() is None, (tmp_path / "log").read_text()
            try:
                return get("/hello").status_code == 200
            except httpx2.TransportError:
                return False

        try:
            until(answers)
            for route in ["/trap", "/out-of-bounds", "/overflow?n=100000000"] * 8:
                assert get(route).status_code == 500
            assert get("/hello").text == "Hello, World!"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
    logged = (tmp_path / "log").read_text()
    assert "DAMN" not in logged
    assert "respawn" not in logged
