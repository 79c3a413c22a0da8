"""A handler made of functions, one for each command."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import Any, TypeVar, overload

from gateway.application.router.command import Command, Event, place_of
from gateway.application.service import Handler, Service
from gateway.connections.connection import Connection
from gateway.errors import InvalidRouter, UnknownCommand
from gateway.protocol.message import CMD_RULE, OWN, is_cmd

Function = TypeVar("Function", bound=Callable[..., Awaitable[Any]])
Type = TypeVar("Type")

_BELOW: Any = object()
_HOOKS = {
    "authenticate": ("request",),
    "authorize": ("connection", "channel", "action"),
    "on_open": ("service", "connection"),
    "on_close": ("service", "connection"),
}
_ONCE = ("authenticate", "authorize")
"""Of these the answer counts, so there can be one only."""


class Router(Handler):
    """A handler that calls a function for each command, with what the client sent as a value of the type it asks for.

        router = Router()

        @router.command("chat")
        async def chat(service: Service, connection: Connection, text: ChatText) -> ChatSent: ...

    One parameter is what the client sends: annotated with a dataclass, a TypedDict, a pydantic model, or a plain
    type such as `int`, `list[str]`, `ChatText | None`. With a default the client may leave it out, or send null.
    A function without such a parameter takes none. Parameters annotated `Service` and `Connection`, or without an
    annotation and called `service` and `connection`, are given these; each may be left out, in any order.

    Types are JSON's: "1" is no integer, 1 no string; what JSON has no type for (dates, UUIDs, enums) is read from
    its string. What does not fit is answered with `invalid-param` and the `field`, as in `items.0.name`, and the
    function is not called. A command that nobody declared is `unknown-command`.

    What the function returns is the reply, checked and written as its return annotation says, or as it is where there
    is none. A value that does not fit the annotation is the function's fault: logged, and `internal` to the client.
    Order, and what becomes of exceptions, is as for any `Handler`.

    A wrong declaration raises `InvalidRouter` at once, while its module is imported, naming function and parameter.
    """

    def __init__(self) -> None:
        self._commands: dict[str, Command] = {}
        self._events: dict[str, Event] = {}
        self._hooks: dict[str, list[Callable[..., Awaitable[Any]]]] = {name: [] for name in _HOOKS}

    @property
    def commands(self) -> Mapping[str, Command]:
        """What clients may send, by name."""
        return MappingProxyType(self._commands)

    @property
    def events(self) -> Mapping[str, Event]:
        """What clients are sent unasked, by name, as far as it was declared."""
        return MappingProxyType(self._events)

    # ---- declaring

    def command(self, name: str) -> Callable[[Function], Function]:
        """Let the async function below carry out a command; it stays the plain function it is.

        Raises `InvalidRouter` for a name that cannot be a `cmd` (1 to 128 characters, not beginning with $) or is
        taken, and for a function whose parameters cannot be understood.
        """
        _check_name(name, "@router.command")

        def declare(function: Function) -> Function:
            self._add(Command(name, function))
            return function

        return declare

    @overload
    def event(self, name: str) -> Callable[[Type], Type]: ...
    @overload
    def event(self, name: str, param: Any) -> None: ...
    def event(self, name: str, param: Any = _BELOW) -> Callable[[Type], Type] | None:
        """Declare what a message to clients carries: called with a type, or above a class.

        This is for `gateway schema`; nothing is checked when such messages are written. Raises `InvalidRouter` for a
        name that is taken or cannot be a `cmd`, and for what is no type.
        """
        _check_name(name, "router.event")

        def declare(param: Type) -> Type:
            self._announce(Event(name, param))
            return param

        if param is _BELOW:
            return declare
        declare(param)
        return None

    def hook(self, function: Function) -> Function:
        """Let an async function stand for the method of `Handler` that has its name and takes the same arguments.

        `authenticate`, `authorize`, `on_open` or `on_close`. There may be several of the last two: they run in the
        order declared, one after the other, all of them whatever one raises. Raises `InvalidRouter` for any other
        function, and for a second `authenticate` or `authorize`.
        """
        _check_hook(function)
        self._hook(function.__name__, function)
        return function

    def include(self, other: Router) -> None:
        """Take over all that another router has by now: its commands, events and hooks.

        What is declared there later is not taken over. Raises `InvalidRouter` for what is here already.
        """
        for command in other._commands.values():
            self._add(command)
        for event in other._events.values():
            self._announce(event)
        for name, hooks in other._hooks.items():
            for hook in hooks:
                self._hook(name, hook)

    def _add(self, command: Command) -> None:
        if present := self._commands.get(command.name):
            raise InvalidRouter(f"{command.place}: {present.place} is called {command.name!r} already")
        self._commands[command.name] = command

    def _announce(self, event: Event) -> None:
        if event.name in self._events:
            raise InvalidRouter(f"there are two events {event.name!r}")
        self._events[event.name] = event

    def _hook(self, name: str, function: Callable[..., Awaitable[Any]]) -> None:
        hooks = self._hooks[name]
        if name in _ONCE:
            if hooks:
                raise InvalidRouter(f"{place_of(function)}: there is {place_of(hooks[0])} already")
            setattr(self, name, function)  # in the method's place, so that without one this is a plain Handler
        hooks.append(function)

    # ---- being a handler

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        """Call a command's function. Raises `UnknownCommand`, `InvalidParam`, and what the function raises."""
        command = self._commands.get(cmd)
        if command is None:
            raise UnknownCommand(f"unknown command {cmd!r}")
        return await command(service, connection, param)

    async def on_open(self, service: Service, connection: Connection) -> None:
        """Run the hooks."""
        await self._run("on_open", service, connection)

    async def on_close(self, service: Service, connection: Connection) -> None:
        """Run the hooks."""
        await self._run("on_close", service, connection)

    async def _run(self, name: str, *arguments: object) -> None:
        async with AsyncExitStack() as stack:  # runs all, the last one pushed first
            for hook in reversed(self._hooks[name]):
                stack.push_async_callback(hook, *arguments)


def _check_name(name: object, where: str) -> None:
    if not is_cmd(name):
        raise InvalidRouter(f'{where}: expected {CMD_RULE}, as in {where}("chat")')
    if name.startswith(OWN):
        raise InvalidRouter(f"{where}: {name!r} would be the gateway's own: names with $ are")


def _check_hook(function: Callable[..., object]) -> None:
    name, place = function.__name__, place_of(function)
    if name not in _HOOKS:
        raise InvalidRouter(f"{place}: expected a function called one of {', '.join(_HOOKS)}")
    if not inspect.iscoroutinefunction(function):
        raise InvalidRouter(f"{place}: expected an async function")
    try:
        inspect.signature(function).bind(*_HOOKS[name])
    except TypeError:
        raise InvalidRouter(f"{place}: expected the parameters {', '.join(_HOOKS[name])}") from None
