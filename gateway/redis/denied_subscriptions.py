"""Topics that Redis does not let this node hear: told by their kinds, of which one is well when none of it is left."""

from __future__ import annotations

from collections import Counter

from gateway.redis.link import RedisRefused
from gateway.redis.refusal import What
from gateway.redis.trouble import Troubles


class DeniedSubscriptions:
    """The topics of one link whose subscription was refused and has not been granted since."""

    def __init__(self, troubles: Troubles, verb: bytes) -> None:
        self._troubles = troubles
        self._verb = verb
        self._topics: dict[bytes, What] = {}
        self._kinds: Counter[What] = Counter()

    def refused(self, topics: list[bytes], error: RedisRefused, at: str) -> None:
        """Note a refusal, which may be one of those before."""
        for topic in topics:
            if topic not in self._topics:
                what = self._topics[topic] = self._troubles.what((self._verb, topic))
                self._kinds[what] += 1
        error.command = (self._verb, *topics[:1])
        self._troubles.refused(error, at)

    def over(self, topic: bytes, at: str) -> None:
        """Note that a topic is heard, or wanted no more."""
        if (what := self._topics.pop(topic, None)) is None:
            return
        self._kinds[what] -= 1
        if not self._kinds[what]:
            del self._kinds[what]
            self._troubles.taken((self._verb, topic), at)
