"""How an operator gets in where there is no password: by a link that is in the node's log, and good for one log-in.

It is signed with a secret that the node makes when it starts, or is given by whoever runs several on one port: any of
them takes it. Its token stands in the fragment of the address, which browsers keep to themselves: it comes to no
server, proxy, log or referrer before the page that it leads to sends it, and who only fetches the page uses it up not.
"""

from __future__ import annotations

import logging
import time

from gateway.operations.revocations import LONGEST, Revocations
from gateway.server.admin.session import Signer, Ticket

logger = logging.getLogger(__name__)


class Links:
    """The links of a node: one at a time waits to be used."""

    def __init__(self, secret: str, prefix: str) -> None:
        self.signer = Signer(secret, prefix)
        self.page = ""
        """The address of the page that takes links, as the node knows itself: no header has a part in it."""
        self._waiting: Ticket | None = None

    def make(self) -> str:
        """Make a link, which is what waits from now on."""
        self._waiting = self.signer.ticket(time.time())
        return f"{self.page}#{self.signer.write_ticket(self._waiting)}"

    async def offer(self, revocations: Revocations) -> None:
        """Have a link wait: write another one to the log when the last one was used, or is too old."""
        waiting = self._waiting
        if waiting is not None and waiting.until > time.time() and not await revocations.has(waiting.id):
            return
        if waiting is self._waiting:  # else another page has offered one meanwhile
            logger.info("admin pages, log in once by %s", self.make())

    async def use(self, ticket: Ticket, revocations: Revocations) -> bool:
        """Tell whether a link had not been used before; it has now. Raises `Unavailable`: then it has not."""
        return await revocations.take(ticket.id, LONGEST)
