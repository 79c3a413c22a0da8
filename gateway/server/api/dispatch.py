"""Takes requests under /api to their operations; whatever goes wrong is answered with a problem document."""

from __future__ import annotations

import hmac
import logging
from typing import Any

import orjson
from aiohttp import web
from pydantic import ValidationError

from gateway.access.query import EXPECTED, unreadable_in
from gateway.errors import GatewayError
from gateway.node.service import NodeService
from gateway.operations.tracing import calling
from gateway.protocol.json_values import check_integers, parse
from gateway.server.api.operation import OPEN, Operation
from gateway.server.api.problems import Refused, problem, problem_of, refusal_of
from gateway.server.api.routes import ROUTES

logger = logging.getLogger(__name__)

ENVELOPE_BYTES = 4096
"""Of a body: what may come around the largest message."""
CHALLENGE = {"WWW-Authenticate": "Bearer"}
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Api:
    """The API of one node. Without a key in the settings it is off: nothing is there but its description."""

    def __init__(self, service: NodeService) -> None:
        self._service = service
        self._key = service.settings.api_key.encode()
        largest = service.settings.max_message_bytes
        self._most = largest + ENVELOPE_BYTES if largest else 0

    def add_to(self, app: web.Application) -> None:
        """Let an application answer everything under /api."""
        for path in ("/api", r"/api/{rest:[\s\S]*}"):
            app.router.add_route("*", path, self.handle)

    async def handle(self, request: web.Request) -> web.Response:
        """Answer a request; raises nothing."""
        response = await self._answer(request)
        response.headers.update(HEADERS)
        return response

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            return await self._handle(request)
        except GatewayError as error:
            return problem_of(error)
        except ValidationError as error:
            return problem_of(refusal_of(error))
        except Exception:
            logger.exception("%s %s failed", request.method, ascii(request.path))
            return problem(500, "this node failed; its log says how")

    async def _handle(self, request: web.Request) -> web.Response:
        path = request.rel_url.raw_path
        if path != OPEN:
            self._check_key(request.headers.get("Authorization", ""))
        operation, given = ROUTES.find(request.method, path)
        arguments: dict[str, Any] = dict(given)
        if operation.query is not None:
            arguments["query"] = operation.query.model_validate(_query(request))
        if operation.body is not None:
            arguments["body"] = operation.body.model_validate(await self._body(request))
        with calling(self._service.node.tracing, request.headers):
            return _answered(operation, await operation.act(self._service, **arguments))

    def _check_key(self, authorization: str) -> None:
        """Raise `Refused` for all but the holder of the key. Takes as long for a wrong key as for the right one."""
        if not self._key:
            raise Refused(404, "the API is off: the setting api_key switches it on")
        scheme, _, key = authorization.partition(" ")
        is_right = hmac.compare_digest(key.strip().encode("utf-8", "surrogateescape"), self._key)
        if scheme.lower() != "bearer" or not is_right:
            raise Refused(401, "expected Authorization: Bearer with the API key", headers=CHALLENGE)

    async def _body(self, request: web.Request) -> object:
        """Read a JSON object; raise `Refused` for anything else."""
        try:
            body = await self._bytes(request)
            fields = parse(body)
            check_integers(body)
        except ValueError as error:
            raise Refused(400, f"expected a JSON object: {error}") from None
        except TimeoutError:
            raise Refused(408, "the body came too slowly", headers={"Connection": "close"}) from None
        except (web.RequestPayloadError, ConnectionError) as error:
            raise Refused(400, f"the body did not come whole: {error}") from None
        if not isinstance(fields, dict):
            raise Refused(400, "expected a JSON object")
        return fields

    async def _bytes(self, request: web.Request) -> bytes:
        """Read a body; raise `Refused` for one that is too large, as soon as that is known."""
        body = bytearray()
        if 0 < self._most < (request.content_length or 0):
            raise self._too_large
        async for chunk in request.content.iter_any():
            body += chunk
            if 0 < self._most < len(body):
                raise self._too_large
        return bytes(body)

    @property
    def _too_large(self) -> Refused:
        return Refused(413, f"expected a body of at most {self._most} bytes")


def _query(request: web.Request) -> dict[str, str]:
    """Return the query; raise `Refused` for what is said twice, or is not UTF-8."""
    if name := unreadable_in(request.rel_url.raw_query_string):
        raise Refused(400, f"{name}: {EXPECTED}", field=name)
    for name in request.query:
        if len(request.query.getall(name)) > 1:
            raise Refused(400, f"{name}: expected once", field=name)
    return dict(request.query)


def _answered(operation: Operation, answer: object) -> web.Response:
    return web.Response(status=operation.status) if operation.answer is None else _json(answer, operation.status)


def _json(answer: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(answer), status=status, content_type="application/json")
