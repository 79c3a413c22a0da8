"""Builds one node of its parts, runs them in one task group, and ends them together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from gateway.access.tokens import Tokens
from gateway.application.outbound import Outbound
from gateway.application.service import Service
from gateway.backplane import ALL, DIRECT, NODES, Target, open_backplane
from gateway.backplane.questions import Questions
from gateway.config import Settings, database_of
from gateway.connections.budget import Budget
from gateway.connections.counters import Counters
from gateway.connections.expiry import Expiry
from gateway.connections.heartbeat import Heartbeat
from gateway.connections.hub import Hub
from gateway.node.answers import Answers
from gateway.node.commands import Commands
from gateway.node.delivery import Delivery
from gateway.node.drain import Drain
from gateway.node.gateway_commands import GatewayCommands
from gateway.node.health import Health
from gateway.node.history import History
from gateway.node.inbound import Inbound
from gateway.node.lifecycle import Lifecycle
from gateway.node.membership import Membership
from gateway.node.rights import Rights
from gateway.node.startup import Startup
from gateway.operations.directory import VERBS, Directory
from gateway.operations.journal import Journal
from gateway.operations.journal_store import open_journal_store
from gateway.operations.neighbours import Neighbours
from gateway.operations.operators import QUESTIONS, Operations
from gateway.operations.revocations import Revocations
from gateway.operations.status import Held
from gateway.operations.taps import Taps
from gateway.operations.tracing import open_tracing
from gateway.operations.vitals import Vitals
from gateway.operations.watchdog import Beats, Watchdog
from gateway.presence import SCRIPTS, Presence, open_presence
from gateway.redis.links import Links, open_links
from gateway.redis.records import Rejections
from gateway.redis.wait import Steps
from gateway.version import __version__

logger = logging.getLogger(__name__)


class Node:
    """The parts of one node, each made of those before it; needs a running loop.

    They are made where the node runs, and not before: a server may load the application first and fork then, and two
    processes that share what is drawn by lot here would take each other's connections for ghosts of their own.
    """

    def __init__(self, service: Service, tokens: Tokens, startup: Startup, *, patience: float) -> None:
        """`service` is what handlers are given; `patience` is how many seconds the end of a connection may take."""
        settings, counters = service.settings, service.counters
        self.id = settings.node_id
        self.tracing = open_tracing(settings.tracing, node=self.id)
        """None where there are no traces."""
        self.rejections = Rejections(counters)
        self.hub, self.taps, self.beats = Hub(), Taps(self.id), Beats()
        # The other nodes.
        links = open_links(settings, SCRIPTS)
        self.backplane = open_backplane(settings, links, self.rejections)
        self.health = Health(startup, self.backplane, service.crashed)
        self.vitals = self._make_vitals(counters)
        journal_store = open_journal_store(links, self.rejections, secret=settings.cluster_secret)
        self.journal = Journal(self.id, journal_store, counters, self.rejections)
        self.vitals.sampled.append(self.journal.sampled)
        self.presence = self._open_presence(settings, links, counters)
        database = database_of(settings.redis_url)
        self.neighbours = Neighbours(self.id, settings.prefix, database, self.backplane, self.presence)
        self.health.parts += (self.presence, self.neighbours)
        self.watchdog = Watchdog(self.hub, self.presence.hold, counters, self.beats)
        # What is asked of them, and what they ask.
        self.answers = Answers(service, self.hub, self.tracing)
        self.questions = Questions(self.id, self.backplane, self.answers.give, timeout=settings.publish_timeout)
        self.directory = Directory(self.hub, self.presence, self.questions)
        self.operations = self._make_operations(Revocations(journal_store))
        self.answers.add(VERBS, self.directory.answer)
        self.answers.add(QUESTIONS, self.operations.answer)
        # The clients.
        self.budget, self.expiry = Budget(settings), Expiry(self.hub)
        self.delivery = Delivery(self.hub, settings.rule, counters)
        self.history = History(self.hub, self.backplane, self.delivery, settings.rule, counters, self.budget)
        self.membership = Membership(self.hub, self.backplane, self.history, self.presence, self.expiry, settings)
        self.rights = Rights(self.membership, settings.rule, counters)
        self.outbound = self._make_outbound(settings, counters)
        self.commands = self._make_commands(service, tokens)
        self.heartbeat = Heartbeat(settings.heartbeat)
        self.lifecycle = self._make_lifecycle(service, patience)
        self.drain = Drain(self.hub, self.lifecycle, self.health, self.journal, self.presence, settings)
        self.inbound = self._make_inbound(counters)

    @property
    def held(self) -> Held:
        """How much this node itself holds."""
        waiting = sum(connection.socket.waiting_bytes for connection in self.hub.connections.values())
        return Held(len(self.hub), len(self.hub.channels), len(self.hub.users), waiting)

    # ---- life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run all parts. Entering waits until Redis answers; leaving closes every connection first.

        Raises `CannotStart` when Redis stays away for `startup_timeout`, or refuses the log-in.
        """
        started = asyncio.Event()
        running = asyncio.create_task(self._run(started))
        running.add_done_callback(self._note_crash)
        try:
            await started.wait()
            await self._connect()
            yield
            await self.drain.run()  # while all parts still run: it writes to clients and to Redis
        finally:
            running.cancel()
            await asyncio.wait((running,))
            self.outbound.end()

    async def _run(self, started: asyncio.Event) -> None:
        """Own the tasks of all parts: what one of them does not expect ends all, and with them the node."""
        async with asyncio.TaskGroup() as tasks:
            for run in (
                self.backplane.run,
                self.presence.run,
                self.inbound.run,
                self.neighbours.run,
                self.commands.run,
                self.delivery.run,
                self.history.run,
                self.heartbeat.run,
                self.watchdog.run,
                self.expiry.run,
                self.vitals.run,
                self.journal.run,
                self.outbound.run,
                self.operations.observers.run,
            ):
                tasks.create_task(run())
            started.set()

    async def _connect(self) -> None:
        """Wait for Redis, and hear what concerns every node."""
        everybody = [ALL, DIRECT, NODES, Target("node", self.id)]
        steps: Steps = {
            "to be reached": self.backplane.ready,
            "to grant subscriptions": partial(self.backplane.subscribe, everybody),
            "to register this node, if no other process has its name": self.presence.ready,
        }
        await self.health.startup.go_through(steps, self.backplane.troubles)
        self.journal.event("up", f"version {__version__}")

    def _note_crash(self, running: asyncio.Task[None]) -> None:
        if not running.cancelled() and (error := running.exception()) is not None:
            logger.critical("the node has crashed", exc_info=error)
            self.health.crashed.set()

    # ---- its parts

    def _make_vitals(self, counters: Counters) -> Vitals:
        return Vitals(
            self.hub,
            counters,
            backplane=lambda: self.backplane.counters,
            state=self.health.condition,
            loop_lag=lambda: self.beats.lag.most,
            taps=lambda: len(self.taps.here),
        )

    def _open_presence(self, settings: Settings, links: Links | None, counters: Counters) -> Presence:
        return open_presence(
            settings,
            links,
            self.backplane,
            self.hub,
            counters,
            self.rejections,
            vital=self.vitals.current,
            reaped=self.journal.lost,
        )

    def _make_operations(self, revocations: Revocations) -> Operations:
        return Operations(
            backplane=self.backplane,
            questions=self.questions,
            presence=self.presence,
            vitals=self.vitals,
            journal=self.journal,
            revocations=revocations,
            taps=self.taps,
        )

    def _make_outbound(self, settings: Settings, counters: Counters) -> Outbound:
        return Outbound(
            backplane=self.backplane,
            questions=self.questions,
            taps=self.taps,
            counters=counters,
            tracing=self.tracing,
            rule=settings.rule,
            epoch=self.history.epoch,
        )

    def _make_commands(self, service: Service, tokens: Tokens) -> Commands:
        own = GatewayCommands(
            service.settings,
            tokens=tokens,
            rights=self.rights,
            membership=self.membership,
            history=self.history,
            directory=self.directory,
        )
        return Commands(
            service,
            gateway_commands=own,
            rights=self.rights,
            taps=self.taps,
            budget=self.budget,
            tracing=self.tracing,
        )

    def _make_lifecycle(self, service: Service, patience: float) -> Lifecycle:
        return Lifecycle(
            hub=self.hub,
            membership=self.membership,
            commands=self.commands,
            heartbeat=self.heartbeat,
            health=self.health,
            settings=service.settings,
            counters=service.counters,
            patience=patience,
        )

    def _make_inbound(self, counters: Counters) -> Inbound:
        return Inbound(
            backplane=self.backplane,
            delivery=self.delivery,
            history=self.history,
            taps=self.taps,
            questions=self.questions,
            neighbours=self.neighbours,
            counters=counters,
            rejections=self.rejections,
            tracing=self.tracing,
        )
