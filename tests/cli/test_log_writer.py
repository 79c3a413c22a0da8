"""Log lines that nobody reads: they hold nobody up, and that they are missing is told."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from gateway.cli.log_writer import MOST_WAITING, LogWriter
from tests.harness.node import Node
from tests.harness.wait import eventually
from tests.harness.wire import Wires


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of one."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):  # a test may have closed it
            os.close(end)


def logged(writer: LogWriter, text: str) -> None:
    writer.handle(logging.LogRecord("x", logging.INFO, __file__, 1, text, (), None))


def wait_until_full(pipe: int) -> None:
    """Wait until the kernel takes no more."""
    until = time.monotonic() + 20
    while select.select([], [pipe], [], 0)[1]:
        assert time.monotonic() < until
        time.sleep(0.005)


def read(pipe: int, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += os.read(pipe, size - len(found))
    return found


def test_lines_come_in_order_from_any_thread(pipe: tuple[int, int]) -> None:
    """Whole, too, however many are written at once."""
    writer = LogWriter(pipe[1])
    count, size = 500, len("0 0000\n")

    def write(name: int) -> None:
        for number in range(count):
            logged(writer, f"{name} {number:04}")

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    lines = read(pipe[0], 4 * count * size).decode().splitlines()
    for name in "0123":
        assert [line for line in lines if line[0] == name] == [f"{name} {i:04}" for i in range(count)]


def test_what_nobody_reads_is_dropped_and_told(pipe: tuple[int, int]) -> None:
    """The newest; how many are missing stands where they are missing, and it is all counted."""
    writer, line, count = LogWriter(pipe[1]), "x" * 999, 2 * MOST_WAITING // 1000
    for number in range(count):
        logged(writer, f"{number:04}" + line[4:])
        if number == 200:  # from here on nothing is written that makes room for a later line
            wait_until_full(pipe[1])
    dropped = writer.dropped
    assert 0 < dropped < count
    kept = [f"{number:04}" for number in range(count - dropped)]
    read_back = read(pipe[0], 1000 * len(kept)).decode().splitlines()
    assert [line[:4] for line in read_back] == kept
    logged(writer, "again")
    told = f"{dropped} log lines were dropped: nobody read them as fast as they came"
    assert read(pipe[0], len(told)).decode() == told
    assert read(pipe[0], len("\nagain\n")) == b"\nagain\n"


def test_a_reader_who_has_gone_is_no_fault(pipe: tuple[int, int]) -> None:
    """What would have been for it is dropped."""
    writer = LogWriter(pipe[1])
    os.close(pipe[0])
    logged(writer, "nobody")
    writer.flush()
    assert writer.dropped == 1


def test_a_record_that_makes_no_line_is_told_of(pipe: tuple[int, int]) -> None:
    """Nothing is raised where it was logged."""
    writer = LogWriter(pipe[1])
    writer.handle(logging.LogRecord("x", logging.INFO, __file__, 1, "%d", ("no number",), None))
    assert read(pipe[0], 10) == b"a line of "


ENDS = {
    "a normal end": "",
    "an exit": "sys.exit(3)",
    "an exception": "raise RuntimeError('broken')",
    "a child": "\nif os.fork() == 0:\n    logging.error('child'); sys.exit()\nos.wait()",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_process_that_ends_has_written_its_lines(end: str) -> None:
    """However it ends, and whatever it has forked."""
    script = f"""
import logging, os, sys
from gateway.cli import logs
logs.use("text", "node", logging.INFO)
for number in range(2000): logging.info("line %s", number)
{end}
"""
    done = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    lines = re.findall(r"INFO root line (\d+)$", done.stderr, re.MULTILINE)
    assert lines == [str(number) for number in range(2000)]
    assert done.stderr.count("ERROR root child\n") == ("child" in end)


def test_a_process_whose_lines_nobody_reads_ends_all_the_same() -> None:
    """It waits for a moment."""
    script = "import logging; from gateway.cli import logs; logs.use('text', '', 20); logging.info('x' * 200_000)"
    child = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
    assert child.wait(timeout=30) == 0
    assert child.stderr is not None
    child.stderr.close()


class Piped:
    """A node whose standard error is a pipe that is read when the test says so."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._reads = node.process.directory / "read"
        os.mkfifo(self._reads)
        shell = f'"$@" 2>&1 | (read line < {self._reads}; exec cat)'
        node.process.command = ["sh", "-c", shell, "sh", *node.process.command]

    async def read(self) -> None:
        await asyncio.to_thread(self._reads.write_text, "now\n")


@contextmanager
def piped(handler: str) -> Iterator[Piped]:
    node = Node(log_format="json", handler=handler)
    try:
        yield Piped(node)
    finally:
        node.close()


async def test_a_log_that_nobody_reads_does_not_stop_a_node(wire: Wires) -> None:
    """It answers, and counts what it drops; read again, it says what is missing."""
    with piped(handler="shouting:Shouting") as log:
        await log.node.start()
        for _ in range(20):
            clients = [await wire.open(log.node.ws_url(fail="x" * 5_000)) for _ in range(20)]
            for client in clients:
                await client.write(client.upgrade())
            for client in clients:
                assert (await client.read_head()).status == 500
        text = (await log.node.answers("/metrics", 200)).text
        dropped = int(float(re.findall(r"^gateway_log_lines_dropped_total (\S+)$", text, re.MULTILINE)[0]))
        assert 0 < dropped < 400
        await log.read()
        await eventually(lambda: f"{dropped} log lines were dropped" in log.node.output)
        assert all(json.loads(line)["node"] == log.node.id for line in log.node.output.splitlines())
