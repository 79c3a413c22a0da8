"""The pages for whoever is woken: one for each alert, with nothing in them that does not exist."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator

import pytest

from gateway.config import Rule, Settings
from tests.harness.container import ROOT
from tests.harness.manifests import only
from tests.harness.node import Node, gateway
from tests.harness.redis import RedisServer

PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs/runbooks").glob("Gateway*.md"))}
HEADINGS = ["What it means", "Look", "Do", "Over when"]
CHECKED = ("curl", "gateway", "kubectl", "redis-cli")
FORMED = re.compile(r"kubectl -n gateway \w+ .*|redis-cli -u REDIS_URL --latency")
KEPT_BY_OTHERS = {
    *("used_memory", "evicted_keys", "rdb_last_bgsave_status", "aof_last_write_status"),
    *("runbook_url", "redis_url"),
}
"""What Redis and Prometheus call so."""


def alerts() -> dict[str, str]:
    """Return the address of each alert's page."""
    groups = only("production", "PrometheusRule")["spec"]["groups"]
    return {rule["alert"]: rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]}


def commands() -> Iterator[str]:
    """Return what the pages tell to run: their blocks, and what begins like a command within a line."""
    for text in PAGES.values():
        yield from (line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines())
        quoted = re.findall(r"`([^`]+)`", text)
        yield from (each for each in quoted if each.partition(" ")[0] in CHECKED and " " in each)


def test_every_rule_has_a_page_and_every_page_a_rule() -> None:
    """At the place that its annotation names."""
    assert alerts() == {name: f"docs/runbooks/{name}.md" for name in PAGES}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_to_look_at_and_what_to_do(name: str) -> None:
    """Under the same headings on each, with commands and what their answers mean; links lead somewhere."""
    text = PAGES[name]
    assert re.findall(r"^# (.+)$", text, re.MULTILINE) == [name]
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    parts = dict(zip(HEADINGS, re.split(r"^## .+$", text, flags=re.MULTILINE)[1:], strict=True))
    assert all(part.strip() for part in parts.values())
    for command, meaning in re.findall(r"```sh\n(.*?)\n```\n\n(.*?)\n(?:\n|$)", parts["Look"], re.DOTALL):
        assert len(meaning) > 20, command
    assert parts["Look"].count("```sh") == len(re.findall(r"```\n\n\S", parts["Look"])) > 0
    assert parts["Do"].count("\n- ") > 1 or "traceback" in text
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / "docs/runbooks" / link).exists(), link


async def test_what_pages_name_exists(redis: RedisServer, start_node: Callable[..., Awaitable[Node]]) -> None:
    """Figures, settings, states and reasons, and every command with its subcommand."""
    node = await start_node(redis)
    told = (await node.get("/metrics")).text
    figures = set(re.findall(r"^# TYPE (\w+)", told, re.MULTILINE))
    known = figures | set(Settings.model_fields) | set(Rule.model_fields) | KEPT_BY_OTHERS
    for name, text in PAGES.items():
        words = {
            word for quoted in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"[a-z]+(?:_[a-z]+)+", quoted)
        }
        assert words <= known, name
        for label in re.findall(r'\{(\w+="\w+")\}', text):
            assert label in told, name


async def test_commands_of_pages_exist(redis: RedisServer, start_node: Callable[..., Awaitable[Node]]) -> None:
    """Subcommands of `gateway`, paths of a node, commands of Redis."""
    node = await start_node(redis)
    known = await helped()
    for command in set(commands()):
        match command.split():
            case ["gateway", verb, *_]:
                assert verb in known, command
            case ["curl", "-s", url]:
                answer = await node.get(url.removeprefix("http://NODE"))
                assert answer.status == 200, command
            case ["redis-cli", "-u", "REDIS_URL", word, *rest] if not word.startswith("--"):
                await redis.command(word, *rest)  # raises what Redis does not know
            case _:
                assert FORMED.fullmatch(command), command


async def helped() -> set[str]:
    """Return the subcommands that `gateway --help` lists."""
    process = gateway("--help")
    try:
        process.start()
        assert await process.wait(30) == 0
        return set(re.findall(r"^    (\w+)", process.output, re.MULTILINE))
    finally:
        process.close()
