"""Turns bytes into messages and messages into bytes. Plain functions on plain data.

A message is encoded once, by the node that publishes it. That JSON, the payload, travels inside an
envelope (msgpack) to every node, which adds a frame header and writes it out without looking inside.
An operator's JSON, told from an envelope by its first byte `{`, is normalised here into the same shape.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import msgpack
import orjson
from pydantic import BaseModel

from gateway.errors import BadMessage, InvalidEnvelope, InvalidParam
from gateway.frames import BINARY, TEXT, frame_message
from gateway.json_values import check_integers, kind_of, parse, shown, unsayable
from gateway.message import CMD_LENGTH, Message, Position, is_name

PLAIN, JSON, MSGPACK = "", "gateway.v1.json", "gateway.v1.msgpack"
"""What a client speaks: the original's messages alone, or one of the subprotocols."""
_ABSENT = ""
LOOKED_THROUGH = 4096
"""Bytes of a payload up to which it is read before it is written to clients."""
EPOCH_LENGTH = 64
MOST_COUNTED = 10**15


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """How messages for a client are framed: all clients of one dialect are written the same bytes.

    There is one object of each, from `dialect_of`, so that finding those that are alike is no comparison.
    """

    protocol: str
    window: int
    """Bits of the window that long messages are compressed with, 0 where none are."""


@cache
def dialect_of(protocol: str = PLAIN, window: int = 0) -> Dialect:
    """Return the one dialect of a subprotocol, with or without compression."""
    return Dialect(protocol, window)


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


# ---- between a client and its node


def decode(data: bytes) -> Message:
    """Read what a client sent; raise `BadMessage` that names what was wrong.

    What is legal JSON is taken, as `parse` says, but for integers beyond 64 bits.
    """
    try:
        message = message_of(parse(data))
    except ValueError as error:
        raise BadMessage(f"expected a JSON object: {error}") from None
    try:
        check_integers(data)
    except ValueError as error:
        raise BadMessage(str(error), id=message.id) from None
    return message


def decode_msgpack(data: bytes) -> Message:
    """Read what a client of the binary protocol sent; raise `BadMessage` that names what was wrong.

    What msgpack has beyond JSON, such as raw bytes, is refused by whoever encodes it.
    """
    try:
        fields = _unpack(data)
    except InvalidEnvelope:
        raise BadMessage("expected a map in msgpack") from None
    return message_of(fields)


def message_of(fields: object) -> Message:
    """Check the parts of a client's message; raise `BadMessage`, with the request's `id` if it has one."""
    if not isinstance(fields, dict):
        raise BadMessage(f"expected a JSON object, got {kind_of(fields)}")
    id = fields.get("id")
    if id is not None and type(id) not in (str, int):
        raise BadMessage(f"expected id to be a string or an integer, got {kind_of(id)}")
    cmd, channel = fields.get("cmd"), fields.get("channel", "")
    if not isinstance(cmd, str) or not 0 < len(cmd) <= CMD_LENGTH:
        raise BadMessage(f"expected cmd to be a string of 1 to {CMD_LENGTH} characters, got {shown(cmd)}", id=id)
    if not isinstance(channel, str):
        raise BadMessage(f"expected channel to be a string, got {kind_of(channel)}", id=id)
    return Message(channel, cmd, fields.get("param"), id=id)


def encode(cmd: str, param: object = None, channel: str = "", sender: str | None = None) -> bytes:
    """Encode a message as JSON, in the shape that clients read.

    Raises `InvalidParam` for what JSON cannot say: a set, a lone surrogate, an integer beyond 64 bits.
    """
    fields = {"channel": channel, "cmd": cmd, "param": param}
    if sender is not None:
        fields["from"] = sender
    return _dumps(fields)


def encode_reply(id: str | int, result: object, channel: str = "") -> bytes:
    """Encode the `$reply` to a request."""
    return _dumps({"channel": channel, "cmd": "$reply", "id": id, "param": result})


def encode_history(messages: Iterable[Envelope]) -> list[orjson.Fragment]:
    """Encode messages as v1 clients read them, to be a part of a reply."""
    found = ((message.payload, message.position) for message in messages)
    return [orjson.Fragment(with_offset(payload, at.offset) if at else payload) for payload, at in found]


def encode_error(code: str, message: str, id: str | int | None = None, channel: str = "", **extra: object) -> bytes:
    """Encode the `$error` that answers a refused message."""
    fields: dict[str, object] = {
        "channel": channel,
        "cmd": "$error",
        "param": {"code": code, "message": message, **extra},
    }
    if id is not None:
        fields["id"] = id
    return _dumps(fields)


def read(payload: bytes) -> Message:
    """Look inside a payload: for taps, never for delivery. Raises `InvalidEnvelope` when it is no message."""
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise InvalidEnvelope(f"expected a message in JSON: {error}") from None
    match fields:
        case {"channel": str(channel), "cmd": str(cmd), "param": param}:
            return Message(channel, cmd, param, fields.get("from"), offset=fields.get("offset"))
    raise InvalidEnvelope("expected a message with channel, cmd and param")


def to_client(envelope: Envelope, dialect: Dialect) -> bytes:
    """Frame a message for the clients of a dialect; those of v1 are told its offset."""
    payload = envelope.payload
    if envelope.position is not None and dialect.protocol:
        payload = with_offset(payload, envelope.position.offset)
    return frame_for(dialect, payload)


def frame_for(dialect: Dialect, payload: bytes) -> bytes:
    """Frame JSON for a client: as it is, or as msgpack.

    What is no JSON, which a stranger may have put in an envelope, is left out: nobody can be told.
    """
    if dialect.protocol != MSGPACK:
        return frame_message(TEXT, payload, dialect.window)
    try:
        return frame_message(BINARY, _pack(orjson.loads(payload)), dialect.window)
    except ValueError:
        return b""


def with_offset(payload: bytes, offset: int) -> bytes:
    """Write the offset into an encoded message, as its last field."""
    return b'%b,"offset":%d}' % (payload[:-1], offset)


# ---- between nodes


def pack(envelope: Envelope) -> bytes:
    """Encode an envelope. The parts after the payload are left out while they are empty.

    One that is kept is wrapped as `[epoch, offset, time, [payload, ...]]`, as the script that numbers it does.
    """
    parts = _parts(envelope)
    return _pack(parts if envelope.position is None else (*envelope.position, parts))


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
    parts = _unpack(data)
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
        return _pack(fields)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidParam(f"cannot be sent to another node: {error}") from None


def unpack_map(data: bytes) -> dict[str, Any]:
    """Decode what another node said; raise `InvalidEnvelope` for anything else."""
    fields = _unpack(data)
    if not isinstance(fields, dict) or not _strings(fields):
        raise InvalidEnvelope("expected a map")
    return fields


_packer = msgpack.Packer()
"""One for all, since each reserves a megabyte; it keeps nothing between two calls."""


def _pack(value: object) -> bytes:
    packed: bytes = _packer.pack(value)
    return packed


def _unpack(data: bytes) -> object:
    try:
        return msgpack.unpackb(data)
    except Exception as error:  # msgpack documents no base class: ValueError, its own, even RecursionError
        raise InvalidEnvelope(f"expected a JSON object, or what a node packs: {type(error).__name__} {error}") from None


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
    if not isinstance(cmd, str) or not 0 < len(cmd) <= CMD_LENGTH:
        raise InvalidEnvelope(f"expected cmd to be a string of 1 to {CMD_LENGTH} characters, got {shown(cmd)}")
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


def _dumps(fields: dict[str, object]) -> bytes:
    try:
        return orjson.dumps(fields, default=_plain)
    except (orjson.JSONEncodeError, RecursionError):
        raise InvalidParam(f"cannot be written as JSON: {unsayable(fields)}") from None


def _plain(value: object) -> object:
    """Write a pydantic model, beside what orjson knows: dataclasses, dates, UUIDs, enums."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON")


def _strings(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)
