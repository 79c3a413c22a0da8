"""What is said over the server API: bodies, queries and answers, from which its description is made, too."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from typing_extensions import TypedDict

from gateway.errors import ENDED
from gateway.operations.search import MOST_ROWS, TEXT_LENGTH, ConnectionSort
from gateway.protocol.frames import REASON_BYTES
from gateway.protocol.message import CMD_LENGTH, CMD_RULE, NAME_RULE, OWN, is_cmd, is_name


def _legal(name: str) -> str:
    if not is_name(name):
        raise ValueError(f"expected {NAME_RULE}")
    return name


def _writable(cmd: str) -> str:
    if not is_cmd(cmd):
        raise ValueError(f"expected {CMD_RULE}")
    if cmd.startswith(OWN):
        raise ValueError(f"expected a command of the application: names with {OWN} are the gateway's own")
    return cmd


def _short(reason: str) -> str:
    if len(reason.encode()) > REASON_BYTES:
        raise ValueError(f"expected at most {REASON_BYTES} bytes")
    return reason


Name = Annotated[str, AfterValidator(_legal)]
Cmd = Annotated[
    str,
    AfterValidator(_writable),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": CMD_LENGTH}),
]


# ---- asked


class MessageBody(BaseModel):
    """A message to write."""

    model_config = ConfigDict(extra="forbid", strict=True)

    cmd: Cmd = Field(description="the command; none that begins with $")
    param: Any = Field(default=None, description="any JSON value")
    sender: Name | None = Field(default=None, alias="from", description="user id that receivers read as the sender")


class MessageToMany(MessageBody):
    """A message to write to a channel or to everyone."""

    exclude: list[str] = Field(default=[], description="ids of connections that do not get it")


class PageQuery(BaseModel):
    """Which part of a list."""

    model_config = ConfigDict(extra="forbid")

    cursor: str | None = Field(default=None, description="the cursor that came with the page before")
    limit: int = Field(default=100, ge=1, le=MOST_ROWS, description="rows on the page at most")


class ConnectionsQuery(PageQuery):
    """Which connections."""

    channel: Name | None = Field(default=None, description="only those in this channel")
    user: Name | None = Field(default=None, description="only those of this user")
    node: Name | None = Field(default=None, description="only those that this node holds")
    text: str = Field(
        default="", max_length=TEXT_LENGTH, description="only those with this in id, user, name or address"
    )
    sort: ConnectionSort = Field(default="started", description="what they are ordered by")
    descending: bool = Field(default=False, description="whether the order is turned around")


class ChannelsQuery(PageQuery):
    """Which channels."""

    prefix: str = Field(default="", max_length=TEXT_LENGTH, description="only those whose name begins so")
    sort: Literal["name", "members"] = Field(
        default="name", description="by name, or the largest first (of those only the first 1,000)"
    )


class EndQuery(BaseModel):
    """How to close a connection."""

    model_config = ConfigDict(extra="forbid")

    code: int = Field(default=ENDED.code, description="close code; 4410 asks the client not to come back")
    reason: Annotated[str, AfterValidator(_short)] = Field(default="", description="what the client is told")


# ---- answered


class Accepted(TypedDict):
    """Where a message stands in its channel's history, if that is kept."""

    epoch: NotRequired[str]
    offset: NotRequired[int]


class Joined(TypedDict):
    """Whether joining created the channel."""

    created: bool


class Left(TypedDict):
    """Whether leaving emptied the channel."""

    emptied: bool


class ClusterStatus(TypedDict):
    """The cluster at a glance, as seen by `node`."""

    node: str
    version: str
    nodes: int
    connections: int
    channels: int
    users: int


class Node(TypedDict):
    """One node as it last reported itself."""

    id: str
    host: str
    version: str
    started: Annotated[int, Field(description="ms since the epoch")]
    connections: int
    channels: int
    ready: Annotated[bool, Field(description="whether clients should be sent to it")]


class Connection(TypedDict):
    """One WebSocket. The user of an anonymous one is its id."""

    id: str
    node: str
    user: str
    name: str
    channels: list[str]
    started: Annotated[int, Field(description="ms since the epoch")]
    remote: str


class Channel(TypedDict):
    """A channel: how many members, and how many users are online."""

    name: str
    members: int
    online: int


class ChannelPage(Channel):
    """A channel with the users online, 1,000 at most."""

    users: list[str]


StoredMessage = TypedDict(
    "StoredMessage", {"channel": str, "cmd": str, "param": Any, "from": NotRequired[str], "offset": int}
)


class List(TypedDict):
    """One page of a list; `cursor` asks for the next, and is null on the last."""

    cursor: str | None
    silent: NotRequired[
        Annotated[list[str], Field(description="nodes that did not answer in time: what they hold is missing")]
    ]


class Nodes(List):
    """One page of nodes."""

    items: list[Node]


class Connections(List):
    """One page of connections."""

    items: list[Connection]


class Channels(List):
    """One page of channels."""

    items: list[Channel]


class History(List):
    """One page of a channel's history, oldest first; `cursor` asks for the messages before."""

    items: list[StoredMessage]
    epoch: str
    offset: Annotated[int, Field(description="of the newest message")]


class Problem(TypedDict):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: NotRequired[Annotated[str, Field(description="the gateway's own name for it")]]
    field: NotRequired[Annotated[str, Field(description="what of the request was wrong")]]
