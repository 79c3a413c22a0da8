"""The channel that a message is about: where a handler may write what its client sent."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway import Connection, Profile, Settings
from gateway.server.running import running_node
from tests.handlers.aiming import Aiming
from tests.harness.client import Clients

V1 = ["gateway.v1.json"]
RULES = [
    {"match": "news", "send": "nobody"},
    {"match": "members-only", "join": "nobody"},
]
NEWS = "not allowed to send to news"


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """A node that has a channel to which nobody may send, and one that nobody may join."""
    fields = {"port": 0, "handler": "tests.handlers.aiming:Aiming", "channels": RULES}
    async with running_node(Settings.model_validate(fields)) as (address, *_):
        yield address.replace("http", "ws", 1) + "/connect"


@pytest.mark.parametrize(
    ("channels", "cmd", "param", "named", "answer"),
    [
        # Where it is named by a member, that is it; otherwise the first, if it may send there.
        (["news", "tea"], "tell", None, "tea", "tea"),
        (["tea", "side"], "tell", None, None, "tea"),
        (["tea", "side"], "tell", None, "elsewhere", "tea"),
        ([], "tell", None, "elsewhere", ""),
        ([], "tell", None, None, ""),
        (["news", "tea"], "tell", None, "elsewhere", NEWS),
        (["news", "tea"], "tell", None, None, NEWS),
        (["tea", "news"], "tell", None, "news", NEWS),
        # Who does not look at it is not hindered by it.
        (["news", "tea"], "ignore", None, "elsewhere", "fine"),
        # It is where the client is when it is read, and may send.
        (["tea"], "join", "side", "side", "side"),
        ([], "join", "side", None, "side"),
        ([], "join", "side", "elsewhere", "side"),
        ([], "join", "news", None, NEWS),
        ([], "place", "news", None, NEWS),
        (["tea"], "join", "members-only", None, "not allowed to join members-only"),
        (["news", "tea"], "leave", "tea", "tea", NEWS),
        (["tea", "news"], "leave", "tea", None, NEWS),
        (["tea"], "leave", "tea", "tea", ""),
    ],
    ids=str,
)
async def test_a_message_is_about_a_channel_that_its_sender_may_send_to(
    address: str, connect: Clients, channels: list[str], cmd: str, param: str | None, named: str | None, answer: str
) -> None:
    """Whatever it names, and whatever its handler does before it looks."""
    client = await connect(address, *channels, protocols=V1)
    said = (await client.request(cmd, param, named))["param"]
    assert (said if isinstance(said, str) else said["message"]) == answer
    assert isinstance(said, str) or said["code"] == "forbidden"


async def test_what_one_message_might_the_next_may_not(address: str, connect: Clients) -> None:
    """Where a message may go instead of what it names is decided for each."""
    client = await connect(address, "tea", "news", protocols=V1)
    assert (await client.request("tell", None, "elsewhere"))["param"] == "tea"
    await client.request("$leave", None, "tea")
    assert (await client.request("tell", None, "elsewhere"))["param"]["message"] == NEWS


def test_without_a_message_it_is_the_first_channel() -> None:
    """As in `on_open`: the server itself may write anywhere."""
    connection = Connection("node~1", Profile(), Aiming())
    assert connection.target == ""
    connection.channels = ("tea", "side")
    assert connection.target == "tea"
