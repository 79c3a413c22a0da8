"""A client in Python, for services and tests: what the browser client does, on aiohttp.

    async with gateway.client.connect("https://chat.example.org/connect", token=fetch_token) as client:
        messages = client.messages("lobby")
        await client.join("lobby")                      # and again, by itself, after every reconnect
        await client.send("chat", {"text": "hello"}, channel="lobby")
        total = await client.request("add", [1, 2], timeout=2)
        async for message in messages:                  # a `$gap` where messages may have been missed
            print(message.sender, message.cmd, message.param)

A request raises what the server refuses it with (`GatewayError`, by its `code`), `NoAnswer` when its time is over, and
`NotConnected` when the connection ends first.

(The folder holds the sources of the browser client, too; only the Python files are part of the installed package.)
"""

from gateway.client.inbox import Inbox
from gateway.client.reconnect import State, Welcome
from gateway.client.session import Client, History, Presence, Stats, connect
from gateway.errors import NoAnswer, NotConnected
from gateway.protocol.message import Message, Position

__all__ = [
    "Client",
    "History",
    "Inbox",
    "Message",
    "NoAnswer",
    "NotConnected",
    "Position",
    "Presence",
    "State",
    "Stats",
    "Welcome",
    "connect",
]
