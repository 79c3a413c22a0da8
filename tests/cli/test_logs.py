"""What a node writes to its log: a line a record, and nothing in it that a terminal would act on."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import quote

import pytest
from aiohttp.http_exceptions import BadStatusLine

from gateway.access.log_limit import LogLimit, without_noise
from gateway.cli.logs import JsonLines, TextLines, flush, printable, use
from tests.harness.client import Clients
from tests.harness.node import Node, Nodes, lasting
from tests.harness.wait import eventually
from tests.harness.wire import Wires, frame

V1 = ["gateway.v1.json"]
FORGED = "2026-01-01T00:00:00.000Z INFO gateway forged"
EVIL = f"\x1b[31mred\x1b]0;title\x07\x00\r\n{FORGED}\n\x7f\x9b2J\u2028\u202etxet\ud800"
WIRED = EVIL.replace("\ud800", "")

RECORD = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ [\w.]+ ")


def record_of(message: str, *arguments: object, **fields: object) -> logging.LogRecord:
    record = logging.LogRecord("gateway.some", logging.WARNING, __file__, 1, message, arguments, None)
    record.__dict__ |= fields
    return record


def failed(text: str) -> logging.LogRecord:
    """Make the record of an exception whose text has been chosen by somebody else."""
    try:
        raise RuntimeError(text)
    except RuntimeError:
        return record_of("failed", exc_info=sys.exc_info())


class TestLines:
    @pytest.mark.parametrize("text", ["", "plain", "çà et là", "日本語", "a 'quoted' \\ one", "😀"])
    def test_what_can_be_shown_is_left_as_it_is(self, text: str) -> None:
        assert printable(text) == text

    @pytest.mark.parametrize("character", EVIL)
    def test_what_cannot_be_shown_is_escaped(self, character: str) -> None:
        """Controls of both kinds, line ends of Unicode, changes of direction, halves of characters."""
        assert printable(character).isprintable()
        assert character.isprintable() or printable(character).startswith("\\")

    def test_a_text_record_is_one_line(self) -> None:
        """Time, level, logger, message."""
        line = TextLines().format(record_of("said %s", EVIL))
        assert line.isprintable()
        assert RECORD.match(line)
        assert line.endswith(r"\x7f\x9b2J\u2028\u202etxet\ud800")

    def test_no_line_of_a_traceback_passes_for_a_record(self) -> None:
        """They are indented, whatever the exception says."""
        first, *others = TextLines().format(failed(EVIL)).split("\n")
        assert RECORD.match(first)
        assert len(others) > 3
        assert all(line.isprintable() and line.startswith("  ") for line in others)

    def test_a_json_record_is_an_object_in_one_line(self) -> None:
        """With node, and the connection where it is known; of ASCII only."""
        line = JsonLines("node-1").format(record_of("said %s", EVIL, connection="node-1~1"))
        assert line.isascii()
        assert line.isprintable()
        fields = json.loads(line)
        moment = datetime.fromisoformat(fields.pop("ts"))
        assert moment.tzinfo is not None
        place = {"level": "warning", "logger": "gateway.some", "node": "node-1", "connection": "node-1~1"}
        assert fields == place | {"message": f"said {EVIL}"}

    @pytest.mark.parametrize(
        "record",
        [
            record_of("closed: code=%(code)s reason=%(reason)a", {"code": 1000, "reason": EVIL}),
            record_of(f"closed: code=1000 reason={EVIL!a}", code=1000, reason=EVIL),
        ],
        ids=["named", "extra"],
    )
    def test_a_json_record_has_its_facts_beside_its_message(self, record: logging.LogRecord) -> None:
        """Each under its name, whether the message names them or `extra` does; what every record has stays itself."""
        record.__dict__ |= {"ts": "forged"}
        fields = json.loads(JsonLines("node-1").format(record))
        assert (fields["code"], fields["reason"], fields["node"]) == (1000, EVIL, "node-1")
        assert fields["message"] == f"closed: code=1000 reason={EVIL!a}"
        assert fields["ts"] != "forged"

    def test_a_json_record_has_its_traceback_in_the_same_line(self) -> None:
        line = JsonLines("node-1").format(failed(EVIL))
        assert line.isprintable()
        fields = json.loads(line)
        assert fields["traceback"].startswith("Traceback (most recent call last):\n")
        assert "connection" not in fields

    def test_a_request_that_does_not_parse_is_no_error_of_ours(self) -> None:
        """Neither its traceback nor its text is logged."""
        try:
            raise BadStatusLine(EVIL)
        except BadStatusLine:
            record = record_of("Error handling request from %s", "127.0.0.1", exc_info=sys.exc_info())
        without_noise(record)
        assert TextLines().format(record).endswith("DEBUG gateway.some a request did not parse: BadStatusLine")
        assert without_noise(failed("of an application"))

    def test_what_can_happen_often_is_said_seldom(self, caplog: pytest.LogCaptureFixture) -> None:
        """Once a second, with how often it was not said."""
        limited = LogLimit(logging.getLogger("gateway.some"), logging.WARNING)
        for number in range(100):
            limited("refused: %s", number)
        limited._said -= 1
        limited("refused: %s", "again")
        assert caplog.messages == ["refused: 0", "refused: again (and 99 times before)"]

    def test_a_lack_of_descriptors_is_one_line(self, capfd: pytest.CaptureFixture[str]) -> None:
        """However many connections cannot be taken, and without a traceback."""
        use("text", "node", logging.INFO)
        for _ in range(100):
            error = OSError(24, "Too many open files")
            logging.getLogger("asyncio").error("socket.accept() out of system resource\nsocket: x", exc_info=error)
        flush()
        assert capfd.readouterr().err.count("\n") == 1


@pytest.fixture(scope="module", params=["text", "json"])
def _logging(request: pytest.FixtureRequest) -> Iterator[tuple[Node, str]]:
    with lasting(Nodes(1, handler="shouting:Shouting", log_format=request.param, log_level="debug")) as nodes:
        yield nodes[0], request.param


@pytest.fixture
def node(_logging: tuple[Node, str]) -> Node:
    """A node that logs everything; it lives as long as the module."""
    _logging[0].process.assert_running()
    return _logging[0]


@pytest.fixture
def format(_logging: tuple[Node, str]) -> str:
    """How it writes its log."""
    return _logging[1]


def assert_harmless(node: Node, format: str) -> None:
    """Fail if a byte of the log could do something to a terminal, or a line is not the node's own."""
    output = (node.process.directory / "output").read_bytes()
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]", output)
    for line in output.decode().splitlines():
        if format == "json":
            assert set(json.loads(line)) >= {"ts", "level", "logger", "node", "message"}
        else:
            assert RECORD.match(line) or line.startswith("  ")
            assert not line.startswith(FORGED)


async def logged(node: Node, *texts: str) -> None:
    """Wait until a line of the log has all of these texts."""

    def found() -> bool:
        return any(all(text in line for text in texts) for line in node.output.splitlines())

    await eventually(found, what=f"a line with {texts}")


async def test_opening_and_closing_are_a_line_each(node: Node, format: str, connect: Clients) -> None:
    """With the ids of node and connection."""
    client = await connect(node, "lobby", protocols=V1)
    id = (await client.expect("$welcome"))["param"]["connection"]
    await client.close()
    await logged(node, "opened: ", f"node={node.id}", f"connection={id}", "channels=lobby")
    await logged(node, "closed: ", f"node={node.id}", f"connection={id}", "code=1000")
    if format == "json":
        lines = [json.loads(line) for line in node.output.splitlines()]
        mine = [line["message"].partition(":")[0] for line in lines if line.get("connection") == id]
        assert mine == ["opened", "closed"]
    assert_harmless(node, format)


async def test_a_handler_that_fails_is_logged_with_its_connection(node: Node, format: str, connect: Clients) -> None:
    """Traceback and id in the log; the client is told no more than `internal`."""
    client = await connect(node, "lobby", protocols=V1)
    id = (await client.expect("$welcome"))["param"]["connection"]
    answer = await client.request(f"shout{EVIL}"[:128].replace("\ud800", ""), {"fail": WIRED})
    assert answer["param"]["code"] == "internal"
    assert "red" not in answer["param"]["message"]
    await logged(node, "handler failed", f"connection={id}", "cmd='shout")
    await logged(node, "shouting.py")
    assert_harmless(node, format)


async def test_whatever_clients_write_their_log_lines_are_harmless(node: Node, format: str, wire: Wires) -> None:
    """Names, agents, origins, addresses, commands, channels, reasons: hostile ones in all places."""
    paths = [
        f"/connect?name={quote(WIRED)}",
        f"/connect?ch={quote(WIRED)}",
        f"/{quote(WIRED)}",
        "/connect?fail=x%0a%1b",
    ]
    headers = ["User-Agent", "Origin", "Host", "X-Forwarded-For", "Sec-WebSocket-Protocol", "Cookie", "X\x1b[1m"]
    for path in paths:
        for header in headers:
            client = await wire.open(node.url(path))
            await client.write(client.upgrade(headers={header: "\x1b[31mred\x9b\x7f"}))
            await client.write(frame("\x1b[31m"))
            await client.read()
    client = await wire(node)
    for message in ({"cmd": WIRED}, {"cmd": "$" + WIRED}, {"cmd": "chat", "channel": WIRED}, {"cmd": "x", "id": WIRED}):
        await client.send(json.dumps(message))
        await client.read_frame()
    await client.send((4000).to_bytes(2, "big") + b"bye\x1b[31m\n" + FORGED.encode(), 8)
    await client.read_end(deadline=10)
    await logged(node, "closed: ", "code=4000")
    assert_harmless(node, format)


async def test_what_is_secret_is_not_logged(node: Node, format: str, wire: Wires) -> None:
    """Wherever a client puts its token; also when the handler fails."""
    for path in ("/connect?token=SECRET-1", "/connect?token=SECRET-1&fail=x"):
        client = await wire.open(node.url(path))
        headers = {"Authorization": "Bearer SECRET-2", "Cookie": "gateway_token=SECRET-3"}
        protocols = ["gateway.v1.json", "gateway.token.SECRET-4"]
        await client.write(client.upgrade(headers=headers, protocols=protocols))
        await client.read_head()
        client.close()
    await logged(node, "RuntimeError")
    assert "SECRET" not in node.output
    assert_harmless(node, format)
