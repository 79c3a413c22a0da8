"""The envelope in which a message travels between nodes, and where it can go. Plain functions on plain data.

An operator's JSON, told from a node's envelope (msgpack) by its first byte `{`, is made into the same shape.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from gateway.errors import InvalidEnvelope, InvalidParam
from gateway.protocol.codec import Dialect, encode, frame_for, from_msgpack, to_msgpack, with_offset
from gateway.protocol.json_values import check_integers, parse, shown
from gateway.protocol.message import CMD_RULE, OWN, Position, is_cmd, is_name

LOOKED_THROUGH = 4096
"""Bytes of a payload up to which it is read before it is written to clients; see `check_payload`."""
EPOCH_LENGTH = 64
"""Characters of an epoch that a node may write; ours are shorter."""
MOST_COUNTED = 10**15
"""Offsets and times are below this: 15 digits are exact in JSON and in Lua, whose numbers are doubles."""
_ABSENT = ""


class Target(NamedTuple):
    """A place to write to: a `channel`, a `user` or a `node` by its name; `all`, `direct`, `nodes`, `tap`."""

    kind: str
    name: str = ""


ALL = Target("all")
"""Every connection of every node."""
DIRECT = Target("direct")
"""One connection, named in the envelope: what an operator writes by hand."""
NODES = Target("nodes")
"""Every node itself, not its connections."""
TAP = Target("tap")
"""Copies of the traffic, while somebody taps."""
SPOKEN = frozenset({"node", NODES.kind, TAP.kind})
"""Kinds of targets where nodes talk to each other: in maps, which are signed where there is a secret. An envelope to
a `node` is a message to one of its connections, and is not."""
BEAT = Target("beat")
"""A backplane to itself, to know that it hears."""
GAP = Target("gap")
"""Nowhere: what arrives from there is word of a loss. `Target("gap", NAME)` says that messages to channel
NAME may have been missed; `GAP` itself ends a loss, of everything or of one shard, and counts it."""


class Envelope(NamedTuple):
    """What travels between nodes: the encoded message, and whom to skip."""

    payload: bytes
    exclude: Collection[str] = ()
    connection: str | None = None
    """The one connection this is for, when it goes to `direct`."""
    position: Position | None = None
    """Where this stands in its channel's history, if it is kept."""
    trace: str | None = None
    """The `traceparent` (W3C) of what published it; "" where it is not to be traced, None where nobody asked."""


# ---- for clients


def to_client(envelope: Envelope, dialect: Dialect) -> bytes:
    """Frame a message for the clients of a dialect; those of v1 are told its offset."""
    payload = envelope.payload
    if envelope.position is not None and dialect.protocol:
        payload = with_offset(payload, envelope.position.offset)
    return frame_for(dialect, payload)


def encode_history(messages: Iterable[Envelope]) -> list[orjson.Fragment]:
    """Encode messages as v1 clients read them, to be a part of a reply."""
    found = ((message.payload, message.position) for message in messages)
    return [orjson.Fragment(with_offset(payload, at.offset) if at else payload) for payload, at in found]


# ---- between nodes


def pack(envelope: Envelope) -> bytes:
    """Encode an envelope. The parts after the payload are left out while they are empty.

    One that is kept is wrapped as `[epoch, offset, time, [payload, ...]]`, as the script that numbers it does.
    """
    parts = _parts(envelope)
    return to_msgpack(parts if envelope.position is None else (*envelope.position, parts))


def _parts(envelope: Envelope) -> tuple[object, ...]:
    if envelope.trace:
        return (envelope.payload, tuple(envelope.exclude), envelope.connection, envelope.trace)
    if envelope.connection is not None:
        return (envelope.payload, tuple(envelope.exclude), envelope.connection)
    return (envelope.payload, tuple(envelope.exclude)) if envelope.exclude else (envelope.payload,)


def unpack(data: bytes, channel: str = "") -> Envelope:
    """Decode what came through Redis, a node's envelope or a person's JSON.

    `channel` is the channel it was written to, which a person's JSON takes over.
    Raises `InvalidEnvelope` that names what was wrong, whatever the bytes are.
    """
    if data[:1] == b"{":
        return _injected(data, channel)
    parts = from_msgpack(data)
    if type(parts) is list and len(parts) == 1 and type(parts[0]) is bytes:  # most are; `match` takes 1 microsecond
        return Envelope(check_payload(parts[0]))
    match parts:
        case [str(epoch), int(offset), int(time), [*parts]] if _is_place(epoch, offset, time):
            return _envelope(parts, Position(epoch, offset, time))
        case [*parts]:
            return _envelope(parts)
    raise InvalidEnvelope("expected an envelope or a JSON object")


def check_payload(payload: bytes) -> bytes:
    """Return what is to be written to clients as it is; raise `InvalidEnvelope` for what would harm them.

    Browsers close a connection over text that is not UTF-8. A short one, as nearly all are, is read as well, which
    takes half a microsecond; to read a long one takes longer than to write it to many clients.
    """
    if len(payload) > LOOKED_THROUGH:
        if payload[:1] != b"{" or payload[-1:] != b"}" or not _is_text(payload):
            raise InvalidEnvelope("expected a message in JSON")
        return payload
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise InvalidEnvelope(f"expected a message in JSON: {error}") from None
    if type(fields) is not dict or type(fields.get("cmd")) is not str or payload[-1:] != b"}":
        raise InvalidEnvelope("expected a message in JSON, with a cmd")
    return payload


def _is_text(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_place(epoch: str, offset: int, time: int) -> bool:
    """Tell whether a position may be one: what counts it is exact up to 15 digits."""
    return len(epoch) <= EPOCH_LENGTH and 0 < offset < MOST_COUNTED and 0 <= time < MOST_COUNTED


def _envelope(parts: list[object], position: Position | None = None) -> Envelope:
    match parts:
        case [bytes(payload)]:
            return Envelope(check_payload(payload), position=position)
        case [bytes(payload), [*exclude]] if _strings(exclude):
            return Envelope(check_payload(payload), frozenset(map(str, exclude)), position=position)
        case [bytes(payload), [*exclude], str(connection)] if _strings(exclude):
            return Envelope(check_payload(payload), frozenset(map(str, exclude)), connection, position)
        case [bytes(payload), [*exclude], None | str() as connection, str(trace)] if _strings(exclude):
            return Envelope(check_payload(payload), frozenset(map(str, exclude)), connection, position, trace)
    raise InvalidEnvelope("expected an envelope or a JSON object")


def stored(payload: bytes, exclude: bytes, position: Position) -> Envelope:
    """Make an envelope of what history holds; raise `InvalidEnvelope` for what nobody can have appended."""
    try:
        fields, excluded = orjson.loads(payload), orjson.loads(exclude)
    except orjson.JSONDecodeError as error:
        raise InvalidEnvelope(f"expected a JSON object: {error}") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("cmd"), str):
        raise InvalidEnvelope("expected a message")
    if not isinstance(excluded, list) or not _strings(excluded):
        raise InvalidEnvelope("expected exclude to be a list of connection ids")
    return Envelope(payload.strip(), frozenset(excluded), position=position)


def is_envelope(data: bytes) -> bool:
    """Tell an envelope (a msgpack array) from what nodes say to each other (a map)."""
    return data[:1] != b"" and data[0] & 0xF0 == 0x90


def pack_map(fields: Mapping[str, object]) -> bytes:
    """Encode what one node says to another, which is no message for clients."""
    try:
        return to_msgpack(fields)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidParam(f"cannot be sent to another node: {error}") from None


def unpack_map(data: bytes) -> dict[str, Any]:
    """Decode what another node said; raise `InvalidEnvelope` for anything else."""
    fields = from_msgpack(data)
    if not isinstance(fields, dict) or not _strings(fields):
        raise InvalidEnvelope("expected a map")
    return fields


def _injected(data: bytes, channel: str) -> Envelope:
    """Normalise `{"cmd","param"?,"from"?,"exclude"?,"channel"?,"connection"?}` written by hand."""
    try:
        fields = parse(data)
        check_integers(data)
    except ValueError as error:
        raise InvalidEnvelope(f"expected a JSON object: {error}") from None
    if not isinstance(fields, dict):  # nothing else begins with {
        raise InvalidEnvelope("expected a JSON object")
    cmd, sender, exclude = fields.get("cmd"), fields.get("from", _ABSENT), fields.get("exclude", [])
    named, connection = fields.get("channel", ""), fields.get("connection", _ABSENT)
    if not is_cmd(cmd):
        raise InvalidEnvelope(f"expected cmd to be {CMD_RULE}, got {shown(cmd)}")
    if cmd.startswith(OWN):
        raise InvalidEnvelope(f"expected cmd to be the application's, got {shown(cmd)}: names with {OWN} are not")
    if sender is not _ABSENT and not is_name(sender):
        raise InvalidEnvelope(f"expected from to be a user id, got {shown(sender)}")
    if not isinstance(exclude, list) or not _strings(exclude):
        raise InvalidEnvelope(f"expected exclude to be a list of connection ids, got {shown(exclude)}")
    if named != "" and not is_name(named):
        raise InvalidEnvelope(f"expected channel to be a channel name, got {shown(named)}")
    if connection is not _ABSENT and not isinstance(connection, str):
        raise InvalidEnvelope(f"expected connection to be a connection id, got {shown(connection)}")
    try:
        payload = encode(cmd, fields.get("param"), channel or named, sender or None)
    except InvalidParam as error:
        raise InvalidEnvelope(str(error)) from None
    return Envelope(payload, frozenset(exclude), connection or None)


def _strings(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)
