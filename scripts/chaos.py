"""Minutes of trouble: nodes behind haproxy are restarted and killed while browsers follow a numbered stream.

The stream has to stay complete and in order in every browser, with nothing twice and no gap. Needs what the tests
need: a Redis server, haproxy and Chromium. The test `tests/system/test_client_chaos.py` is the same for some seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.harness.browser import Pages, open_browser
from tests.harness.chaos import Chaos, Report
from tests.harness.feed import RULES
from tests.harness.haproxy import Haproxy
from tests.harness.node import Nodes
from tests.harness.numbered import running
from tests.harness.redis import RedisServer


async def chaos(options: argparse.Namespace) -> Report:
    """Start everything, make trouble, and leave nothing behind."""
    redis = RedisServer()
    nodes = Nodes(options.nodes, redis, channels=RULES, drain_seconds=2)
    balancer = Haproxy(nodes)
    try:
        await redis.start()
        await nodes.start()
        await balancer.start()
        async with open_browser() as browser, running(redis.url) as backplane:
            trouble = Chaos(nodes, balancer, backplane, seed=options.seed)
            pages = Pages(browser)
            report = await trouble.run(pages, browsers=options.browsers, seconds=options.minutes * 60)
            pages.assert_clean()
            return report
    finally:
        balancer.close()
        nodes.close()
        redis.close()


def main() -> None:
    """Read the options, and say in one line how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--browsers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, help="decides the order of events; default %(default)s")
    options = parser.parse_args()
    try:
        print(asyncio.run(chaos(options)))
    except AssertionError as error:
        sys.exit(f"seed {options.seed}: {error}")


if __name__ == "__main__":
    main()
