"""A member of the cluster without connections, for publishers and the command line: writes and asks as a node does."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from gateway.application.outbound import Outbound
from gateway.backplane import NODES, TAP, Backplane, Target, open_backplane
from gateway.backplane.questions import Questions
from gateway.config import Rule, Settings, first_match, load
from gateway.connections.counters import Counters
from gateway.errors import ConnectionNotFound, GatewayError, InvalidSettings, Unavailable
from gateway.operations.observers import Observers
from gateway.operations.taps import Taps
from gateway.presence.view import PresenceView
from gateway.protocol.envelope import is_envelope
from gateway.redis.links import open_links
from gateway.redis.wait import Steps, Wait

if TYPE_CHECKING:
    from gateway.operations.tracing.spans import Tracing

logger = logging.getLogger(__name__)

RULES_RENEW = 30.0
"""Seconds after which the rules of channels are read again: they change when nodes are restarted with others."""
LOOK = 0.05
"""Seconds between two looks whether Redis is there yet: a cron job that publishes one message waits that long more."""


class _Given(Settings):
    """Settings from what was given alone: `GATEWAY_*` in a producer's environment may be those of a node."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def settings_of(redis_url: str, *, prefix: str, publish_timeout: float, cluster_secret: str = "") -> Settings:
    """Make the settings of a guest; raise `InvalidSettings` that names what was wrong."""
    settings = load(
        _Given,
        redis_url=redis_url,
        prefix=prefix,
        publish_timeout=publish_timeout,
        cluster_secret=cluster_secret,
    )
    if settings.redis_url.startswith("memory:"):
        raise InvalidSettings(
            "redis_url: expected the Redis that joins the nodes, such as redis://localhost:6379/0, got 'memory://', "
            "which is one node alone"
        )
    return settings


def own_settings(settings: Settings) -> Settings:
    """Return the settings of a guest to the cluster that a node's settings name."""
    return settings_of(
        settings.redis_url,
        prefix=settings.prefix,
        publish_timeout=settings.publish_timeout,
        cluster_secret=settings.cluster_secret,
    )


class Guest:
    """A process at the cluster that is no node: it can publish, ask nodes, hear their answers, and read presence."""

    def __init__(self, settings: Settings, *, tracing: Tracing | None = None) -> None:
        """Needs a running loop; nothing is connected before `running`."""
        # Named where it connects: what was made before a fork is in all children, and answers would go to all of them.
        self.id = f"visitor-{secrets.token_hex(6)}"
        self._settings = settings = settings.model_copy(update={"node_id": self.id})
        links = open_links(settings)
        assert links is not None  # `settings_of` refuses a node that is alone
        self.backplane: Backplane = open_backplane(settings, links)
        self.presence = PresenceView(links)
        hint = "" if settings.cluster_secret else "; if the nodes have a cluster_secret, whoever asks them needs it"
        self.questions = Questions(self.id, self.backplane, _refuse, timeout=settings.publish_timeout, hint=hint)
        self._rule: Callable[[str], Rule] = first_match(())
        self._taps = Taps(self.id)
        self.observers = Observers(self.backplane, self._taps)
        self._taps.suppose()
        self.outbound = Outbound(
            backplane=self.backplane,
            questions=self.questions,
            taps=self._taps,
            counters=Counters(),
            tracing=tracing,
            rule=self.rule,
            shows_at_once=True,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Guest]:
        """Be connected. Raises `Unavailable` when Redis does not let us in within the publish timeout."""
        task = asyncio.create_task(self._run())
        try:
            await self._arrive()
            yield self
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.backplane.run())
            tasks.create_task(self.presence.run())
            tasks.create_task(self._listen())
            tasks.create_task(self._keep_up())
            tasks.create_task(self.observers.run())

    async def _arrive(self) -> None:
        steps: Steps = {
            "to be reached": self.backplane.ready,
            "to grant subscriptions": partial(self.backplane.subscribe, [NODES, Target("node", self.id)]),
            "to tell the rules of channels": self._read_first_rules,
        }
        wait = Wait(self._settings.redis_url, limit=self._settings.publish_timeout)
        await wait.go_through(steps, self.backplane.troubles)

    async def _read_first_rules(self) -> None:
        while True:
            with suppress(Unavailable):
                return await self._read_rules()
            await asyncio.sleep(LOOK)

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(RULES_RENEW)
            with suppress(Unavailable):
                await self._read_rules()

    async def _read_rules(self) -> None:
        self._rule = first_match(await self.presence.rules())

    def rule(self, channel: str) -> Rule:
        """Return what holds for a channel, as the nodes have it: they may get other rules while we are here."""
        return self._rule(channel)

    # ---- hearing

    async def _listen(self) -> None:
        async for batch in self.backplane.batches():
            for target, data in batch:
                with suppress(GatewayError):  # rubbish, which the nodes count and log; an answer Redis does not take
                    await self._hear(target, data)

    async def _hear(self, target: Target, data: bytes) -> None:
        match target.kind:
            case "node" if not is_envelope(data):
                await self.questions.heard(data)
            case NODES.kind:
                self._taps.wished(data)
            case TAP.kind:
                self._taps.show(data)


async def _refuse(verb: str, arguments: dict[str, Any]) -> object:
    raise ConnectionNotFound("a visitor holds no connections")
