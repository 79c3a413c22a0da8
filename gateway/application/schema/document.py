"""One JSON Schema for all that a router and its clients say to each other.

It describes what the type parameter of the browser's `gateway.Client` is: an object with `commands`, each with
`param` and `reply`, and `messages`. `param` is optional where a command takes null.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core.core_schema import DataclassField, ModelField, TypedDictField

from gateway.application.router import Command, Router
from gateway.application.service import Handler
from gateway.errors import InvalidRouter

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ANYTHING: dict[str, Any] = {}
_UNDECLARED = {
    "description": "Any, since the handler declares none: see `Router.event`.",
    "type": "object",
    "additionalProperties": {"tsType": "any"},
}
"""Where nothing is declared any message may come: with none at all, typed clients could listen to nothing."""

Mode = Literal["validation", "serialization"]
Part = tuple[str, str]
"""The name of a command or message, and which of its types: `param`, `reply` or `message`."""


class _Generator(GenerateJsonSchema):
    """Leaves out titles that only repeat the name of a field; what is answered has its defaults filled in."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def field_is_required(self, field: ModelField | DataclassField | TypedDictField, total: bool) -> bool:
        if self.mode == "serialization" and field["type"] != "typed-dict-field":
            return field.get("serialization_exclude_if") is None
        return super().field_is_required(field, total)


def describe(handler: Handler) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12), the same for the same router: sorted by name.

    A handler that is no `Router` declares nothing: with it any command may be sent and any message come. Raises
    `InvalidRouter` for a type that JSON Schema cannot express.
    """
    if not isinstance(handler, Router):
        return {"$schema": DIALECT, **_object({"commands": _UNDECLARED, "messages": _UNDECLARED})}
    router = handler
    schemas, definitions = _schemas(router)
    commands = {name: _command(command, schemas) for name, command in sorted(router.commands.items())}
    messages = {name: schemas[name, "message"] for name in sorted(router.events)}
    document = {
        "$schema": DIALECT,
        **_object({"commands": _object(commands), "messages": _object(messages) if messages else _UNDECLARED}),
    }
    return document | ({"$defs": dict(sorted(definitions.items()))} if definitions else {})


def _schemas(router: Router) -> tuple[dict[Part, dict[str, Any]], dict[str, Any]]:
    """Return the schema of each part, and the definitions that they share."""
    inputs = _inputs(router)
    try:
        found, shared = TypeAdapter.json_schemas(inputs, ref_template="#/$defs/{model}", schema_generator=_Generator)
    except PydanticUserError:
        raise InvalidRouter(_culprit(inputs)) from None
    return {part: schema for (part, _), schema in found.items()}, shared.get("$defs", {})


def _inputs(router: Router) -> list[tuple[Part, Mode, TypeAdapter[Any]]]:
    inputs: list[tuple[Part, Mode, TypeAdapter[Any]]] = []
    for name, command in sorted(router.commands.items()):
        if command.param is not None:
            inputs.append(((name, "param"), "validation", command.param.adapter))
        if command.reply is not None:
            inputs.append(((name, "reply"), "serialization", command.reply))
    inputs += [((name, "message"), "serialization", event.param) for name, event in sorted(router.events.items())]
    return inputs


def _culprit(inputs: list[tuple[Part, Mode, TypeAdapter[Any]]]) -> str:
    for (name, what), mode, adapter in inputs:
        try:
            adapter.json_schema(mode=mode)
        except PydanticUserError as error:
            return f"{what} of {name!r} has no JSON Schema: {str(error).partition(chr(10))[0]}"
    return "the types have no JSON Schema together"


def _command(command: Command, schemas: dict[Part, dict[str, Any]]) -> dict[str, Any]:
    param = command.param
    takes = {"type": "null"} if param is None else schemas[command.name, "param"]
    if param is not None and param.has_default:
        takes = _or_null(takes)
    properties = {"param": takes, "reply": schemas.get((command.name, "reply"), _ANYTHING)}
    needed = ["reply"] if param is None or param.may_be_null else ["param", "reply"]
    described = {"description": command.description} if command.description else {}
    return described | _object(properties, required=needed)


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return schema if not schema else {"anyOf": [schema, {"type": "null"}]}


def _object(properties: dict[str, Any], *, required: list[str] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }
