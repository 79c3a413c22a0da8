"""Reads and writes the messages of clients, as JSON or msgpack. Plain functions on plain data.

A message is encoded once, by the node that publishes it. That JSON, the payload, travels inside an envelope to every
node, which adds a frame header and writes it out without looking inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import msgpack
import orjson
from pydantic import BaseModel

from gateway.errors import BadMessage, InvalidEnvelope, InvalidParam
from gateway.protocol.frames import BINARY, TEXT, frame_message
from gateway.protocol.json_values import check_integers, id_in, is_changed, kind_of, parse, shown, unsayable
from gateway.protocol.message import CMD_RULE, Message, is_cmd

PLAIN, JSON, MSGPACK = "", "gateway.v1.json", "gateway.v1.msgpack"
"""What a client speaks: the original's messages alone, or one of the subprotocols."""


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


def decode(data: bytes) -> Message:
    """Read what a client sent; raise `BadMessage` that names what was wrong.

    What is legal JSON is taken, as `parse` says, but for integers beyond 64 bits. A refusal has the request's `id`.
    """
    try:
        message = message_of(parse(data))
    except ValueError as error:
        raise BadMessage(f"expected a JSON object: {error}", id=id_in(data)) from None
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
        fields = from_msgpack(data)
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
    if not is_cmd(cmd):
        raise BadMessage(f"expected cmd to be {CMD_RULE}, got {shown(cmd)}", id=id)
    if not isinstance(channel, str):
        raise BadMessage(f"expected channel to be a string, got {kind_of(channel)}", id=id)
    return Message(channel, cmd, fields.get("param"), id=id)


def encode(cmd: str, param: object = None, channel: str = "", sender: str | None = None) -> bytes:
    """Encode a message as JSON, in the shape that clients read.

    Raises `InvalidParam` for what JSON cannot say: a set, a lone surrogate, an integer beyond 64 bits, NaN.
    """
    fields = {"channel": channel, "cmd": cmd, "param": param}
    if sender is not None:
        fields["from"] = sender
    return _dumps(fields)


def encode_reply(id: str | int, result: object, channel: str = "") -> bytes:
    """Encode the `$reply` to a request."""
    return _dumps({"channel": channel, "cmd": "$reply", "id": id, "param": result})


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


def frame_for(dialect: Dialect, payload: bytes) -> bytes:
    """Frame JSON for a client: as it is, or as msgpack.

    What is no JSON, which a stranger may have put in an envelope, is left out: nobody can be told.
    """
    if dialect.protocol != MSGPACK:
        return frame_message(TEXT, payload, dialect.window)
    try:
        return frame_message(BINARY, to_msgpack(orjson.loads(payload)), dialect.window)
    except ValueError:
        return b""


def with_offset(payload: bytes, offset: int) -> bytes:
    """Write the offset into an encoded message, as its last field."""
    return b'%b,"offset":%d}' % (payload[:-1], offset)


_packer = msgpack.Packer()
"""One for all, since each reserves a megabyte; it keeps nothing between two calls."""


def to_msgpack(value: object) -> bytes:
    """Pack what msgpack can say; its own errors, `TypeError` among them, say what it cannot."""
    packed: bytes = _packer.pack(value)
    return packed


def from_msgpack(data: bytes) -> object:
    """Unpack one value; raise `InvalidEnvelope` for anything else."""
    try:
        return msgpack.unpackb(data)
    except Exception as error:  # msgpack documents no base class: ValueError, its own, even RecursionError
        raise InvalidEnvelope(f"expected a JSON object, or what a node packs: {type(error).__name__} {error}") from None


def _dumps(fields: dict[str, object]) -> bytes:
    try:
        written = orjson.dumps(fields, default=_plain)
    except (orjson.JSONEncodeError, RecursionError):
        raise InvalidParam(f"cannot be written as JSON: {unsayable(fields)}") from None
    if is_changed(fields["param"], written):
        raise InvalidParam(f"cannot be written as JSON: {unsayable(fields)}")
    return written


def _plain(value: object) -> object:
    """Write a pydantic model, beside what orjson knows: dataclasses, dates, UUIDs, enums."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON")
