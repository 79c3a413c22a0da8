"""The description of the server API: valid, whole, and what the node really answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from gateway.server.api.openapi import describe
from gateway.server.api.routes import ROUTES
from tests.harness import http
from tests.harness.client import Clients
from tests.harness.node import Node

KEY = "key"
Schema = dict[str, Any]

CONTRACT = {
    ("post", "/api/channels/{channel}/messages"),
    ("post", "/api/users/{user}/messages"),
    ("post", "/api/connections/{id}/messages"),
    ("post", "/api/messages"),
    ("get", "/api/status"),
    ("get", "/api/nodes"),
    ("get", "/api/channels"),
    ("get", "/api/channels/{channel}"),
    ("get", "/api/channels/{channel}/history"),
    ("get", "/api/connections"),
    ("get", "/api/connections/{id}"),
    ("delete", "/api/connections/{id}"),
    ("put", "/api/connections/{id}/channels/{channel}"),
    ("delete", "/api/connections/{id}/channels/{channel}"),
    ("get", "/api/openapi.json"),
}

END = ("delete", "/api/connections/{id}")


@pytest.fixture(scope="module")
def document() -> Schema:
    return describe(ROUTES.all)


def operations(document: Schema) -> Iterator[tuple[str, str, Schema]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def check(document: Schema, schema: Schema, value: object) -> None:
    """Fail unless a value is what a schema of the document says."""
    OAS31Validator(schema | {"components": document["components"]}).validate(value)


def test_it_is_valid(document: Schema) -> None:
    """By the OpenAPI 3.1 specification."""
    assert document["openapi"].startswith("3.1")
    validate(document)


def test_it_has_every_operation_of_the_contract(document: Schema) -> None:
    """And no other."""
    assert {(method, path) for method, path, _ in operations(document)} == CONTRACT


def test_every_operation_is_described_in_full(document: Schema) -> None:
    """What it does, the parts of its path, its good answer, and its problems; only the description needs no key."""
    for method, path, operation in operations(document):
        assert operation["summary"].endswith(".")
        named = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))
        assert all(parameter["description"] for parameter in operation["parameters"])
        good, *bad = operation["responses"]
        assert good.startswith("2")
        assert operation.get("security", ...) == ([] if path == "/api/openapi.json" else ...)
        if path != "/api/openapi.json":
            assert {"401", "503"} <= set(bad)
        assert ("requestBody" in operation) == (method == "post")
        for status in bad:
            content = operation["responses"][status]["content"]
            assert content.keys() == {"application/problem+json"}


def test_operations_have_names_of_their_own(document: Schema) -> None:
    """Generators of clients make functions of them."""
    names = [operation["operationId"] for *_, operation in operations(document)]
    assert len(names) == len(set(names))


def test_bodies_allow_what_is_read_and_nothing_else(document: Schema) -> None:
    """The keys are those on the wire."""
    schemas = document["components"]["schemas"]
    assert schemas["MessageToMany"]["properties"].keys() == {"cmd", "param", "from", "exclude"}
    assert schemas["MessageBody"]["properties"].keys() == {"cmd", "param", "from"}
    for name in ("MessageToMany", "MessageBody"):
        assert schemas[name]["additionalProperties"] is False
        assert schemas[name]["required"] == ["cmd"]


async def test_a_node_answers_as_described(start_node: Any, connect: Clients) -> None:
    """Every operation, good and bad, against the schema that the node itself gives for it."""
    node: Node = await start_node(api_key=KEY, channels=[{"match": "kept", "history": 5}])
    document = (await node.get("/api/openapi.json")).json
    client = await connect(node, "kept", name="Ada", protocols=["gateway.v1.json"])
    id = (await client.expect("$welcome"))["param"]["connection"]
    headers = {"Authorization": f"Bearer {KEY}"}
    done = set()
    # The connection's end comes last.
    for method, path, operation in sorted(
        operations(document), key=lambda found: found[:2] == ("delete", "/api/connections/{id}")
    ):
        body: Any = {"cmd": "hello", "from": "server"} if method == "post" else None
        for channel, shown in (("kept", headers), ("a b", headers), ("kept", {})):
            where = path.format(channel=channel.replace(" ", "%20"), id=id, user="ada")
            answer = await http.request(method, node.url(where), json=body, headers=shown)
            response = operation["responses"][str(answer.status)]
            if "content" not in response:
                assert answer.body == b""
                continue
            ((kind, content),) = response["content"].items()
            assert answer.headers["Content-Type"].partition(";")[0] == kind
            check(document, content["schema"], answer.json)
            done.add((method, path, answer.status // 100))
    assert {(method, path) for method, path, kind in done if kind == 2} >= CONTRACT - {
        ("delete", "/api/connections/{id}")
    }
