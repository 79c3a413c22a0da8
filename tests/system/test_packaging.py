"""What `python -m build` makes, installed where nothing else is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from email.parser import HeaderParser
from pathlib import Path

import pytest

from gateway.version import __version__
from tests.harness import http
from tests.harness.ports import HOST, free_port, release_port
from tests.harness.process import Process
from tests.harness.wait import eventually

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "gateway"
CLIENT = PACKAGE / "client"
PAGES = {
    "/example": "text/html",
    "/static/gateway.js": "javascript",
    "/static/gateway.mjs": "javascript",
    "/static/gateway.d.ts": "",
    "/admin/websocket/login": "text/html",
    "/api/openapi.json": "application/json",
    "/metrics": "text/plain",
}

pytestmark = pytest.mark.slow


def python(*arguments: str | Path) -> None:
    """Run a Python module; fail the test with all that it said if it fails."""
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by way of the source distribution, as it is published."""
    built = tmp_path_factory.mktemp("dist")
    python("build", "--no-isolation", "--outdir", built, ROOT)
    (source,) = built.glob("gateway-*.tar.gz")
    assert source.name == f"gateway-{__version__}.tar.gz"
    (found,) = built.glob("gateway-*.whl")
    return found


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of programs of an environment in which the wheel is, and what it asks for: in tested versions."""
    environment = tmp_path_factory.mktemp("environment")
    python("venv", "--without-pip", environment)
    pip = ("pip", "--python", environment / "bin/python", "--disable-pip-version-check", "--no-input")
    python(*pip, "install", "--quiet", "--no-compile", "--constraint", ROOT / "requirements-ci.txt", wheel)
    return environment / "bin"


class Program(Process):
    """The installed `gateway`, which finds nothing of this repository."""

    def __init__(self, programs: Path, *arguments: str) -> None:
        super().__init__([str(programs / "gateway"), *arguments], name="gateway", without=("GATEWAY_", "PYTHON"))

    async def ended(self) -> tuple[int, str]:
        """Run it to its end; return the exit code and what it printed."""
        try:
            self.start()
            return await self.wait(30), self.output
        finally:
            self.close()


@pytest.fixture
async def node(programs: Path) -> AsyncIterator[str]:
    """The address of a node of the installed program."""
    port = free_port()
    process = Program(programs, "serve", "--port", str(port))
    try:
        process.start()
        address = f"http://{HOST}:{port}"
        await eventually(lambda: http.get(f"{address}/healthz"), 30, what="a node")
        yield address
        assert await process.stop() == 0
    finally:
        process.close()
        release_port(port)


class TestWheel:
    def test_it_holds_the_package_and_no_sources_of_the_browser_client(self, wheel: Path) -> None:
        """Every file beside the code: templates, static files, Lua scripts, and the mark of its types."""
        with zipfile.ZipFile(wheel) as archive:
            packed = {name for name in archive.namelist() if name.startswith("gateway/")}
        files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        wanted = {path for path in files if not path.is_relative_to(CLIENT)} | {
            *CLIENT.glob("*.py"),
            *CLIENT.glob("dist/gateway.*"),
        }
        assert packed == {str(path.relative_to(ROOT)) for path in wanted}
        assert "gateway/py.typed" in packed

    def test_it_says_what_it_is(self, wheel: Path) -> None:
        """Its version, which is the package's, and the Python and extras it is for."""
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            metadata = HeaderParser().parsestr(archive.read(name).decode())
        assert (metadata["Name"], metadata["Version"]) == ("gateway", __version__)
        assert metadata["Requires-Python"] == ">=3.11"
        assert "otel" in (metadata.get_all("Provides-Extra") or [])


class TestInstalled:
    async def test_it_runs_where_nothing_else_is(self, programs: Path) -> None:
        """It tells its version and its settings."""
        assert await Program(programs, "--version").ended() == (0, f"gateway {__version__}\n")
        code, printed = await Program(programs, "config", "--json").ended()
        assert (code, {row["origin"] for row in json.loads(printed)}) == (0, {"default"})

    async def test_a_node_has_its_pages(self, node: str) -> None:
        """From files of the wheel."""
        for path, kind in PAGES.items():
            answer = await http.get(node + path)
            assert (answer.status, bool(answer.body)) == (200, True), path
            assert kind in answer.headers["Content-Type"], path

    async def test_traces_are_an_extra(self, programs: Path) -> None:
        """Without it the one line says what to install."""
        code, printed = await Program(programs, "serve", "--port", "0", "--tracing", "true").ended()
        assert (code, len(printed.splitlines())) == (2, 1)
        assert "gateway[otel]" in printed


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("CHANGELOG.md", r"^## (\S+)"),
        ("Dockerfile", r"gateway:(\S+)"),
        ("docker-compose.yml", r"image: gateway:(\S+)"),
        ("gateway/client/package.json", r'^  "version": "(.*)"'),
        ("k8s/overlays/dev/kustomization.yaml", r"newTag: (\S+)"),
        ("k8s/overlays/production/kustomization.yaml", r"newTag: (\S+)"),
    ],
)
def test_whoever_names_the_version_names_the_same(file: str, pattern: str) -> None:
    """It is `gateway/version.py` that says which; who forgets another place hears of it here."""
    named = re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE)
    assert named
    assert named[0] == __version__
