"""One typed command: what it takes and returns is read from its function's annotations, once, at import."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, get_type_hints

import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, SchemaError

from gateway.application.router.refusal import refusal
from gateway.application.service import Service
from gateway.connections.connection import Connection
from gateway.errors import InvalidParam, InvalidRouter
from gateway.protocol.json_values import is_changed, unsayable

_GIVEN = {"service": Service, "connection": Connection}
_TELLING = (PydanticUserError, SchemaError, NameError, TypeError, ValueError)
"""Errors whose words say what is wrong with a type."""
_BY_TYPE_NAME = {kind.__name__: kind for kind in _GIVEN.values()}
"""For annotations whose types were imported for type checkers only."""


class Param:
    """The parameter that is what the client sends."""

    def __init__(self, name: str, adapter: TypeAdapter[Any], *, has_default: bool) -> None:
        self.name = name
        self.adapter = adapter
        self.has_default = has_default

    @property
    def may_be_null(self) -> bool:
        """Whether a client may leave it out."""
        try:
            self.check(None)
        except InvalidParam:
            return self.has_default
        return True

    def check(self, param: object) -> Any:
        """Return the value that a client means; raise `InvalidParam` that names the field."""
        try:
            encoded = orjson.dumps(param)
        except TypeError as error:  # of msgpack's types, or nested too deeply
            raise InvalidParam(f"param cannot be read as JSON: {error}", field="param") from None
        if is_changed(param, encoded):
            raise InvalidParam(f"cannot be read as JSON: {unsayable({'param': param})}", field="param")
        try:
            return self.adapter.validate_json(encoded, strict=True)
        except ValidationError as error:
            raise refusal(error, param) from None


class Command:
    """A function that carries out one command."""

    def __init__(self, name: str, function: Callable[..., Awaitable[Any]]) -> None:
        """Raise `InvalidRouter` when the function cannot be one."""
        self.name = name
        self.function = function
        self.place = place_of(function)
        self.param: Param | None = None
        """None when the command takes none."""
        self.reply: TypeAdapter[Any] | None = None
        """How to write what the function returns; None when it does not say."""
        self._given: dict[str, type] = {}
        """The other parameters: each takes the service or the connection."""
        self._read()

    @property
    def description(self) -> str:
        """What the function says of itself."""
        return inspect.getdoc(self.function) or ""

    async def __call__(self, service: Service, connection: Connection, param: object) -> object:
        """Call the function with what a client sent; return what to answer. Raises `InvalidParam`."""
        arguments: dict[str, Any] = {
            name: service if kind is Service else connection for name, kind in self._given.items()
        }
        if self.param is None:
            if param is not None:
                raise InvalidParam(f"{self.name} takes no param", field="param")
        elif param is not None or not self.param.has_default:
            arguments[self.param.name] = self.param.check(param)
        return self._written(await self.function(**arguments))

    def _written(self, result: Any) -> object:
        if self.reply is None:
            return result
        try:
            answer = self.reply.validate_python(result)
            return self.reply.dump_python(answer, mode="json", by_alias=True)
        except ValidationError as error:  # said without the values, which are nobody's business in a log
            why = str(refusal(error, result)).replace("param", "the value", 1)
            raise TypeError(f"{self.place} returned what its annotation does not allow: {why}") from None
        except PydanticSerializationError as error:
            raise TypeError(f"{self.place} returned what JSON cannot say: {error}") from None

    # ---- reading the function

    def _read(self) -> None:
        parameters, hints = _signature(self.function)
        for parameter in parameters.values():
            self._read_parameter(parameter, hints)
        if "return" in hints:
            self.reply = adapter_of(hints["return"], f"{self.place}: what is returned")

    def _read_parameter(self, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> None:
        name, where = parameter.name, f"{self.place}: parameter {parameter.name!r}"
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise InvalidRouter(f"{where} must be one that can be given by name")
        if name not in hints and name not in _GIVEN:
            raise InvalidRouter(f"{where} needs an annotation: the type of what clients send")
        kind = hints.get(name, _GIVEN.get(name))
        if kind in _GIVEN.values():
            self._given[name] = kind
        elif self.param is not None:
            raise InvalidRouter(f"{where} is one too many: {self.param.name!r} is what clients send already")
        else:
            has_default = parameter.default is not parameter.empty
            self.param = Param(name, adapter_of(kind, where), has_default=has_default)


class Event:
    """A message that clients are sent: its name, and what it carries."""

    def __init__(self, name: str, param: Any) -> None:
        """Raise `InvalidRouter` when the type cannot be used."""
        self.name = name
        self.param = adapter_of(param, f"event {name!r}")


def place_of(function: Callable[..., object]) -> str:
    """Name a function so that it can be found."""
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"


def adapter_of(annotation: Any, where: str) -> TypeAdapter[Any]:
    """Make what checks and writes values of a type; raise `InvalidRouter` that says where it stood."""
    try:
        adapter = TypeAdapter(annotation)
        adapter.rebuild(raise_errors=True)
        return adapter
    except Exception as error:  # pydantic's own, and whatever comes of taking for a type what is none: a dict, a lambda
        why = str(error).partition("\n")[0] if isinstance(error, _TELLING) else "expected a type"
        raise InvalidRouter(f"{where}: the type cannot be used, got {annotation!a:.100}: {why}") from None


def _signature(function: Callable[..., object]) -> tuple[Mapping[str, inspect.Parameter], dict[str, Any]]:
    if not inspect.iscoroutinefunction(function):
        raise InvalidRouter(f"{place_of(function)}: expected an async function")
    names = {**_BY_TYPE_NAME, **getattr(inspect.unwrap(function), "__globals__", {})}
    try:
        return inspect.signature(function).parameters, get_type_hints(function, names, include_extras=True)
    except Exception as error:  # an annotation in quotes is evaluated, which may raise anything
        raise InvalidRouter(f"{place_of(function)}: an annotation cannot be read: {error}") from None
