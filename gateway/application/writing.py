"""The `write_*` calls: the same for whoever can publish."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from gateway.backplane import ALL, Target
from gateway.errors import ConnectionNotFound, InvalidParam
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope
from gateway.protocol.message import CMD_RULE, OWN, Position, check_channel, check_user, is_cmd, node_of


class Writing(ABC):
    """Encodes messages, once each, and says where they go; a subclass carries them there.

    `cmd` is 1 to 128 characters and does not begin with `$`; `param` is what JSON can say: dict, list, str, int of at
    most 64 bits, float, bool, None, a dataclass, a pydantic model, a date, UUID or enum. `sender` is the user id that
    receivers read as `from`, None for none; nobody checks that it is right.

    Each returns once Redis has the message, and raises `InvalidParam` for what cannot be a message, and `Unavailable`
    when Redis does not take it in time or too much waits for Redis already.
    """

    async def write_connection(self, cmd: str, param: object, conn_id: str, *, sender: str | None = None) -> None:
        """Write to one connection, held by any node; returns when that node has it, so one that is gone is known.

        Raises `ConnectionNotFound`; `Unavailable` also when its node does not answer: then it may have been written.
        """
        payload = _encode(cmd, param, "", sender)
        await self._write_direct(payload, conn_id)

    async def write_channel(
        self,
        cmd: str,
        param: object,
        channel: str,
        *,
        exclude: Collection[str] = (),
        sender: str | None = None,
    ) -> Position | None:
        """Write to every member of a channel but the connection ids in `exclude`; one without members is no error.

        Returns the message's position where the channel keeps history, else None. Raises `InvalidChannel`.
        """
        envelope = Envelope(_encode(cmd, param, check_channel(channel), sender), _ids(exclude))
        return await self._publish(Target("channel", channel), envelope)

    async def write_user(self, cmd: str, param: object, user_id: str, *, sender: str | None = None) -> None:
        """Write to every connection of a user, on all nodes. A user who is offline gets nothing, and that is no error.

        An anonymous connection is reached by its connection id. Raises `InvalidUser`.
        """
        payload = _encode(cmd, param, "", sender)
        check_user(user_id)
        if node_of(user_id):
            try:
                return await self._write_direct(payload, user_id)
            except ConnectionNotFound:
                pass  # a user id that only looks like a connection id
        await self._publish(Target("user", user_id), Envelope(payload))

    async def write_all(
        self, cmd: str, param: object, *, exclude: Collection[str] = (), sender: str | None = None
    ) -> None:
        """Write to every connection of every node but the connection ids in `exclude`."""
        await self._publish(ALL, Envelope(_encode(cmd, param, "", sender), _ids(exclude)))

    @abstractmethod
    async def _publish(self, target: Target, envelope: Envelope) -> Position | None:
        """Carry an envelope to a target; return its position where the channel keeps history."""

    @abstractmethod
    async def _write_direct(self, payload: bytes, conn_id: str) -> None:
        """Carry a payload to one connection. Raises `ConnectionNotFound`."""


def _ids(exclude: Collection[str]) -> Collection[str]:
    """Refuse what would exclude nobody: one id is a collection, too, of its characters."""
    if exclude:
        try:
            if isinstance(exclude, str):
                raise TypeError
            "".join(exclude).encode()  # a lone surrogate cannot travel
        except (TypeError, UnicodeEncodeError):
            raise InvalidParam(
                f"expected exclude to be several connection ids, got {exclude!a:.200}", field="exclude"
            ) from None
    return exclude


def _encode(cmd: object, param: object, channel: str, sender: object) -> bytes:
    if not is_cmd(cmd):
        raise InvalidParam(f"expected cmd to be {CMD_RULE}, got {cmd!a:.200}", field="cmd")
    if cmd.startswith(OWN):
        raise InvalidParam(f"expected cmd to be the application's, got {cmd!a}: names with {OWN} are not", field="cmd")
    if sender is not None and not isinstance(sender, str):
        raise InvalidParam(f"expected sender to be a user id, got {sender!a:.200}", field="sender")
    return codec.encode(cmd, param, channel, sender)
