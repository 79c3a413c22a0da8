"""Typed commands: what a function may ask for, what its clients may send, and what they are told."""

from __future__ import annotations

import asyncio
import enum
import logging
import math
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal, NewType, NotRequired

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from gateway import Connection, InvalidParam, Profile, Router, Service, UnknownCommand
from gateway.application.service import Handler
from gateway.errors import InvalidRouter
from gateway.node.commands import MOST_WAITING
from tests.harness.client import Clients
from tests.harness.embedded import Embedded, Member
from tests.harness.wait import eventually


@dataclass
class ChatText:
    """What somebody says."""

    text: Annotated[str, Field(max_length=10)]
    tags: list[str] = field(default_factory=list)


class ChatSent(TypedDict):
    """What came of it."""

    id: int
    note: NotRequired[str]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    user_name: str = Field(alias="userName")


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
UserId = NewType("UserId", int)


def _short(text: str) -> str:
    if len(text) > 3:
        raise ValueError("three letters are enough")
    return text


Short = Annotated[str, AfterValidator(_short)]

ANYBODY: Any = Connection("node~1", Profile("42", "Ada"), Handler())
SERVICE: Any = object()


def taking(kind: Any) -> Router:
    """Return a router whose command `take` takes this, and returns it as it got it."""
    router = Router()

    async def take(value: Any) -> Any:
        return value

    take.__annotations__["value"] = kind
    del take.__annotations__["return"]
    router.command("take")(take)
    return router


def returning(kind: Any, value: Any) -> Router:
    """Return a router whose command `take` returns this value with that annotation."""
    router = Router()

    async def take() -> Any:
        return value

    take.__annotations__["return"] = kind
    router.command("take")(take)
    return router


async def call(router: Router, param: Any = None, cmd: str = "take") -> Any:
    return await router.on(SERVICE, ANYBODY, cmd, param)


async def refusal(router: Router, param: Any, cmd: str = "take") -> tuple[str, str]:
    """Return the field and the text with which a param is refused."""
    with pytest.raises(InvalidParam) as refused:
        await call(router, param, cmd)
    assert set(refused.value.fields) == {"field"}
    return str(refused.value.fields["field"]), refused.value.message


class TestWhatIsTaken:
    @pytest.mark.parametrize(
        ("kind", "param", "value"),
        [
            (ChatText, {"text": "hi"}, ChatText("hi")),
            (ChatText, {"text": "hi", "tags": ["a"], "more": 1}, ChatText("hi", ["a"])),
            (ChatSent, {"id": 1}, {"id": 1}),
            (Cat, {"kind": "cat", "lives": 9}, Cat(kind="cat", lives=9)),
            (Cat | Dog, {"kind": "dog", "name": "Rex"}, Dog(kind="dog", name="Rex")),
            (Pet, {"kind": "dog", "name": "Rex"}, Dog(kind="dog", name="Rex")),
            (Strict, {"userName": "ada"}, Strict(userName="ada")),
            (Tree, {"name": "a", "children": [{"name": "b"}]}, Tree(name="a", children=[Tree(name="b")])),
            (str, "hi", "hi"),
            (int, 5, 5),
            (UserId, 5, 5),
            (float, 5, 5.0),
            (bool, True, True),
            (None, None, None),
            (int | str | None, None, None),
            (list[int], [1, 2], [1, 2]),
            (tuple[int, str], [1, "a"], (1, "a")),
            (set[int], [1, 1], {1}),
            (dict[str, int], {"a": 1}, {"a": 1}),
            (dict[int, bool], {"1": True}, {1: True}),
            (Literal["a", 1], 1, 1),
            (Color, "red", Color.RED),
            (datetime, "2026-01-02T03:04:05Z", datetime.fromisoformat("2026-01-02T03:04:05+00:00")),
            (uuid.UUID, "12345678-1234-5678-1234-567812345678", uuid.UUID("12345678-1234-5678-1234-567812345678")),
            (Any, {"any": [None, 1.5]}, {"any": [None, 1.5]}),
            ("ChatText", {"text": "hi"}, ChatText("hi")),
        ],
        ids=str,
    )
    async def test_a_command_gets_a_value_of_the_type_it_asks_for(self, kind: Any, param: Any, value: Any) -> None:
        """Dataclasses, TypedDicts, models and plain types; what JSON has no type for is read from its string."""
        taken = await call(taking(kind), param)
        assert taken == value
        assert type(taken) is type(value)

    @pytest.mark.parametrize(
        ("kind", "param"),
        [
            (int, "1"),
            (int, 1.0),
            (int, True),
            (float, "1"),
            (str, 1),
            (str, None),
            (bool, 1),
            (bool, "true"),
            (None, 0),
            (list[int], {"0": 1}),
            (list[int], "12"),
            (dict[str, int], [["a", 1]]),
            (Color, "green"),
            (datetime, 1_700_000_000),
            (ChatText, ["hi"]),
            (ChatText, None),
        ],
        ids=str,
    )
    async def test_types_are_those_of_json(self, kind: Any, param: Any) -> None:
        """A string is no number and a number no string, however alike they look."""
        field, text = await refusal(taking(kind), param)
        assert field == "param"
        assert text.startswith("param should be ")

    async def test_a_default_stands_in_for_null(self) -> None:
        """A client may leave the param out then."""
        router = Router()

        @router.command("list")
        async def _list(limit: int = 10) -> int:
            return limit

        assert await call(router, None, "list") == 10
        assert await call(router, 3, "list") == 3
        assert (await refusal(router, "3", "list"))[0] == "param"

    async def test_a_command_without_a_parameter_takes_none(self) -> None:
        """What a client sends all the same is refused, not lost."""
        router = Router()

        @router.command("ping")
        async def _ping() -> str:
            return "pong"

        assert await call(router, None, "ping") == "pong"
        assert await refusal(router, {}, "ping") == ("param", "ping takes no param")

    async def test_service_and_connection_are_there_for_who_wants_them(self) -> None:
        """By annotation or by name, in any order, or not at all."""
        router = Router()
        seen: list[Any] = []

        @router.command("by-type")
        async def _by_type(conn: Connection, text: str, where: Service) -> None:
            seen.append((conn, text, where))

        @router.command("by-name")
        async def _by_name(connection, *, service, text: str) -> None:
            seen.append((connection, text, service))

        @router.command("one")
        async def _one(connection: Connection) -> None:
            seen.append((connection,))

        @router.command("mine")
        async def _mine(service: str) -> None:
            seen.append(service)

        await call(router, "a", "by-type")
        await call(router, "b", "by-name")
        await call(router, None, "one")
        await call(router, "c", "mine")
        assert seen == [(ANYBODY, "a", SERVICE), (ANYBODY, "b", SERVICE), (ANYBODY,), "c"]

    async def test_a_command_that_is_not_there_is_unknown(self) -> None:
        """As with every handler."""
        with pytest.raises(UnknownCommand, match="dance"):
            await call(taking(int), 1, "dance")


class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "param", "field", "text"),
        [
            (ChatText, {}, "text", "text is required"),
            (ChatText, {"text": 5}, "text", "text should be a valid string"),
            (ChatText, {"text": "x" * 11}, "text", "text: String should have at most 10 characters"),
            (ChatText, {"text": "x", "tags": ["a", None]}, "tags.1", "tags.1 should be a valid string"),
            (list[ChatText], [{"text": "x"}, {}], "1.text", "1.text is required"),
            (dict[str, list[int]], {"a": [1, "x"]}, "a.1", "a.1 should be a valid integer"),
            (tuple[int, str], [1], "1", "1 is required"),
            (Strict, {}, "userName", "userName is required"),
            (Strict, {"userName": "a", "age": 1}, "age", "age is not expected"),
            (
                Tree,
                {"name": "a", "children": [{"name": 1}]},
                "children.0.name",
                "children.0.name should be a valid string",
            ),
            (Short, "long", "param", "param: three letters are enough"),
            (int | str, [], "param", "param should be a valid integer or a valid string"),
            (list[int | str], [1, None], "1", "1 should be a valid integer or a valid string"),
            (Cat | None, {"kind": "cat"}, "lives", "lives is required"),
            (Cat | Dog, {"kind": "dog", "name": 1}, "name", "name should be a valid string"),
            (Cat | Dog, {"kind": "cow"}, "kind", "kind should be 'cat' or 'dog'"),
            (list[Cat] | Cat, [{"kind": "cat"}], "0.lives", "0.lives is required"),
            (Pet, {"kind": "dog", "name": 1}, "name", "name should be a valid string"),
            (Pet, {"kind": "cow" * 1000}, "param", "param should have as 'kind' one of 'cat', 'dog'"),
            (Pet, {}, "param", "param needs 'kind', which tells what it is"),
            (Color, "green", "param", "param should be 'red' or 'blue'"),
        ],
        ids=lambda value: "Short" if value is Short else str(value),
    )
    async def test_a_refusal_names_the_field(self, kind: Any, param: Any, field: str, text: str) -> None:
        """By its path in what the client sent, with a sentence that says what was expected."""
        assert await refusal(taking(kind), param) == (field, text)

    @pytest.mark.parametrize(
        ("kind", "param"),
        [
            (int, "x" * 50_000),
            (list[int], ["x" * 1000] * 50),
            (list[int], [[]] * 20_000),
            (dict[str, int], {"x" * 50_000: "x"}),
            (Tree, {"name": "x", "children": [{"x" * 50_000: "x"}]}),
            (Pet, {"kind": "x" * 50_000}),
            (Literal["a"], "x" * 50_000),
            (Color, "x" * 50_000),
            (datetime, "x" * 50_000),
            (uuid.UUID, "x" * 50_000),
        ],
        ids=lambda value: str(value)[:40],
    )
    async def test_a_refusal_stays_short(self, kind: Any, param: Any) -> None:
        """Whatever was sent, it is not sent back."""
        field, text = await refusal(taking(kind), param)
        assert len(field) <= 100
        assert len(text) <= 300
        assert "x" * 101 not in text
        assert "pydantic" not in text

    @pytest.mark.parametrize("param", [b"\xff", {1: 2}, [[b""]], {"a": math.nan}], ids=repr)
    async def test_what_only_msgpack_has_is_refused(self, param: Any) -> None:
        """Both protocols take the same values."""
        assert (await refusal(taking(Any), param))[0] == "param"

    async def test_what_nests_too_deeply_is_refused(self) -> None:
        """As deep as JSON may be on the way in, a handler need not follow."""
        param: Any = 1
        for _ in range(1000):
            param = [param]
        assert (await refusal(taking(Any), param))[0] == "param"


class TestReplies:
    @pytest.mark.parametrize(
        ("kind", "value", "reply"),
        [
            (ChatText, ChatText("hi"), {"text": "hi", "tags": []}),
            (ChatText, {"text": "hi"}, {"text": "hi", "tags": []}),
            (ChatSent, {"id": 1}, {"id": 1}),
            (Strict, Strict(userName="ada"), {"userName": "ada"}),
            (list[Tree], [Tree(name="a")], [{"name": "a", "children": []}]),
            (datetime, datetime.fromisoformat("2026-01-02T03:04:05+00:00"), "2026-01-02T03:04:05Z"),
            (Color, Color.RED, "red"),
            (set[int], {1}, [1]),
            (None, None, None),
            (ChatText | None, None, None),
            (Any, {"a": 1}, {"a": 1}),
        ],
        ids=str,
    )
    async def test_what_a_command_returns_is_written_as_its_annotation_says(
        self, kind: Any, value: Any, reply: Any
    ) -> None:
        """As JSON can say it, under the names that clients know."""
        assert await call(returning(kind, value)) == reply

    async def test_nothing_beyond_the_annotation_is_told(self) -> None:
        """A subclass may know more than clients should."""

        class Secret(Tree):
            password: str = "hunter2"

        assert await call(returning(Tree, Secret(name="a"))) == {"name": "a", "children": []}

    @pytest.mark.parametrize(
        ("kind", "value"),
        [(ChatSent, {"no": "hunter2"}), (int, "hunter2"), (None, "hunter2"), (list[int], None)],
        ids=str,
    )
    async def test_a_wrong_answer_is_the_handlers_mistake(self, kind: Any, value: Any) -> None:
        """It is not sent, and the log does not repeat it."""
        with pytest.raises(TypeError, match=r"take returned what its annotation does not allow: ") as error:
            await call(returning(kind, value))
        assert "hunter2" not in str(error.value)
        assert error.value.__suppress_context__


def declared(source: str) -> Any:
    """Return the function that is called `f` in a module of this text."""
    module: dict[str, Any] = {"__name__": "module", "asyncio": asyncio}
    exec("from __future__ import annotations\n" + source, module)
    return module["f"]


class TestDeclarations:
    @pytest.mark.parametrize(
        ("source", "words"),
        [
            ("async def f(first: int, second: int): ...", ["'second'", "one too many", "'first'"]),
            ("async def f(text): ...", ["'text'", "annotation"]),
            ("async def f(*texts: str): ...", ["'texts'"]),
            ("async def f(**texts: str): ...", ["'texts'"]),
            ("async def f(text: str, /): ...", ["'text'"]),
            ("async def f(text: NoSuchType): ...", ["NoSuchType"]),
            ("async def f(text: list['NoSuchType']): ...", ["NoSuchType"]),
            ("async def f(text: '1 +'): ...", ["1 +"]),
            ("async def f(text: asyncio.Event): ...", ["'text'", "Event"]),
            ("async def f() -> asyncio.Event: ...", ["returned", "Event"]),
            ("def f(text: str): ...", ["async"]),
            ("async def f(text: str):\n    yield 1", ["async"]),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_a_function_that_cannot_be_one_is_told_at_once(self, source: str, words: list[str]) -> None:
        """In one line that names module, function and parameter."""
        with pytest.raises(InvalidRouter) as error:
            Router().command("x")(declared(source))
        text = str(error.value)
        assert text.startswith("module.f: ")
        assert [word for word in words if word not in text] == []
        assert "\n" not in text

    @pytest.mark.parametrize("name", ["", "$join", "x" * 129, 5, None, print])
    def test_a_name_that_cannot_be_one_is_told_at_once(self, name: Any) -> None:
        """Names with `$` belong to the gateway; `@router.command` without a name is a slip that is told, too."""
        with pytest.raises(InvalidRouter, match=r"router\.command"):
            Router().command(name)
        with pytest.raises(InvalidRouter, match=r"router\.event"):
            Router().event(name, int)

    def test_two_commands_of_one_name_are_told_at_once(self) -> None:
        """With both functions."""
        router = taking(int)
        with pytest.raises(InvalidRouter, match=r"_one_more.*take.*'take'"):

            @router.command("take")
            async def _one_more() -> None: ...

    def test_two_events_of_one_name_are_told_at_once(self) -> None:
        """And a type that cannot be used."""
        router = Router()
        router.event("pong", int)
        with pytest.raises(InvalidRouter, match="pong"):
            router.event("pong", str)
        with pytest.raises(InvalidRouter, match="bad"):
            router.event("bad", asyncio.Event)

    @pytest.mark.parametrize(
        "kind",
        [{"a": int}, {1, 2}, [int], (int, str), 5, ..., object(), "nonsense(", "a b", "Nobody", "os.nothing"],
        ids=lambda kind: kind if isinstance(kind, str) else type(kind).__name__,
    )
    def test_what_is_no_type_is_told_at_once(self, kind: Any) -> None:
        """As an event's, as a parameter's, as an answer's: with where it stood, and never as an error of its own."""

        async def take(text): ...

        with pytest.raises(InvalidRouter, match="event 'bad'"):
            Router().event("bad", kind)
        for name in ("text", "return"):
            take.__annotations__ = {"text": int, name: kind}
            with pytest.raises(InvalidRouter, match="take"):
                Router().command("take")(take)

    async def test_a_function_stays_what_it_is(self) -> None:
        """It can be called by other code, and carry out two commands."""
        router = Router()

        @router.command("a")
        @router.command("b")
        async def add(numbers: list[int]) -> int:
            return sum(numbers)

        assert await add([1, 2]) == 3
        assert (await call(router, [1], "a"), await call(router, [2], "b")) == (1, 2)

    async def test_types_imported_for_checkers_only_are_known(self) -> None:
        """`Service` and `Connection` need not be there at run time."""
        router = Router()
        router.command("who")(declared("async def f(connection: Connection, at: Service): return 1"))
        assert await call(router, None, "who") == 1


class TestIncluding:
    async def test_routers_are_combined(self) -> None:
        """The commands and events of all, those of an included one's own inclusions among them."""
        inner, middle, outer = taking(int), Router(), Router()
        inner.event("pong", int)

        @middle.command("other")
        async def _other() -> str:
            return "other"

        middle.include(inner)
        outer.include(middle)
        assert await call(outer, 5) == 5
        assert await call(outer, None, "other") == "other"
        assert (sorted(outer.commands), sorted(outer.events)) == (["other", "take"], ["pong"])

    def test_a_name_in_both_is_told_at_once(self) -> None:
        """No command silently replaces another."""
        router = taking(int)
        with pytest.raises(InvalidRouter, match="take"):
            router.include(taking(str))

    async def test_hooks_come_along(self) -> None:
        """Those that may be there several times are run in order, all of them."""
        log: list[str] = []

        def having(name: str, error: Exception | None = None) -> Router:
            router = Router()

            @router.hook
            async def on_open(service: Service, connection: Connection) -> None:
                log.append(name)
                if error:
                    raise error

            return router

        router = having("a", ValueError("of a"))
        router.include(having("b"))
        router.include(having("c"))
        with pytest.raises(ValueError, match="of a"):
            await router.on_open(SERVICE, ANYBODY)
        assert log == ["a", "b", "c"]


class TestHooks:
    async def test_hooks_stand_for_the_methods_of_a_handler(self) -> None:
        """Who may connect, what they may do, and their coming and going."""
        router, log = Router(), []

        @router.hook
        async def authenticate(request: Any) -> Profile | None:
            return Profile(str(request))

        @router.hook
        async def authorize(connection: Connection, channel: str, action: str) -> bool:
            return channel == "lobby"

        @router.hook
        async def on_close(service: Service, connection: Connection) -> None:
            log.append(connection)

        assert await router.authenticate("ada") == Profile("ada")  # type: ignore[arg-type]
        assert await router.authorize(ANYBODY, "lobby", "join")
        assert not await router.authorize(ANYBODY, "other", "join")
        await router.on_open(SERVICE, ANYBODY)
        await router.on_close(SERVICE, ANYBODY)
        assert log == [ANYBODY]

    def test_without_hooks_it_is_a_plain_handler(self) -> None:
        """Whether somebody has a say is a question that rules ask."""
        assert Router.authorize is Handler.authorize
        assert Router.authenticate is Handler.authenticate

    def test_a_hook_of_another_name_is_told_at_once(self) -> None:
        """With the names there are."""
        with pytest.raises(InvalidRouter, match="authenticate, authorize, on_open, on_close"):
            Router().hook(declared("async def f(): ..."))

    def test_a_hook_that_cannot_be_called_is_told_at_once(self) -> None:
        """It takes what the method takes, and is a coroutine function."""

        async def authorize(connection: Connection) -> bool:
            return True

        def on_open(service: Service, connection: Connection) -> None: ...

        with pytest.raises(InvalidRouter, match="connection, channel, action"):
            Router().hook(authorize)
        with pytest.raises(InvalidRouter, match="async"):
            Router().hook(on_open)  # type: ignore[type-var]

    def test_there_is_one_answer_to_who_may_do_what(self) -> None:
        """A second `authorize` or `authenticate` is refused."""
        router = Router()

        async def authorize(connection: Connection, channel: str, action: str) -> bool:
            return True

        router.hook(authorize)
        with pytest.raises(InvalidRouter, match="authorize already"):
            router.hook(authorize)


# ---- on the wire

wired = Router()
held: asyncio.Event
holding: list[Connection] = []


class Waited(TypedDict):
    number: int
    waiting: int


@wired.command("chat")
async def _chat(service: Service, connection: Connection, text: ChatText) -> ChatSent:
    await service.write_channel("chat", {"text": text.text}, connection.channel)
    return {"id": 1}


@wired.command("wrong")
async def _wrong() -> ChatSent:
    return {"password": "hunter2"}  # type: ignore[typeddict-item, typeddict-unknown-key]


@wired.command("hold")
async def _hold(connection: Connection, service: Service) -> None:
    holding.append(connection)
    await service.write_connection("holding", None, connection.id)
    await held.wait()


@wired.command("count")
async def _count(connection: Connection, padded: tuple[int, str]) -> Waited:
    return {"number": padded[0], "waiting": len(connection.inbox or ())}


@pytest.fixture
async def connected(connect: Clients) -> AsyncIterator[Callable[..., Any]]:
    """Connects clients to a node with the router: `await connected("gateway.v1.json")`."""
    global held
    held = asyncio.Event()
    async with Embedded("memory://", handler=wired, message_rate=0) as node:

        async def connected(protocol: str) -> Member:
            return await node.connect(connect, "lobby", protocols=[protocol])

        yield connected
        held.set()
        await connect.close()


@pytest.mark.parametrize("protocol", ["gateway.v1.json", "gateway.v1.msgpack"])
class TestWire:
    async def test_a_request_is_answered_or_refused(self, connected: Callable[..., Any], protocol: str) -> None:
        """`$reply` with what the command returned, `$error` with code and field."""
        client = (await connected(protocol)).client
        reply = await client.request("chat", {"text": "hi"})
        assert (reply["cmd"], reply["param"]) == ("$reply", {"id": 1})
        assert (await client.expect("chat"))["param"] == {"text": "hi"}
        error = await client.request("chat", {"text": 5})
        assert error["param"] == {"code": "invalid-param", "message": "text should be a valid string", "field": "text"}
        assert (await client.request("dance"))["param"]["code"] == "unknown-command"

    async def test_a_wrong_answer_is_internal(
        self, connected: Callable[..., Any], protocol: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The client is told no more; the log says which function, and nothing that was in it."""
        client = (await connected(protocol)).client
        with caplog.at_level(logging.ERROR):
            assert (await client.request("wrong"))["param"]["code"] == "internal"
        assert "_wrong returned what its annotation does not allow: id is required" in caplog.text
        assert "hunter2" not in caplog.text


class TestOrder:
    async def test_one_slow_command_delays_nobody_else(self, connected: Callable[..., Any]) -> None:
        """Another connection is answered while the first one's command is still under way."""
        slow, quick = await connected("gateway.v1.json"), await connected("gateway.v1.json")
        await slow.client.send("hold")
        await slow.client.expect("holding")
        await slow.client.send("chat", {"text": "late"})
        assert (await quick.client.request("chat", {"text": "hi"}))["cmd"] == "$reply"
        assert (await quick.client.expect("chat"))["param"] == {"text": "hi"}
        held.set()
        await quick.client.expect("chat", param={"text": "late"})

    async def test_a_client_far_ahead_is_handled_in_order_with_few_messages_waiting(
        self, connected: Callable[..., Any]
    ) -> None:
        """What it sends beyond stays in its own socket: a node holds back whoever is too fast."""
        client = (await connected("gateway.v1.json")).client
        await client.send("hold")
        await client.expect("holding")
        padding = "x" * 30_000  # one read of the socket brings few of these
        sending = asyncio.ensure_future(_send_numbered(client, 500, padding))
        await eventually(lambda: len(holding[-1].inbox or ()) >= MOST_WAITING)
        held.set()
        replies = [await client.expect("$reply", id=number) for number in range(500)]
        await sending
        assert [reply["param"]["number"] for reply in replies] == list(range(500))
        assert max(reply["param"]["waiting"] for reply in replies) < 2 * MOST_WAITING


async def _send_numbered(client: Any, count: int, padding: str) -> None:
    for number in range(count):
        await client.send("count", [number, padding], id=number)
