"""`gateway serve` as an operator meets it: what it prints, when it ends, and how."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest

from gateway.cli import main
from gateway.config import Settings
from gateway.version import __version__
from tests.harness.client import Clients
from tests.harness.node import Node, gateway
from tests.harness.ports import HOST, free_port, release_port
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually
from tests.harness.wire import Wires


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    output: str

    @property
    def lines(self) -> list[str]:
        """What it printed, log records and all."""
        return self.output.splitlines()


async def run(*arguments: str | int, **environment: str) -> Ended:
    """Run `gateway` with these arguments until it ends by itself."""
    process = gateway(*map(str, arguments), environment=environment)
    try:
        process.start()
        return Ended(await process.wait(deadline=30), process.output)
    finally:
        process.close()


@pytest.fixture
def closed_port() -> Callable[[], int]:
    """Returns a port that nobody listens on."""

    def port() -> int:
        found = free_port()
        release_port(found)
        return found

    return port


class Stranger:
    """Somebody on a port who is no Redis: says one thing to whoever calls."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.called = asyncio.Event()
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.called.set()
        writer.write(self.answer)

    async def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)


@asynccontextmanager
async def listening(answer: bytes) -> AsyncIterator[Stranger]:
    """Let a stranger have a port for the length of a `with`."""
    stranger = Stranger(answer)
    server = await asyncio.start_server(stranger.talk, HOST)
    stranger.port = server.sockets[0].getsockname()[1]
    try:
        yield stranger
    finally:
        server.close()
        await stranger.hang_up()


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Calls `gateway` in this process, for what starts nothing."""
    monkeypatch.setenv("GATEWAY_CONFIG", "set here so that it is restored")
    monkeypatch.delenv("GATEWAY_CONFIG")
    monkeypatch.setattr(sys, "path", [*sys.path])

    def invoke(*arguments: str | Path, **environment: str) -> Ended:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["gateway", *map(str, arguments)])
        with pytest.raises(SystemExit) as raised:
            main()
        assert isinstance(raised.value.code, int)
        return Ended(raised.value.code, "".join(capsys.readouterr()))

    return invoke


@pytest.fixture
def refusal(invoke: Callable[..., Ended]) -> Callable[..., str]:
    """Calls `gateway` with something wrong, and returns the one line with which it ends with 2."""

    def refusal(*arguments: str | Path, **environment: str) -> str:
        ended = invoke(*arguments, **environment)
        assert (ended.code, len(ended.output.splitlines())) == (2, 1), ended.output
        return ended.output

    return refusal


class TestUse:
    async def test_help_names_the_commands(self) -> None:
        """Whoever knows nothing finds `serve`."""
        ended = await run("--help")
        assert ended.code == 0
        assert "serve" in ended.output

    def test_help_of_serve_names_every_setting(self, invoke: Callable[..., Ended]) -> None:
        """Each setting is an option, described and with its default."""
        ended = invoke("serve", "--help")
        assert ended.code == 0
        assert [name for name in Settings.model_fields if f"--{name.replace('_', '-')} " not in ended.output] == []
        assert all(value in ended.output for value in ("8080", "65536", "memory://", "demo.chat:DemoHandler"))

    def test_the_version_is_told(self, invoke: Callable[..., Ended]) -> None:
        """`--version` is one line."""
        assert invoke("--version") == Ended(0, f"gateway {__version__}\n")

    def test_a_reader_that_has_enough_is_no_error(self) -> None:
        """As in `gateway config | head -1`."""
        with subprocess.Popen(
            [sys.executable, "-m", "gateway", "config"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert (process.stderr.read(), process.wait(timeout=30)) == (b"", 0)

    @pytest.mark.parametrize("arguments", [(), ("dance",), ("serve", "--dance"), ("serve", "--port")], ids=" ".join)
    def test_a_wrong_use_is_2(self, invoke: Callable[..., Ended], arguments: tuple[str, ...]) -> None:
        """The last line says what was wrong, and nothing is run."""
        ended = invoke(*arguments)
        assert ended.code == 2
        assert ended.lines[-1].startswith("gateway")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("status", "--redis_url", "redis://localhost"), "--redis_url; did you mean --redis-url?"),
            (("serve", "--redis-ulr=redis://localhost"), "--redis-ulr; did you mean --redis-url?"),
            (("publish", "--chanel", "lobby", "--all", "chat", "1"), "--chanel; did you mean --channel?"),
            (("publish", "--chanel", "lobby", "chat"), "--chanel; did you mean --channel?"),
            (("publish", "--chanel=lobby", "chat"), "--chanel; did you mean --channel?"),
            (("publish", "-chanel", "lobby", "chat"), "-chanel; did you mean --channel?"),
            (("publish", "--al", "--user", "ada", "--connection", "a~1", "chat"), "--al; did you mean --all?"),
            (("token", "--usr", "ada", "--jwt-secret", "x"), "--usr; did you mean --user?"),
            (("publish", "chat", "1"), "one of the arguments --channel --user --connection --all is required"),
            (("publish", "--all", "chat", "1", "2"), "unrecognized argument 2"),
            (("publish", "--all", "chat", "1", "--", "--two"), "unrecognized argument --two"),
            (("publish", "--", "--chanel"), "one of the arguments --channel --user --connection --all is required"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
    )
    def test_a_misspelled_option_is_named(
        self, invoke: Callable[..., Ended], arguments: tuple[str, ...], said: str
    ) -> None:
        """In one line, with the one that was meant, and where to read which there are."""
        ended = invoke(*arguments)
        assert (ended.code, len(ended.lines)) == (2, 1)
        assert ended.lines[0].startswith(f"gateway {arguments[0]}: ")
        assert ended.lines[0].endswith(f"{said}; see gateway {arguments[0]} --help")

    def test_a_misspelled_variable_is_named(self, invoke: Callable[..., Ended]) -> None:
        """Nobody reads it, and the command does the rest."""
        ended = invoke("config", "--json", GATEWAY_REDIS_UR="redis://localhost")
        assert (ended.code, len(ended.lines)) == (0, 2)
        assert "gateway: GATEWAY_REDIS_UR: no such setting; did you mean GATEWAY_REDIS_URL?" in ended.lines

    @pytest.mark.parametrize("param", ["{text: 1}", "{'text': 1}", "hi", "NaN", "[Infinity]", ""])
    def test_a_param_that_is_no_json_is_one_line(self, refusal: Callable[..., str], param: str) -> None:
        assert "PARAM_JSON: expected JSON, got" in refusal("publish", "--all", "chat", param)

    @pytest.mark.parametrize("text", ["", '{"a": ', "123456789012345678901", "[" * 2000])
    def test_what_comes_from_the_standard_input_is_looked_at_alike(
        self, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        """With - for the parameter."""
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert "PARAM_JSON: expected JSON, got" in refusal("publish", "--all", "chat", "-")

    @pytest.mark.parametrize(
        ("given", "seconds"),
        [("90", 90), ("1.5", 1.5), ("90s", 90), ("90m", 5400), ("12h", 43_200), ("30d", 2_592_000)],
    )
    def test_a_token_lasts_as_people_write_it(self, invoke: Callable[..., Ended], given: str, seconds: float) -> None:
        """In seconds, or with a unit."""
        made = invoke("token", "--jwt-secret", "s" * 32, "--user", "ada", "--ttl", given)
        claims = jwt.decode(made.output.strip(), options={"verify_signature": False})
        assert (made.code, len(made.lines)) == (0, 1)
        assert 0 <= claims["exp"] - claims["iat"] - seconds < 2

    @pytest.mark.parametrize("given", ["1y", "h", "", "-1", "1h30m", "inf", "nan", "1e99d"])
    def test_what_is_no_time_is_refused(self, refusal: Callable[..., str], given: str) -> None:
        """With what would be one."""
        assert "--ttl: expected seconds" in refusal(
            "token", "--jwt-secret", "s" * 32, "--user", "ada", f"--ttl={given}"
        )

    def test_a_secret_that_can_be_guessed_is_told(self, invoke: Callable[..., Ended]) -> None:
        """The token is made all the same: the nodes, which say so too, may have no other yet."""
        made = invoke("token", "--jwt-secret", "short", "--user", "ada")
        assert made.code == 0
        assert any("jwt_secret: 5 bytes can be guessed" in line for line in made.lines)

    def test_who_knows_ascii_alone_reads_ascii(self) -> None:
        """A pipe in an old locale; the output is JSON all the same."""
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "config", "--json", "--prefix", "caf\u00e9"],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"},
            timeout=30,
        )
        assert {"name": "prefix", "value": "caf\u00e9"}.items() <= json.loads(done.stdout)[4].items()

    async def test_an_interrupted_command_says_nothing(self) -> None:
        """While it waits for Redis; the exit code is that of a shell."""
        async with listening(b"") as silent:
            process = gateway("publish", "--redis-url", silent.url, "--publish-timeout", "3600", "--all", "chat")
            try:
                process.start()
                async with asyncio.timeout(30):
                    await silent.called.wait()
                process.send_signal(signal.SIGINT)
                assert (await process.wait(deadline=20), process.output) == (130, "")
            finally:
                process.close()


class TestWrongValues:
    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("--port", "http"),
            ("--port", "65536"),
            ("--log-level", "loud"),
            ("--redis-url", "http://localhost"),
            ("--redis-url", "redis://localhost:port/0"),
            ("--redis-url", "redis://localhost:99999/0"),
            ("--node-id", "a b"),
            ("--handler", "nonsense"),
            ("--handler", "no.such.module:Handler"),
            ("--handler", "gateway.server.demo.chat:Nobody"),
            ("--handler", "gateway.config:Settings"),
            ("--handler", ":DemoHandler"),
            ("--handler", "gateway.server.demo.chat:"),
        ],
    )
    def test_a_wrong_value_is_one_line_and_2(self, refusal: Callable[..., str], option: str, value: str) -> None:
        """The line names the setting and the value."""
        line = refusal("serve", "--startup-timeout", "0.1", option, value)
        assert option.lstrip("-").replace("-", "_") in line
        assert value in line

    def test_the_command_line_wins_over_the_environment_over_the_file(
        self, refusal: Callable[..., str], tmp_path: Path
    ) -> None:
        """The value complained of is the one that counts."""
        file = tmp_path / "gateway.toml"
        file.write_text('log_level = "of-the-file"\n')
        assert "of-the-file" in refusal("serve", "--config", file)
        assert "of-the-environment" in refusal("serve", "--config", file, GATEWAY_LOG_LEVEL="of-the-environment")
        assert "of-the-line" in refusal("serve", "--config", file, "--log-level", "of-the-line")

    def test_a_file_may_be_named_in_the_environment(self, refusal: Callable[..., str], tmp_path: Path) -> None:
        """`GATEWAY_CONFIG` is `--config`, which wins; a file that is missing is named."""
        one, two = tmp_path / "one.toml", tmp_path / "two.toml"
        assert str(one) in refusal("serve", GATEWAY_CONFIG=str(one))
        assert str(two) in refusal("serve", "--config", two)

    async def test_a_port_from_a_kubernetes_service_is_one_line_and_2(self) -> None:
        """Kubernetes sets GATEWAY_PORT=tcp://... in every pod beside a Service named `gateway`."""
        ended = await run("serve", GATEWAY_PORT="tcp://10.0.0.1:80")
        assert (ended.code, len(ended.output.splitlines())) == (2, 1), ended.output
        assert "port" in ended.output
        assert "tcp://10.0.0.1:80" in ended.output


class TestConfig:
    def test_every_setting_is_told_with_its_origin(self, invoke: Callable[..., Ended], tmp_path: Path) -> None:
        """Meaning, default, value, and which of the four places it comes from."""
        file = tmp_path / "gateway.toml"
        file.write_text('port = 1\npresence_max = 5\nprefix = "of-the-file"\n')
        ended = invoke("config", "--json", "--config", file, "--port", "3", GATEWAY_PORT="2", GATEWAY_PRESENCE_MAX="6")
        rows = {row.pop("name"): row for row in json.loads(ended.output)}
        assert list(rows) == list(Settings.model_fields)
        found = {
            name: (rows[name]["value"], rows[name]["origin"]) for name in ("port", "presence_max", "prefix", "host")
        }
        assert found == {
            "port": (3, "command line"),
            "presence_max": (6, "environment"),
            "prefix": ("of-the-file", str(file)),
            "host": ("127.0.0.1", "default"),
        }
        assert rows["port"]["default"] == 8080
        assert all(row["meaning"] for row in rows.values())

    def test_no_secret_is_told(self, invoke: Callable[..., Ended]) -> None:
        """Whether there is one can be seen."""
        secrets = {
            "GATEWAY_API_KEY": "hunter2",
            "GATEWAY_ADMIN_PASSWORD": "hunter2",
            "GATEWAY_JWT_SECRET": "hunter2" * 5,
        }
        arguments = ("config", "--redis-url", "redis://ada:hunter2@localhost/0")
        text, listed = invoke(*arguments, **secrets), invoke(*arguments, "--json", **secrets)
        for ended in (text, listed):
            assert (ended.code, "hunter2" in ended.output) == (0, False)
            assert "redis://ada:***@localhost/0" in ended.output
        rows = {row["name"]: row["value"] for row in json.loads(listed.output)}
        assert (rows["api_key"], rows["jwt_secret"], rows["jwt_public_key"]) == ("***", "***", "")

    def test_what_is_printed_is_a_file_of_settings(self, invoke: Callable[..., Ended], tmp_path: Path) -> None:
        """Given as `--config` it makes the same settings, but for what a node makes anew."""
        given = ("--allowed-origins", "https://a,https://b", "--heartbeat", "1.5")
        rules = '[{"match": "a-*", "history": 5, "presence": false}]'
        file = tmp_path / "printed.toml"
        file.write_text(invoke("config", *given, "--channels", rules).output)
        again = {row["name"]: row for row in json.loads(invoke("config", "--json", "--config", file).output)}
        assert again["allowed_origins"]["value"] == ["https://a", "https://b"]
        assert again["heartbeat"]["value"] == 1.5
        assert again["channels"]["value"] == [{"match": "a-*", "history": 5, "presence": False}]
        assert again["node_id"]["origin"] == "default"


class TestSchema:
    def test_json_schema_and_typescript_are_written(self, invoke: Callable[..., Ended]) -> None:
        """The one unless the other is asked for, under the name that is wanted."""
        written = invoke("schema", "--handler", "tests.handlers.typed:router")
        assert written.code == 0
        assert "who-is" in json.loads(written.output)["properties"]["commands"]["properties"]
        module = invoke(
            "schema", "--handler", "tests.handlers.typed:router", "--typescript", "--name", "Chatter"
        ).output
        assert "export interface Chatter {\n  commands: {\n" in module
        assert module.endswith("}\n")

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (("--handler", "tests.handlers.typed:nothing"), "tests.handlers.typed:nothing"),
            (("--handler", "tests.handlers.typed:router", "--typescript", "--name", "two words"), "'two words'"),
        ],
    )
    def test_what_cannot_be_described_is_one_line_and_2(
        self, refusal: Callable[..., str], arguments: tuple[str, ...], named: str
    ) -> None:
        """The line names it."""
        assert named in refusal("schema", *arguments)

    def test_a_wrong_declaration_is_one_line(
        self, invoke: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A module in the working directory is found, and what is wrong in it is named."""
        source = "import gateway\nrouter = gateway.Router()\n@router.command('x')\nasync def carry_out(text): pass\n"
        (tmp_path / "wrongly_declared.py").write_text(source)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [path for path in sys.path if path != ""])
        ended = invoke("schema", "--handler", "wrongly_declared:router")
        assert (ended.code, len(ended.lines)) == (2, 1)
        assert "wrongly_declared.carry_out: parameter 'text'" in ended.output
        assert f"{tmp_path / 'wrongly_declared.py'}, line 3" in ended.output

    def test_a_handler_that_declares_nothing_allows_anything(self, invoke: Callable[..., Ended]) -> None:
        """As that of the demo, which is taken when none is named; and a line says so."""
        described = invoke("schema", "--typescript")
        assert described.code == 0
        assert "commands: { [key: string]: any };" in described.output
        assert "DemoHandler is no Router" in described.output


class TestCannotStart:
    async def test_a_busy_port_is_one_line_and_1(self) -> None:
        """The line says which port, and what is wrong with it."""
        async with listening(b"") as stranger:
            ended = await run("serve", "--port", stranger.port)
        assert (ended.code, len(ended.lines)) == (1, 1), ended.output
        assert str(stranger.port) in ended.output
        assert "in use" in ended.output

    async def test_an_address_of_another_machine_is_one_line_and_1(self) -> None:
        """A host that is not this one's cannot be listened on."""
        ended = await run("serve", "--host", "203.0.113.1", "--port", 0)
        assert (ended.code, len(ended.lines)) == (1, 1), ended.output
        assert "203.0.113.1" in ended.output

    async def test_an_absent_redis_is_one_line_and_1(self, closed_port: Callable[[], int]) -> None:
        """The node waits for it as long as it was told, and says where it looked, why once, and no password."""
        url = f"redis://ada:hunter2@{HOST}:{closed_port()}/0"
        ended = await run("serve", "--port", 0, "--redis-url", url, "--startup-timeout", "0.5")
        assert (ended.code, len(ended.lines)) == (1, 1), ended.output
        assert url.partition("@")[2] in ended.lines[0]
        assert ended.output.count("no connection to Redis") == 1
        assert "hunter2" not in ended.output
        assert "Traceback" not in ended.output

    @pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 9])
    async def test_what_is_no_redis_is_one_line_and_1(self, answer: bytes) -> None:
        """Somebody else on that port, silent or not, is no Redis."""
        async with listening(answer) as stranger:
            ended = await run("serve", "--port", 0, "--redis-url", stranger.url, "--startup-timeout", "0.5")
        assert (ended.code, len(ended.lines)) == (1, 1), ended.output
        assert "Traceback" not in ended.output

    @pytest.mark.parametrize("credentials", ["", ":wrong@", "ada:wrong@"])
    async def test_a_wrong_password_is_one_line_and_1_at_once(
        self, credentials: str, start_redis: Callable[..., Awaitable[RedisServer]]
    ) -> None:
        """Nothing but a person can mend that, so nothing is waited for."""
        server = await start_redis(requirepass="secret")
        url = f"redis://{credentials}{HOST}:{server.port}/0"
        ended = await run("serve", "--port", 0, "--redis-url", url, "--startup-timeout", "3600")
        assert (ended.code, len(ended.lines)) == (1, 1), ended.output
        assert "Redis at redis://" in ended.output
        assert "wrong" not in ended.output.replace("WRONGPASS", "")
        assert "Traceback" not in ended.output

    async def test_a_redis_that_comes_late_is_waited_for(
        self, own_redis: RedisServer, start_node: Callable[..., Awaitable[Node]]
    ) -> None:
        """A cluster whose parts start in any order comes up."""
        await own_redis.stop()
        starting = asyncio.ensure_future(start_node(own_redis, startup_timeout=60))
        assert not (await asyncio.wait([starting], timeout=1))[0]
        await own_redis.start()
        assert (await (await starting).get("/healthz")).status == 200


class TestEnd:
    async def test_a_node_says_where_it_is(self, start_node: Callable[..., Awaitable[Node]]) -> None:
        """Once it can be reached, one line has its name, the address of the demo and the way in to the admin pages."""
        node = await start_node(id="ada")
        await eventually(lambda: node.url("/example") in node.output)
        (line,) = node.output.splitlines()
        assert " INFO " in line
        assert "node ada:" in line
        assert f"admin pages, log in once by {node.url('/admin/websocket/login')}#" in line
        named = await start_node(id="bob", admin_password="hunter2")
        await eventually(lambda: named.output.strip().endswith(f"admin pages {named.url('/admin/websocket')}"))

    async def test_pages_that_do_not_exist_have_no_address(self, start_node: Callable[..., Awaitable[Node]]) -> None:
        """Open to the network and without a password, a node says how to have them."""
        node = await start_node(host="0.0.0.0")
        await eventually(lambda: "admin pages off without admin_password" in node.output)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
    async def test_a_signal_ends_a_node_in_good_order(
        self, number: signal.Signals, start_node: Callable[..., Awaitable[Node]], connect: Clients
    ) -> None:
        """Its clients are told to come back, and the exit code is 0."""
        node = await start_node()
        clients = await connect.many(5, node, "lobby")
        node.process.send_signal(number)
        for client in clients:
            assert (await client.expect_close(1012)).reason
        assert await node.process.wait() == 0
        assert "Traceback" not in node.output

    async def test_a_client_that_does_not_answer_holds_up_nothing(
        self, redis: RedisServer, start_node: Callable[..., Awaitable[Node]], wire: Wires
    ) -> None:
        """When the time to drain is over it is cut off, and nothing of it is left in Redis."""
        node = await start_node(redis, drain_seconds=1)
        client = await wire(node, "lobby")
        await client.send('{"cmd": "ping"}')
        await eventually(lambda: redis.command("SCARD", "gateway:members:lobby"))
        node.process.send_signal(signal.SIGTERM)
        assert (await client.read_close()).close_code == 1012
        assert await node.process.wait(deadline=20) == 0
        assert set(await redis.command("KEYS", "*")) <= {"gateway:events", "gateway:rules"}

    async def test_a_node_without_its_redis_ends_in_good_order_too(
        self, own_redis: RedisServer, start_node: Callable[..., Awaitable[Node]], connect: Clients
    ) -> None:
        """Its clients are sent away, and nobody waits for what cannot be written."""
        node = await start_node(own_redis)
        client = await connect(node, "lobby")
        await client.send("ping")
        await client.expect("pong")
        await own_redis.stop()
        node.process.send_signal(signal.SIGTERM)
        await client.expect_close(1012)
        assert await node.process.wait(deadline=20) == 0
        assert "Traceback" not in node.output

    async def test_a_node_that_waits_for_redis_can_be_ended(self) -> None:
        """SIGTERM counts from the beginning."""
        async with listening(b"") as silent:
            process = gateway("serve", "--port", "0", "--redis-url", silent.url, "--startup-timeout", "3600")
            try:
                process.start()
                async with asyncio.timeout(30):
                    await silent.called.wait()
                assert await process.stop(deadline=20) == 0
                assert process.output == ""
            finally:
                process.close()
