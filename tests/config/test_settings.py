"""Where a setting comes from, and what is said of a wrong one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gateway.config import Settings, load, misspelled
from gateway.errors import InvalidSettings

NUMBERS = [name for name, field in Settings.model_fields.items() if field.annotation in (int, float)]
FLOATS = [name for name, field in Settings.model_fields.items() if field.annotation is float]
WHOLE = [name for name in NUMBERS if name not in FLOATS]

WRONG = [
    *[("port", value) for value in ("http", "", " ", "80.5", "-1", "65536", "0x50", "1e3", "tcp://10.0.0.1:80")],
    *[(name, value) for name in NUMBERS for value in ("many", "-1")],
    *[(name, "1.5") for name in WHOLE],
    *[(name, value) for name in FLOATS for value in ("nan", "inf")],
    *[("redis_url", value) for value in ("", "localhost", "localhost:6379", "http://localhost", "redis:/x", "://")],
    *[("prefix", value) for value in ("", "a b", "a*", "x" * 201)],
    *[("node_id", value) for value in ("", "a b", "a~b", "a\nb", "x" * 201)],
    *[("log_level", value) for value in ("", "loud", "10")],
    *[("allowed_origins", value) for value in ("[", '["a"', "[1", "[nonsense]")],
    *[("allowed_origins", value) for value in ("a.example", "https://a.example/", "HTTPS://a.example", "https://*.a")],
    *[("allowed_origins", value) for value in ("https://a.example:443", "http://a.example:80", "http://a,b:1")],
]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tests' own environment says of the gateway does not count."""
    for name in [name for name in os.environ if name.upper().startswith("GATEWAY_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Writes the TOML file that `GATEWAY_CONFIG` names."""

    def write(text: str) -> None:
        path = tmp_path / "gateway.toml"
        path.write_text(text)
        monkeypatch.setenv("GATEWAY_CONFIG", str(path))

    return write


def refusal(**given: Any) -> str:
    """Load settings that are wrong; return what is said of them, which is one short printable line."""
    with pytest.raises(InvalidSettings) as raised:
        load(**given)
    line = str(raised.value)
    assert line.isprintable()
    assert len(line) < 300
    return line


class TestSources:
    def test_defaults_are_the_contract_s(self) -> None:
        """What nobody sets is as documented."""
        settings = load()
        defaults = {
            "host": "127.0.0.1",
            "port": 8080,
            "redis_url": "memory://",
            "prefix": "gateway",
            "max_message_bytes": 65536,
            "max_connections": 0,
            "max_channels_per_connection": 128,
            "presence_max": 1000,
            "message_rate": 100,
            "message_burst": 200,
            "byte_rate": 1 << 20,
            "history_total_bytes": 512 << 20,
            "abuse_limit": 100,
            "handshake_timeout": 5,
            "trusted_proxies": (),
            "log_format": "text",
            "outbox_bytes": 1 << 20,
            "publish_queue": 10_000,
            "publish_timeout": 10,
            "heartbeat": 25,
            "drain_seconds": 20,
            "startup_timeout": 30,
            "log_level": "info",
        }
        assert {name: getattr(settings, name) for name in defaults} == defaults

    def test_two_nodes_have_different_names(self) -> None:
        """A node that is not named gets a name nobody else has, which a connection id can carry, as it starts."""
        settings = load()
        assert settings.node_id == ""
        one, two = settings.named().node_id, settings.named().node_id
        assert one != two
        assert "~" not in one
        assert load(node_id="mine").named().node_id == "mine"

    def test_every_setting_is_described(self) -> None:
        """What it means is said where it is defined."""
        assert [name for name, field in Settings.model_fields.items() if not field.description] == []

    def test_the_environment_wins_over_the_file_and_what_is_given_over_both(
        self, file: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Defaults, file, environment, command line: the later one counts."""
        file('prefix = "from-file"\nport = 1\nhost = "from-file"\n')
        monkeypatch.setenv("GATEWAY_PREFIX", "from-environment")
        monkeypatch.setenv("GATEWAY_PORT", "2")
        settings = load(port="3")
        assert (settings.host, settings.prefix, settings.port) == ("from-file", "from-environment", 3)
        assert settings.log_level == "info"

    @pytest.mark.parametrize(
        "written", ["https://a.example,https://b.example", " https://a.example , https://b.example "]
    )
    def test_a_list_is_separated_by_commas(self, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the environment and on the command line alike."""
        monkeypatch.setenv("GATEWAY_ALLOWED_ORIGINS", written)
        expected = ("https://a.example", "https://b.example")
        assert load().allowed_origins == load(allowed_origins=written).allowed_origins == expected

    def test_a_list_may_be_json(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """For what has a comma in it, or comes from a program."""
        monkeypatch.setenv("GATEWAY_ALLOWED_ORIGINS", json.dumps(["https://a.example", "http://b"]))
        assert load().allowed_origins == ("https://a.example", "http://b")

    @pytest.mark.parametrize(
        ("origin", "meant"),
        [
            ("HTTPS://A.example", "https://a.example"),
            ("https://a.example:443/", "https://a.example"),
            ("http://a.example:8080/", "http://a.example:8080"),
            ("https://Bücher.example/", "https://xn--bcher-kva.example"),
            ("https://ü..example", "the name of a site"),
        ],
    )
    def test_what_was_meant_by_an_origin_is_named(self, origin: str, meant: str) -> None:
        """Where it is plain."""
        assert f"expected {meant}" in refusal(allowed_origins=origin)

    @pytest.mark.parametrize(
        ("name", "written"), [("bücher.example", "xn--bcher-kva.example"), ("straße.de:81", "xn--strae-oqa.de:81")]
    )
    def test_a_name_in_other_letters_is_what_dns_has_for_it(self, name: str, written: str) -> None:
        """Browsers send nothing else."""
        assert load(allowed_origins=f"https://{name}").allowed_origins == (f"https://{written}",)

    @pytest.mark.parametrize("origin", ["http://localhost:5173", "https://[::1]:8443", "capacitor://localhost", "null"])
    def test_an_origin_is_what_browsers_write(self, origin: str) -> None:
        """Of pages, of applications made of pages, and of pages without one."""
        assert load(allowed_origins=f"{origin},*").allowed_origins == (origin, "*")

    def test_a_list_may_be_empty(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An empty value is no origin, not one origin without a name."""
        monkeypatch.setenv("GATEWAY_ALLOWED_ORIGINS", "")
        assert load().allowed_origins == ()

    def test_a_list_in_the_file_is_a_list(self, file: Callable[[str], None]) -> None:
        """TOML has its own."""
        file('allowed_origins = ["https://a.example"]\n')
        assert load().allowed_origins == ("https://a.example",)

    def test_variables_of_others_are_ignored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Kubernetes sets these in every pod beside a Service named `gateway`; they are no settings."""
        for name in ("GATEWAY_SERVICE_HOST", "GATEWAY_SERVICE_PORT", "GATEWAY_PORT_80_TCP", "GATEWAY_PORT_80_TCP_ADDR"):
            monkeypatch.setenv(name, "10.0.0.1")
        assert load().port == 8080

    @pytest.mark.parametrize("name", [name for name in WHOLE if name not in ("port", "workers")])
    def test_0_is_a_limit_switched_off(self, name: str) -> None:
        """Every limit can be."""
        assert getattr(load(**{name: 0}), name) == 0

    def test_settings_do_not_change(self) -> None:
        """A node can rely on what it was started with."""
        with pytest.raises(ValueError, match="frozen"):
            setattr(load(), "port", 1)  # noqa: B010 (the type checker knows it, too)


class TestWrongValues:
    @pytest.mark.parametrize(("name", "value"), WRONG)
    def test_a_wrong_value_is_one_clear_line(self, name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The line names the setting and what it was given, wherever that came from."""
        monkeypatch.setenv(f"GATEWAY_{name.upper()}", value)
        line = refusal()
        assert line.startswith(f"{name}: ")
        assert len(value) > 100 or repr(value)[1:-1] in line

    @pytest.mark.parametrize("written", ["[1]", "[null]", '[{"a": 1}]', '["a", ["b"]]'])
    def test_a_wrong_member_of_a_list_is_one_clear_line(self, written: str) -> None:
        """The line says which one it is."""
        assert refusal(allowed_origins=written).startswith("allowed_origins.")

    def test_a_port_from_a_kubernetes_service_is_one_clear_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Kubernetes sets GATEWAY_PORT beside a Service named `gateway`, which only its owner can rename."""
        monkeypatch.setenv("GATEWAY_PORT", "tcp://10.0.0.1:80")
        assert "port: " in refusal()
        assert "tcp://10.0.0.1:80" in refusal()
        assert load(port=80).port == 80

    def test_every_wrong_value_is_named(self) -> None:
        """Whoever corrects one need not start again to hear of the next."""
        line = refusal(port="x", log_level="y", presence_max=-1)
        assert all(name in line for name in ("port", "log_level", "presence_max"))

    @pytest.mark.parametrize("value", ["x" * 100_000, "a\nb" * 1000, "\x1b[2J", "\u2028"])
    def test_a_monstrous_value_is_still_one_short_line(self, value: str) -> None:
        """It is shown, but not at length, and never as it is."""
        assert refusal(port=value).startswith("port: ")

    def test_a_password_is_not_shown(self) -> None:
        """A line about a URL ends up in logs; what is secret in it does not."""
        line = refusal(redis_url="http://ada:hunter2@redis.example:6379/0")
        assert "hunter2" not in line
        assert "redis.example" in line
        line = refusal(redis_url="sentinel://a/main?sentinel_username=ada&sentinel_password=hunter2&x=1")
        assert "hunter2" not in line
        assert "x=1" in line

    def test_a_misspelled_setting_is_named(self, file: Callable[[str], None]) -> None:
        """In the file, everything is meant for the gateway; the line says what may have been meant."""
        file("prot = 8080\n")
        assert refusal() == "prot: no such setting; did you mean port?"
        file('redis-url = "redis://localhost"\n')
        assert refusal() == "redis-url: no such setting; did you mean redis_url?"
        file("[[channels]]\nmatch = 'x'\nhistroy = 3\n")
        assert refusal() == "channels.0.histroy: no such setting; did you mean history?"
        file("[gateway]\nport = 1\n")
        assert refusal() == "gateway: no such setting"

    def test_a_misspelled_variable_is_told_from_those_of_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a Service called gateway, or gateway-redis, Kubernetes sets some that begin like ours."""
        others = "SERVICE_HOST SERVICE_PORT SERVICE_PORT_HTTP PORT_8080_TCP PORT_8080_TCP_PORT REDIS_PORT CONFIG"
        others += " REDIS_SERVICE_HOST REDIS_PORT_6379_TCP_ADDR REDIS_PORT_6379_TCP ADMIN_SERVICE_PORT IMAGE HOME"
        for name in (*others.split(), "JWT_SECRT", "ADMIN_PASSWRD", "HEARTBEAT"):
            monkeypatch.setenv(f"GATEWAY_{name}", "1")
        assert sorted(line.rpartition(" ")[2] for line in misspelled()) == [
            "GATEWAY_ADMIN_PASSWORD?",
            "GATEWAY_JWT_SECRET?",
        ]

    def test_an_unknown_field_is_named(self) -> None:
        """`setup(app, prot=8080)` is a mistake too."""
        assert "prot" in refusal(prot=8080)

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ('port = "many"\n', "port"),
            ("port = [1]\n", "port"),
            ("[port]\nx = 1\n", "port"),
            ("redis_url = 1\n", "redis_url"),
            ("allowed_origins = 1\n", "allowed_origins"),
            ("allowed_origins = [1]\n", "allowed_origins"),
            ("port = 1979-05-27\n", "port"),
        ],
    )
    def test_a_wrong_value_in_the_file_is_one_clear_line(
        self, text: str, named: str, file: Callable[[str], None]
    ) -> None:
        """TOML has types of its own, which may be the wrong ones."""
        file(text)
        assert refusal().startswith(f"{named}")

    @pytest.mark.parametrize("text", ["port", "port =", "= 1", "port = 1\nport = 2\n", "[[", "\x00", "port = 1 2"])
    def test_a_file_that_is_no_toml_is_one_clear_line(self, text: str, file: Callable[[str], None]) -> None:
        """The line says that it is the file, which one, and where in it."""
        file(text)
        assert re.match(r"the configuration file \S+\.toml does not parse: ", refusal())

    def test_a_file_of_other_bytes_is_one_clear_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file in Latin-1, say."""
        path = tmp_path / "gateway.toml"
        path.write_bytes(b'prefix = "gr\xfc\xdfe"\n')
        monkeypatch.setenv("GATEWAY_CONFIG", str(path))
        assert "file" in refusal()

    @pytest.mark.parametrize("name", ["", "missing.toml", "."])
    def test_a_file_that_is_not_there_is_one_clear_line(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever names a file means it; a directory is none."""
        path = str(tmp_path / name) if name else ""
        monkeypatch.setenv("GATEWAY_CONFIG", path)
        line = refusal()
        assert line.startswith("config: ")
        assert path in line


class TestRules:
    RULES: ClassVar[list[dict[str, Any]]] = [
        {"match": "lobby", "history": 10, "ttl": 60},
        {"match": "room-*-x", "history": 20},
        {"match": "*", "presence": False},
    ]

    @pytest.mark.parametrize(
        ("channel", "history", "presence"),
        [
            ("lobby", 10, True),
            ("lobby2", 0, False),
            ("room-1-x", 20, True),
            ("room--x", 20, True),
            ("room-x", 0, False),
            ("room-1-xy", 0, False),
        ],
    )
    def test_the_first_rule_that_matches_counts(self, channel: str, history: int, presence: bool) -> None:
        """A star stands for any characters or none; everything else for itself."""
        rule = load(channels=self.RULES).rule(channel)
        assert (rule.history, rule.presence) == (history, presence)

    def test_without_a_rule_nothing_is_kept(self) -> None:
        """And everything else is allowed."""
        rule = load().rule("lobby")
        assert (rule.history, rule.presence) == (0, True)

    def test_rules_come_from_every_source(self, file: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
        """Tables in the file; JSON in the environment and on the command line."""
        file('[[channels]]\nmatch = "lobby"\nhistory = 10\nttl = 60\n[[channels]]\nmatch = "*"\nhistory = 1\n')
        assert [load().rule(channel).history for channel in ("lobby", "x")] == [10, 1]
        monkeypatch.setenv("GATEWAY_CHANNELS", json.dumps(self.RULES))
        assert load().rule("room-1-x").history == 20
        assert load(channels='[{"match": "x", "history": 3}]').rule("x").history == 3
        assert load(channels="").rule("lobby").history == 0

    @pytest.mark.parametrize(
        ("written", "named"),
        [
            ('[{"history": 1}]', "match"),
            ('[{"match": ""}]', "match"),
            ('[{"match": "a b"}]', "match"),
            ('[{"match": "x", "history": -1}]', "history"),
            ('[{"match": "x", "history": "many"}]', "history"),
            ('[{"match": "x", "ttl": 1.5}]', "ttl"),
            ('[{"match": "x", "histroy": 1}]', "histroy"),
            ('{"match": "x"}', "channels"),
            ("[1]", "channels"),
            ("lobby", "expected JSON: "),
            ("[{", "expected JSON: "),
        ],
    )
    def test_a_wrong_rule_is_one_clear_line(self, written: str, named: str) -> None:
        """Which names the rule and the field."""
        line = refusal(channels=written)
        assert line.startswith("channels")
        assert named in line
