"""Completion of the command line, by a real bash."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.cli import COMMANDS
from gateway.config import Settings
from tests.harness.node import gateway
from tests.harness.process import program
from tests.harness.wait import eventually

NAMES = [command.__name__.rpartition(".")[2] for command in COMMANDS]

ASK = """
source "$1"
COMP_WORDS=("${@:2}")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
"$(complete -p gateway | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
printf '%s\\n' "${COMPREPLY[@]}"
"""


class Terminal:
    """What a person sees of a program, and types."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._shown = ""

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def read(self) -> None:
        with contextlib.suppress(OSError):  # the program has ended
            self._shown += os.read(self._fd, 65536).decode(errors="replace")

    async def shows(self, text: str) -> None:
        """Wait until it does."""
        await eventually(lambda: text in self._shown, what=repr(text))


@contextlib.asynccontextmanager
async def terminal(*command: str) -> AsyncIterator[Terminal]:
    """Run a program in a terminal of its own; it is killed at the end."""
    ours, theirs = pty.openpty()
    environment = {"TERM": "dumb", "INPUTRC": os.devnull, "PATH": os.environ["PATH"]}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    shown, loop = Terminal(ours), asyncio.get_running_loop()
    loop.add_reader(ours, shown.read)
    try:
        yield shown
    finally:
        loop.remove_reader(ours)
        process.kill()
        process.wait()
        os.close(ours)


def script_for(shell: str) -> str:
    command = [sys.executable, "-m", "gateway", "completion", shell]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `gateway completion bash` prints."""
    file = tmp_path_factory.mktemp("completion") / "gateway"
    file.write_text(script_for("bash"))
    return file


@pytest.fixture
def complete(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Asks bash how the last of some words may go on."""
    monkeypatch.chdir(tmp_path)

    def complete(*words: str) -> list[str]:
        command = [program("bash"), "--norc", "-c", ASK, "bash", str(script), "gateway", *words]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
        assert not done.stderr
        return done.stdout.split()

    return complete


class TestBash:
    def test_commands_are_completed(self, complete: Callable[..., list[str]]) -> None:
        """All of them, and those that begin so."""
        assert complete("") == NAMES
        assert complete("t") == ["top", "tap", "token"]

    def test_options_are_completed(self, complete: Callable[..., list[str]]) -> None:
        """Every setting of `serve`, and what is a command's own."""
        found = complete("serve", "--")
        assert {f"--{name.replace('_', '-')}" for name in Settings.model_fields} <= set(found)
        assert "--worker" not in found
        assert complete("token", "--ch") == ["--channels"]

    @pytest.mark.parametrize(
        ("words", "values"),
        [
            (("serve", "--log-level", ""), ["debug", "info", "warning", "error"]),
            (("serve", "--port", "1", "--log-format", "j"), ["json"]),
            (("config", "--compression", ""), ["true", "false"]),
            (("completion", ""), ["bash", "zsh", "fish"]),
        ],
        ids=str,
    )
    def test_values_are_completed(
        self, complete: Callable[..., list[str]], words: tuple[str, ...], values: list[str]
    ) -> None:
        """Where there are few."""
        assert complete(*words) == values

    @pytest.mark.parametrize("option", ["--config", "--jwt-public-key", "--jwks-file"])
    def test_files_are_completed(self, complete: Callable[..., list[str]], tmp_path: Path, option: str) -> None:
        """Where a file is wanted."""
        (tmp_path / "production.toml").touch()
        assert complete("serve", option, "prod") == ["production.toml"]

    async def test_a_person_presses_tab(self, script: Path) -> None:
        """In an interactive shell the word under the cursor goes on, and the line can be run."""
        async with terminal(program("bash"), "--norc", "--noprofile", "-i") as shell:
            shell.type(f"PS1='READY>'; source {script}; gateway() {{ echo \"called with $*\"; }}\n")
            await shell.shows("\nREADY>")
            shell.type("gateway ser\t--log-l\terr\t\n")
            await shell.shows("called with serve --log-level error")


class TestOthers:
    @pytest.mark.parametrize("shell", ["zsh", "fish"])
    def test_there_is_a_script_for(self, shell: str) -> None:
        """That knows every command."""
        written = script_for(shell)
        assert [name for name in NAMES if name not in written] == []

    async def test_another_shell_is_a_wrong_use(self) -> None:
        """Which says which there are."""
        process = gateway("completion", "cmd.exe")
        try:
            process.start()
            assert await process.wait(deadline=30) == 2
            assert "'bash', 'zsh', 'fish'" in process.output
        finally:
            process.close()
