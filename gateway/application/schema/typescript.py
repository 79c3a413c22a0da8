"""Writes a JSON Schema as TypeScript: an interface for the whole, and a type for each definition."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Any

Schema = Mapping[str, Any] | bool

HEADER = "// Written by `gateway schema --typescript`.\n"
_IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*", re.ASCII)
_SIMPLE = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "null": "null"}
_REFERENCE = "#/$defs/"


def typescript(document: Mapping[str, Any], name: str = "Schema") -> str:
    """Return a module that exports the document as an interface of that name, and its definitions beside it."""
    return _Writer(document, name).module()


class _Writer:
    def __init__(self, document: Mapping[str, Any], name: str) -> None:
        self._document = document
        self._root = name
        self._definitions: Mapping[str, Schema] = document.get("$defs", {})
        self._names = _names(self._definitions, name)

    def module(self) -> str:
        declarations = [self._declared(self._root, self._document)]
        declarations += [self._declared(self._names[key], schema) for key, schema in self._definitions.items()]
        return HEADER + "".join("\n" + declaration for declaration in declarations)

    def _declared(self, name: str, schema: Schema) -> str:
        comment = _comment(schema, "")
        if _is_plain_object(schema):
            return f"{comment}export interface {name} {self._type(schema, '')}\n"
        return f"{comment}export type {name} = {self._type(schema, '')};\n"

    # ---- types

    def _type(self, schema: Schema, indent: str) -> str:
        """Write a type; what stands on further lines is indented by two more than `indent`."""
        if isinstance(schema, bool):
            return "unknown" if schema else "never"
        if "tsType" in schema:
            return str(schema["tsType"])
        if "$ref" in schema:
            return self._names[schema["$ref"].removeprefix(_REFERENCE)]
        if "const" in schema:
            return _literal(schema["const"])
        if "enum" in schema:
            return _union(map(_literal, schema["enum"]))
        for keyword, join in _JOINED.items():
            if keyword in schema:
                return join(self._type(each, indent) for each in schema[keyword])
        kind = schema.get("type")
        if isinstance(kind, list):
            return _union(self._type({**schema, "type": each}, indent) for each in kind)
        return self._of_kind(kind, schema, indent)

    def _of_kind(self, kind: object, schema: Mapping[str, Any], indent: str) -> str:
        match kind:
            case "array":
                return self._array(schema, indent)
            case "object":
                return self._object(schema, indent)
            case str() if kind in _SIMPLE:
                return _SIMPLE[kind]
        return "unknown"

    def _array(self, schema: Mapping[str, Any], indent: str) -> str:
        items = self._type(schema.get("items", True), indent)
        if "prefixItems" not in schema:
            return _in_parentheses(items) + "[]"
        first = [self._type(each, indent) for each in schema["prefixItems"]]
        needed = schema.get("minItems", 0)
        parts = [each if index < needed else f"{_in_parentheses(each)}?" for index, each in enumerate(first)]
        is_open = schema.get("maxItems", len(first) + 1) > len(first) and schema.get("items") is not False
        return f"[{', '.join([*parts, *([f'...{_in_parentheses(items)}[]'] if is_open else [])])}]"

    def _object(self, schema: Mapping[str, Any], indent: str) -> str:
        inner, needed = indent + "  ", schema.get("required", ())
        lines = []
        for key, each in schema.get("properties", {}).items():
            mark = "" if key in needed else "?"
            lines.append(f"{_comment(each, inner)}{inner}{_key(key)}{mark}: {self._type(each, inner)};\n")
        if not lines:
            return self._record(schema, indent)
        if schema.get("additionalProperties", False) is not False:
            lines.append(f"{inner}[key: string]: unknown;\n")
        return "{\n" + "".join(lines) + indent + "}"

    def _record(self, schema: Mapping[str, Any], indent: str) -> str:
        patterns = schema.get("patternProperties", {})
        others = schema.get("additionalProperties", not patterns)
        values = [*patterns.values(), *([] if others is False else [others])]
        if not values:
            return "{}"
        value = _union(self._type(each, indent) for each in values)
        if "propertyNames" in schema and self._is_closed(schema["propertyNames"]):
            return f"{{ [key in {self._type(schema['propertyNames'], indent)}]?: {value} }}"
        return f"{{ [key: string]: {value} }}"

    def _is_closed(self, names: Schema) -> bool:
        """Tell whether these are a few names, not just any that look in some way."""
        if isinstance(names, bool):
            return False
        if "$ref" in names:
            return self._is_closed(self._definitions[names["$ref"].removeprefix(_REFERENCE)])
        return "const" in names or "enum" in names


# ---- small parts


def _union(types: Iterable[str]) -> str:
    return " | ".join(dict.fromkeys(types)) or "never"


def _intersection(types: Iterable[str]) -> str:
    return " & ".join(map(_in_parentheses, dict.fromkeys(types)))


_JOINED: dict[str, Callable[[Iterable[str]], str]] = {"anyOf": _union, "oneOf": _union, "allOf": _intersection}


def _in_parentheses(type: str) -> str:
    return f"({type})" if " | " in type or " & " in type else type


def _literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if _IDENTIFIER.fullmatch(name) else _literal(name)


def _comment(schema: Schema, indent: str) -> str:
    text = "" if isinstance(schema, bool) else str(schema.get("description", "")).strip().replace("*/", "*\\/")
    if not text:
        return ""
    lines = text.splitlines()
    if len(lines) == 1:
        return f"{indent}/** {text} */\n"
    return f"{indent}/**\n" + "".join(f"{indent} * {line}".rstrip() + "\n" for line in lines) + f"{indent} */\n"


def _is_plain_object(schema: Schema) -> bool:
    return not isinstance(schema, bool) and schema.get("type") == "object" and bool(schema.get("properties"))


def _names(definitions: Iterable[str], root: str) -> dict[str, str]:
    """Give each definition a name of its own that TypeScript allows, as near to its own as can be."""
    names: dict[str, str] = {}
    taken = {root}
    for key in definitions:
        words = re.findall(r"[A-Za-z0-9$]+", key)
        # Capitals also keep clear of TypeScript's own words.
        wanted = "".join(word[0].upper() + word[1:] for word in words)
        wanted = wanted if _IDENTIFIER.fullmatch(wanted) else f"Type{wanted}"
        name = next(name for number in count(1) if (name := f"{wanted}{number if number > 1 else ''}") not in taken)
        taken.add(name)
        names[key] = name
    return names
