"""Minutes and hours of load and faults, and what must hold after each of them."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import ClientError
from redis.exceptions import RedisError

from gateway import Publisher
from tests.harness.process import EndedEarly
from tests.harness.wait import eventually
from tests.soak.faults import Faults
from tests.soak.followers import ByMsgpack, Follower, Plain, Resuming
from tests.soak.inventory import Expected, differences, leftovers
from tests.soak.ledger import Stream, Verdict
from tests.soak.report import Report, described
from tests.soak.samples import ALIVE, Memory, resident
from tests.soak.scene import Scene
from tests.soak.sums import Moment, Sums
from tests.soak.writers import Writer, Writers

KINDS: tuple[type[Follower], ...] = (Resuming, ByMsgpack, Resuming, ByMsgpack, Resuming, ByMsgpack, Plain)
"""In turn, as many of each as there are channels with history."""
TABS = 3
"""Clients of each user."""
RECOVERY_SECONDS = 90.0
SAMPLE_SECONDS = 5.0
TROUBLES = (AssertionError, OSError, ClientError, RedisError, TimeoutError, EndedEarly)


@dataclass(frozen=True)
class Plan:
    """How much of what, and for how long."""

    seconds: float
    fault_every: float
    faults: list[str]
    seed: int
    nodes: int = 3
    clients: int = 300
    channels: int = 50
    rate: float = 200


class Soak:
    """One run, from the first process to the last."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.report = Report(plan.seed, channels=plan.channels, rate=plan.rate)
        self.stopping = asyncio.Event()
        """Set by whoever wants it to end early: no more faults, but all the rest."""
        self._plan = plan
        self._say = say
        self._scene = Scene(plan.nodes)
        self._faults = Faults(self._scene, seed=plan.seed, scale=min(1.0, plan.fault_every / 60))
        self._memory = Memory()
        self._own, self._redis = Memory(), Memory()
        self._alive = Memory(ALIVE)
        self._began = time.monotonic()
        self._followers: list[Follower] = []

    async def run(self) -> None:
        """Do all of it; whatever happens, nothing is left behind."""
        try:
            await self._scene.start()
            async with Publisher(self._scene.redis.url) as publisher:
                await self._soak(publisher)
        except TROUBLES as error:
            self.report.blame([f"the soak could not go on: {error!r:.2000}"])
        finally:
            self._scene.close()

    async def _soak(self, publisher: Publisher) -> None:
        streams = [
            Stream(channel, writer, kept)
            for channel, kept in channels_of(self._plan.channels)
            for writer in ("publisher", "client")
        ]
        self._followers = followers_of(self._plan.clients, self._scene, streams)
        speakers = speakers_of(self._followers)
        said = [(speakers[s.channel], Writer(s, speakers[s.channel].say, patient=True)) for s in streams[1::2]]
        told = [Writer(stream, publisher.write_channel, patient=False) for stream in streams[::2]]
        self._writers = Writers([writer for _, writer in said] + told, rate=self._plan.rate)
        self._sums = Sums(self._scene, self._followers, said)
        self._expected = expected_of(self._scene, self._followers)
        self.report.clients = dict(Counter(follower.kind for follower in self._followers))
        sampling = asyncio.create_task(self._sample())
        try:
            for follower in self._followers:
                follower.start()
            await self._as_it_should_be()
            self._writers.start()
            await self._minutes()
            await self._finish()
        finally:
            sampling.cancel()
            await self._writers.stop()
            await asyncio.gather(*(follower.stop() for follower in self._followers))
            self._tally()

    # ---- a minute

    async def _minutes(self) -> None:
        """Make one fault after the other; between them the cluster comes to rest, and is looked at."""
        ends = self._began = time.monotonic()
        while time.monotonic() < self._began + self._plan.seconds and not self.stopping.is_set():
            ends += self._plan.fault_every
            words = await self._minute(ends)
            self._tally()
            self._say(self._line(words))

    async def _minute(self, ends: float) -> str:
        words = "no fault"
        try:
            await self._revive()
            words = await self._fault()
            before = await self._calm()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(1.0, ends - time.monotonic())):
                    await self.stopping.wait()
            after = await self._moment()
            self._blame(self._sums.compare(before, after), words)
        except TROUBLES as error:
            self._blame([f"{error!r:.3000}"], words)
        finally:
            self._writers.go_on()
        self._blame([wrong for follower in self._followers for wrong in follower.wrong()], words)
        return words

    async def _revive(self) -> None:
        """Start again what has ended though nobody wanted it to, which does not hold."""
        for node in self._scene.nodes:
            if not node.process.running:
                self._blame([f"{node.id} has ended: {node.process.tail(20)}"], "before a fault")
                await self._scene.start_node(node)

    async def _fault(self) -> str:
        for follower in self._followers:
            follower.lenient = True
        words = "unknown"
        try:
            words = await self._faults.one(self._plan.faults)
        finally:
            self.report.faults.append(f"{self._clock()} {words}")
        return words

    async def _calm(self) -> Moment:
        """Wait until every client hears every channel, and Redis is as it should be."""
        began, marks = time.monotonic(), self._writers.marks
        await eventually(lambda: self._all_beyond(marks), RECOVERY_SECONDS, what="every client hears every channel")
        self.report.longest_recovery = max(self.report.longest_recovery, time.monotonic() - began)
        await self._as_it_should_be()
        for follower in self._followers:
            follower.calm()
        return await self._moment()

    async def _moment(self) -> Moment:
        """Stop writing, wait until all is settled, read all counts, and go on."""
        self._writers.pause()
        await eventually(lambda: not self._writers.under_way, 30, what="every write is answered")
        moment = await self._sums.moment()
        for life, figures in moment.figures.items():
            self._alive.add(life, time.monotonic() - self._began, figures["memory_blocks"] / ALIVE.parts)
        self.report.resumed, self.report.others = self._verdict(resumed=True), self._verdict(resumed=False)
        self._writers.go_on()
        return moment

    async def _as_it_should_be(self) -> None:
        await self._scene.all_up()
        await self._none(lambda: self._look(differences, self._expected), RECOVERY_SECONDS)

    # ---- the end

    async def _finish(self) -> None:
        """Let the last numbers come, send everybody home, and see what is left."""
        await self._writers.stop()
        try:
            await eventually(lambda: not self._writers.under_way, 30, what="every write is answered")
            last = await self._sums.moment()
            for follower in self._followers:
                follower.end()
            self.report.resumed, self.report.others = self._verdict(resumed=True), self._verdict(resumed=False)
            self._blame(self._sums.at_the_end(last), "at the end")
            await asyncio.gather(*(follower.stop() for follower in self._followers))
            await self._none(lambda: self._look(leftovers, len(self._scene.nodes)), 30)
            codes = await asyncio.gather(*(node.stop() for node in self._scene.nodes))
            if any(codes):
                self._blame([f"the nodes' exit codes: {codes}"], "at the end")
            await self._none(lambda: self._look(leftovers, 0), 30)
        except TROUBLES as error:
            self._blame([f"{error!r:.3000}"], "at the end")
        self._blame([wrong for follower in self._followers for wrong in follower.wrong()], "at the end")

    async def _look(self, ask: Callable[..., Awaitable[list[str]]], expected: object) -> list[str]:
        async with self._scene.redis.client() as redis:
            options = {"nodes": expected} if isinstance(expected, int) else {"expected": expected}
            return await ask(redis, **options)

    async def _none(self, wrongs: Callable[[], Awaitable[list[str]]], deadline: float) -> None:
        """Wait until nothing is wrong in Redis."""

        async def none() -> bool:
            wrong = await wrongs()
            assert not wrong, wrong[:10]
            return True

        await eventually(none, deadline, tolerating=(OSError, RedisError), what="Redis holds what it should")

    # ---- figures

    async def _sample(self) -> None:
        while True:
            seconds = time.monotonic() - self._began
            for node in self._scene.nodes:
                if node.process.running and (size := resident(node.process.pid)):
                    self._memory.add(self._scene.life(node.id), seconds, size)
            if self._scene.redis.process.running and (size := resident(self._scene.redis.process.pid)):
                self._redis.add("redis", seconds, size)
            self._own.add("clients", seconds, resident(os.getpid()))
            await asyncio.sleep(SAMPLE_SECONDS)

    def _tally(self) -> None:
        report, followers = self.report, self._followers
        report.seconds = time.monotonic() - self._began
        report.written, report.unsure = self._writers.sent, self._writers.unsure
        report.connections = sum(follower.tally.connections for follower in followers)
        report.duplicates = sum(f.client.stats().duplicates for f in followers if isinstance(f, Resuming))
        gaps: Counter[str] = sum((follower.gaps for follower in followers), Counter())
        report.gaps_resumed = sum(count for channel, count in gaps.items() if channel.startswith("kept"))
        report.gaps_others = gaps.total() - report.gaps_resumed
        report.sums, report.sums_delivered = self._sums.stretches, self._sums.delivered

    def judge(self) -> None:
        """Say of the whole what does not hold."""
        report = self.report
        report.slopes = [*self._memory.slopes(), *self._alive.slopes()]
        report.not_judged = [*self._redis.slopes(), *self._own.slopes()]
        report.blame([f"{slope}: grows" for slope in report.slopes if not slope.is_flat])
        report.blame([follower.failed for follower in self._followers if follower.failed])
        dropped = sum(follower.dropped for follower in self._followers)
        if dropped:
            report.blame([f"this machine is too slow: {dropped} messages waited too long to be counted"])
        if not report.sums:
            report.blame(["no stretch without a fault was long enough to compare counts"])

    def _verdict(self, *, resumed: bool) -> Verdict:
        return sum((follower.verdict(resumed=resumed) for follower in self._followers), Verdict())

    def _all_beyond(self, marks: dict[Stream, int]) -> bool:
        late = [follower for follower in self._followers if not follower.beyond(marks)]
        assert not late, f"{len(late)} of {len(self._followers)} do not, first {late[0].kind} {late[0].agent}"
        return True

    def _blame(self, problems: list[str], when: str) -> None:
        self.report.blame([f"{self._clock()} ({when}) {problem}" for problem in problems])

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        return f"{minutes:02}:{seconds:02}"

    def _line(self, words: str) -> str:
        report, scene = self.report, self._scene
        sizes = [f"{self._memory.latest(scene.life(node.id)):.1f}" for node in scene.nodes]
        beside = f"redis {self._redis.latest('redis'):.1f}, clients {self._own.latest('clients'):.1f}"
        return (
            f"{self._clock()}  {words}; written {report.written:,}; resumed: {described(report.resumed)}; "
            f"others: {described(report.others)}; MiB {' '.join(sizes)}, {beside}"
            + (f"; PROBLEMS {report.problems_in_all}" if report.problems else "")
        )


def channels_of(count: int) -> list[tuple[str, bool]]:
    """Name the channels, every other one with history."""
    return [(f"{'loose' if number % 2 else 'kept'}-{number // 2}", number % 2 == 0) for number in range(count)]


def followers_of(count: int, scene: Scene, streams: Sequence[Stream]) -> list[Follower]:
    """Make the clients: each in one channel with history and one without, three to a user, the plain ones anonymous.

    Seven for each channel with history are enough that every channel has a client that can write to it.
    """
    pairs = len({stream.channel for stream in streams}) // 2
    followers: list[Follower] = []
    for number in range(count):
        make = KINDS[number // pairs % len(KINDS)]
        names = [f"kept-{number % pairs}", f"loose-{(number + number // pairs) % pairs}"]
        mine = [stream for stream in streams if stream.channel in names]
        user = "" if make is Plain else f"user-{number % (count // TABS)}"
        url = scene.url if make is not Plain else scene.balancer.ws_url(*names)
        followers.append(make(number, url, mine, scene.life, user))
    return followers


def speakers_of(followers: Sequence[Follower]) -> dict[str, Resuming]:
    """Choose for each channel the client that writes to it."""
    chosen: dict[str, Resuming] = {}
    for follower in followers:
        if isinstance(follower, Resuming):
            for channel in follower.channels:
                chosen.setdefault(channel, follower)
    return chosen


def expected_of(scene: Scene, followers: Sequence[Follower]) -> Expected:
    """Say what Redis should hold while all are connected."""
    members: Counter[str] = Counter()
    users: Counter[str] = Counter()
    online: dict[str, set[str]] = {}
    for follower in followers:
        users.update(filter(None, [follower.user]))
        for channel in follower.channels:
            members[channel] += 1
            online.setdefault(channel, set()).add(follower.user or follower.agent)
    counts = {channel: len(names) for channel, names in online.items()}
    return Expected({node.id for node in scene.nodes}, members, counts, users, len(followers))
