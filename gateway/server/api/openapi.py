"""The description of the API in OpenAPI 3.1, made from the operations themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any, Literal

from pydantic import TypeAdapter

from gateway.server.api import wire
from gateway.server.api.operation import Operation
from gateway.version import __version__

Schema = dict[str, Any]
Mode = Literal["validation", "serialization"]

_IN_PATH = {
    "channel": "channel name, percent-encoded, / too",
    "user": "user id, percent-encoded, / too; for an anonymous connection its id",
    "id": "connection id, percent-encoded",
}


def describe(operations: Iterable[Operation]) -> Schema:
    """Make the document."""
    operations = list(operations)
    schemas, components = _schemas(operations)
    paths: dict[str, Schema] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gateway",
            "version": __version__,
            "description": "Writes to, lists and moves the WebSocket connections of a cluster.",
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "the setting api_key"}},
        },
    }


def _schemas(operations: list[Operation]) -> tuple[dict[Any, Schema], dict[str, Schema]]:
    """Make the schema of every body and answer, and of what these refer to, by name."""
    asked = [operation.body for operation in operations if operation.body is not None]
    answered = [wire.Problem, *(operation.answer for operation in operations if operation.answer is not None)]
    inputs: list[tuple[Any, Mode, TypeAdapter[Any]]] = [(kind, "validation", TypeAdapter(kind)) for kind in asked]
    inputs += [(kind, "serialization", TypeAdapter(kind)) for kind in answered]
    made, rest = TypeAdapter.json_schemas(inputs, ref_template="#/components/schemas/{model}")
    return {kind: schema for (kind, _), schema in made.items()}, rest.get("$defs", {})


def _operation(operation: Operation, schemas: dict[Any, Schema]) -> Schema:
    described: Schema = {
        "operationId": operation.act.__name__,
        "summary": operation.summary,
        "parameters": [*_path_parameters(operation), *_query_parameters(operation)],
        "responses": {str(operation.status): _good(operation, schemas)} | dict(_bad(operation, schemas)),
    }
    if operation.is_open:
        described["security"] = []
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _json(schemas[operation.body])}
    return described


def _path_parameters(operation: Operation) -> Iterator[Schema]:
    for name in operation.names:
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": _IN_PATH[name],
            "schema": {"type": "string"},
        }


def _query_parameters(operation: Operation) -> Iterator[Schema]:
    fields = operation.query.model_json_schema()["properties"] if operation.query else {}
    for name, schema in fields.items():
        said = schema.pop("description", "")
        if schema.get("default", ...) is None:  # left out: a query has no null
            schema = schema["anyOf"][0]
        yield {"name": name, "in": "query", "required": False, "description": said, "schema": schema}


def _good(operation: Operation, schemas: dict[Any, Schema]) -> Schema:
    answer: Schema = {"description": HTTPStatus(operation.status).phrase}
    if operation.answer is not None:
        answer["content"] = _json(schemas[operation.answer])
    return answer


def _bad(operation: Operation, schemas: dict[Any, Schema]) -> Iterator[tuple[str, Schema]]:
    for status in operation.all_errors:
        content = {"application/problem+json": {"schema": schemas[wire.Problem]}}
        yield str(status), {"description": HTTPStatus(status).phrase, "content": content}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}
