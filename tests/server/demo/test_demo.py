"""The demo handler, command for command as the original had it."""

from __future__ import annotations

V1 = ["gateway.v1.json"]


async def test_ping_is_answered_to_the_channel_in_milliseconds(nodes, connect):
    """`ping` brings `pong` with a time in ms to every member of the sender's channel."""
    ada = await connect(nodes[0], "demo-ping")
    await ada.send("ping")
    await ada.expect("pong")
    bob = await connect(nodes[1], "demo-ping")
    await ada.expect("online-update")
    await ada.send("ping")
    for client in (ada, bob):
        pong = await client.expect("pong")
        assert pong["channel"] == "demo-ping"
        assert set(pong["param"]) == {"timestamp"}
        assert 1_600_000_000_000 < pong["param"]["timestamp"] < 10_000_000_000_000


async def test_chat_goes_to_the_channel_the_sender_included(nodes, connect):
    """`chat` brings user, text and time to every member, under the sender's display name."""
    ada = await connect(nodes[0].ws_url("demo-chat", name="Ada"))
    await ada.send("ping")
    await ada.expect("pong")
    bob = await connect(nodes[1], "demo-chat")
    await ada.expect("online-update")
    await ada.send("chat", {"text": "hello"})
    for client in (ada, bob):
        chat = await client.expect("chat")
        assert chat["channel"] == "demo-chat"
        assert set(chat["param"]) == {"user", "text", "time"}
        assert (chat["param"]["user"], chat["param"]["text"]) == ("Ada", "hello")


async def test_without_a_name_the_user_is_the_user_id(nodes, connect):
    """Somebody without a display name chats under the user id, which for an anonymous one is the connection id."""
    ada = await connect(nodes[0], "demo-anonymous", protocols=["gateway.v1.json"])
    id = (await ada.expect("$welcome"))["param"]["connection"]
    await ada.send("chat", {"text": "who am I?"})
    assert (await ada.expect("chat"))["param"]["user"] == id


async def test_a_named_channel_counts_only_for_its_members(nodes, connect):
    """A message goes to the channel it names if the sender is in it, else to the sender's first."""
    ada = await connect(nodes[0], "demo-first", "demo-second")
    for named, reached in (("demo-second", "demo-second"), ("demo-foreign", "demo-first"), (None, "demo-first")):
        await ada.send("chat", {"text": str(named)}, channel=named)
        assert (await ada.expect("chat"))["channel"] == reached


async def test_without_a_channel_the_answer_goes_to_the_sender_alone(nodes, connect):
    """Somebody in no channel hears the answer; nobody else does."""
    ada, bob = await connect(nodes[0]), await connect(nodes[0])
    await ada.send("ping")
    assert (await ada.expect("pong"))["channel"] == ""
    await bob.send("ping")
    await bob.expect("pong")
    assert len(bob.received) == 1


async def test_rooms_are_joined_and_left(nodes, connect):
    """`join-room` and `leave-room` change what a client hears."""
    ada, bob = await connect(nodes[0]), await connect(nodes[1], "demo-room")
    await bob.send("ping")
    await bob.expect("pong")
    await ada.send("join-room", {"room": "demo-room"})
    await bob.expect("online-update")
    await bob.send("chat", {"text": "welcome"})
    assert (await ada.expect("chat"))["channel"] == "demo-room"
    await ada.send("leave-room", {"room": "demo-room"})
    await bob.expect("online-update")
    await bob.send("chat", {"text": "gone?"})
    await bob.expect("chat")
    await ada.send("ping")
    assert (await ada.expect("pong"))["channel"] == ""
    assert [m["param"].get("text") for m in ada.received if m["cmd"] == "chat"] == ["welcome"]


async def test_who_may_not_send_joins_and_leaves_rooms(start_node, connect):
    """What a client may do in its first channel has nothing to do with the others, unless it names that one."""
    node = await start_node(channels=[{"match": "demo-news", "send": "nobody"}])
    for path in ("/connect", "/example/socket"):
        ada = await connect(f"{node.ws_url().removesuffix('/connect')}{path}?ch=demo-news", protocols=V1)
        assert (await ada.request("join-room", {"room": "demo-talk"}))["cmd"] == "$reply"
        assert (await ada.request("chat", {"text": "hi"}, channel="demo-talk"))["cmd"] == "$reply"
        assert (await ada.request("leave-room", {"room": "demo-talk"}))["cmd"] == "$reply"
        for cmd, param, channel in (
            ("join-room", {"room": "demo-talk"}, "demo-news"),
            ("chat", {"text": "hi"}, None),
            ("chat", {"text": "hi"}, "demo-talk"),
            ("ping", None, None),
        ):
            assert (await ada.request(cmd, param, channel=channel))["param"]["code"] == "forbidden"


async def test_everything_else_is_unknown_and_wrong_params_name_the_field(nodes, connect):
    """Other commands are `unknown-command`; a missing or wrong field is named; no harm is done."""
    ada = await connect(nodes[0], "demo-errors")
    for cmd, param, code, field in (
        ("dance", None, "unknown-command", None),
        ("chat", {"text": 5}, "invalid-param", "text"),
        ("chat", None, "invalid-param", "text"),
        ("join-room", {}, "invalid-param", "room"),
        ("join-room", {"room": "a b"}, "invalid-channel", None),
        ("leave-room", [1], "invalid-param", "room"),
    ):
        await ada.send(cmd, param, id=7)
        error = await ada.expect("$error")
        assert (error["id"], error["param"]["code"], error["param"].get("field")) == (7, code, field)
    await ada.send("ping")
    await ada.expect("pong")
