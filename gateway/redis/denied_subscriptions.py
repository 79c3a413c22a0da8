"""Topics whose subscription Redis refuses: reported once for each kind, until the last topic of it is granted."""

from __future__ import annotations

from collections import Counter

from gateway.redis.link import RedisRefused
from gateway.redis.refusal import What
from gateway.redis.trouble import Troubles


class DeniedSubscriptions:
    """The topics of one link whose subscription was refused and has not been granted since.

    A kind is, say, all channels: an access rule (ACL) that forbids them is one trouble, not one for each channel.
    """

    def __init__(self, troubles: Troubles, verb: bytes) -> None:
        self._troubles = troubles
        self._verb = verb
        self._topics: dict[bytes, What] = {}
        self._kinds: Counter[What] = Counter()

    def refused(self, topics: list[bytes], error: RedisRefused, at: str) -> None:
        """Note that a SUBSCRIBE of these topics was refused, maybe not for the first time."""
        for topic in topics:
            if topic not in self._topics:
                what = self._topics[topic] = self._troubles.what((self._verb, topic))
                self._kinds[what] += 1
        # The link does not know what was refused, as answers to SUBSCRIBE go to `received`; one topic tells the kind.
        error.command = (self._verb, *topics[:1])
        self._troubles.refused(error, at)

    def over(self, topic: bytes, at: str) -> None:
        """Note that a topic is subscribed, or no longer wanted; harmless where it was never refused."""
        if (what := self._topics.pop(topic, None)) is None:
            return
        self._kinds[what] -= 1
        if not self._kinds[what]:
            del self._kinds[what]
            self._troubles.taken((self._verb, topic), at)
