"""Signs the messages between nodes (HMAC-SHA256), where they share a secret: being able to publish makes no node.

A signed message is a map around it, `{"signed", "at", "nonce", "mac"}`. The signature is valid for one topic, so that
what was said to one node cannot be replayed to another; for a minute, by the clocks of both; and once.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import deque

import msgpack

from gateway.errors import InvalidEnvelope

FRESH = 60.0
"""Seconds by which the clocks of two nodes may differ, with the time that a message takes and waits."""
_WRONG = "expected it to be signed with this cluster's cluster_secret"


class Signing:
    """Signs and checks messages between nodes; without a secret nothing is signed, and all is taken, signed or not."""

    def __init__(self, secret: str = "") -> None:
        self._key = derived(secret, b"gateway: what nodes say to each other") if secret else b""
        self._seen: set[bytes] = set()
        self._seen_at: deque[tuple[float, bytes]] = deque()
        """The same, each with the time (s) at which it was seen, the oldest first."""

    def sign(self, topic: bytes, data: bytes) -> bytes:
        """Return what is to be published on a topic: the message itself where there is no secret."""
        if not self._key:
            return data
        at, nonce = time.time_ns() // 1_000_000, secrets.token_bytes(8)
        signed: bytes = msgpack.packb(
            {"signed": data, "at": at, "nonce": nonce, "mac": self._mac(topic, at, nonce, data)}
        )
        return signed

    def open(self, topic: bytes, data: bytes) -> bytes:
        """Return the message that was published on a topic.

        Raises `InvalidEnvelope` if there is a secret and the signature is missing or wrong, older than `FRESH`, or was
        seen before.
        """
        match _map_of(data):
            case {"signed": bytes(said), "at": int(at), "nonce": bytes(nonce), "mac": bytes(mac), **rest} if not rest:
                if self._key:
                    self._check(topic, said, at, nonce, mac)
                return said
        if self._key:
            raise InvalidEnvelope(_WRONG)
        return data

    def _check(self, topic: bytes, said: bytes, at: int, nonce: bytes, mac: bytes) -> None:
        if len(nonce) != 8 or not 0 <= at < 1 << 53 or not hmac.compare_digest(mac, self._mac(topic, at, nonce, said)):
            raise InvalidEnvelope(_WRONG)
        now = time.time()
        if abs(now - at / 1000) > FRESH:
            raise InvalidEnvelope(f"expected a signature of the last {FRESH:g} s: do the clocks of the nodes differ?")
        # Kept twice as long: what a clock signs that is `FRESH` ahead of ours is valid here for 2 * `FRESH`.
        # Only what was signed rightly is remembered, so that strangers cannot fill this.
        while self._seen_at and self._seen_at[0][0] < now - 2 * FRESH:
            self._seen.discard(self._seen_at.popleft()[1])
        if nonce in self._seen:
            raise InvalidEnvelope("expected each signature once")
        self._seen.add(nonce)
        self._seen_at.append((now, nonce))

    def _mac(self, topic: bytes, at: int, nonce: bytes, data: bytes) -> bytes:
        # All parts before the last have a length that is fixed or told: no two different texts are signed alike.
        head = len(topic).to_bytes(4, "big") + topic + at.to_bytes(8, "big") + nonce
        return hmac.digest(self._key, head + data, "sha256")


class EntrySigning:
    """Signs the entries of the cluster's books. These stay where they were written, so no time limits them."""

    def __init__(self, secret: str = "") -> None:
        self._key = derived(secret, b"gateway: entries of books") if secret else b""

    def sign(self, book: str, entry: str) -> str:
        """Return the signature of an entry, "" without a secret."""
        return hmac.digest(self._key, f"{book}\n{entry}".encode(), "sha256").hex() if self._key else ""

    def is_right(self, book: str, entry: bytes, signature: bytes) -> bool:
        """Tell whether somebody who has the secret wrote this entry; without a secret always True."""
        if not self._key:
            return True
        expected = hmac.digest(self._key, b"%b\n%b" % (book.encode(), entry), "sha256").hex().encode()
        return hmac.compare_digest(expected, signature)


def derived(secret: str, purpose: bytes) -> bytes:
    """Derive the key for one purpose from the secret, so that a signature made for one is not valid for another."""
    return hmac.digest(secret.encode(), purpose, "sha256")


def _map_of(data: bytes) -> object:
    try:
        return msgpack.unpackb(data)
    except Exception:  # msgpack documents no base class; the caller takes it for a message without a signature
        return None
