"""What `gateway schema` writes of typed commands, and that the browser client can be compiled against it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Base64Bytes, BaseModel, Field

import gateway
from gateway import Router
from gateway.application.schema import describe, typescript
from gateway.errors import InvalidRouter
from tests.handlers import typed
from tests.harness.process import output_of

CLIENT = Path(gateway.__file__).parent / "client"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The schema of a router with one of each kind of type."""
    return describe(typed.router)


@pytest.fixture(scope="module")
def module(document: dict[str, Any]) -> str:
    """The same in TypeScript."""
    return typescript(document)


def router_of(kind: Any) -> Router:
    """Return a router with an event of this type."""
    router = Router()
    router.event("it", kind)
    return router


def written(kind: Any) -> str:
    """Return how a type is written in TypeScript, without what is around it."""
    text = typescript(describe(router_of(kind)))
    found = re.search(r"^    it: (.*?);\n  \};\n", text, re.DOTALL | re.MULTILINE)
    assert found is not None, text
    return found[1]


def references(schema: Any) -> Iterator[str]:
    """Yield every reference in a schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        schema = list(schema.values())
    if isinstance(schema, list):
        for each in schema:
            yield from references(each)


class TestDocument:
    def test_it_is_one_schema_of_commands_and_messages(self, document: dict[str, Any]) -> None:
        """In the shape of the client's type parameter, in the dialect of 2020-12."""
        assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        commands = document["properties"]["commands"]["properties"]
        assert list(commands) == sorted(typed.router.commands)
        assert list(document["properties"]["messages"]["properties"]) == ["chat", "nothing", "pong"]
        assert commands["chat"]["description"] == "Say something in the channel."
        assert commands["chat"]["properties"] == {
            "param": {"$ref": "#/$defs/ChatText"},
            "reply": {"$ref": "#/$defs/ChatSent"},
        }

    def test_every_reference_leads_to_a_definition(self, document: dict[str, Any]) -> None:
        """Definitions are shared, and there is none that nobody needs."""
        assert {name.removeprefix("#/$defs/") for name in references(document)} == set(document["$defs"])
        assert list(document["$defs"]) == sorted(document["$defs"])

    def test_a_param_may_be_left_out_where_null_is_taken(self, document: dict[str, Any]) -> None:
        """Because the command takes none, has a default, or says so."""
        commands = document["properties"]["commands"]["properties"]
        optional = {name for name, command in commands.items() if "param" not in command["required"]}
        assert optional == {"ping", "untyped", "limited", "maybe", "constants"}

    def test_the_same_router_gives_the_same_text(self, document: dict[str, Any]) -> None:
        """Whatever the order in which its parts were put together."""
        turned = Router()
        for name in sorted(typed.router.commands, reverse=True):
            turned.command(name)(typed.router.commands[name].function)
        for name in ("pong", "chat", "nothing"):
            turned.event(name, {"pong": int, "chat": typed.Chat, "nothing": None}[name])
        assert json.dumps(describe(turned)) == json.dumps(document)

    def test_an_empty_router_has_a_schema_too(self) -> None:
        """Without definitions."""
        assert "$defs" not in describe(Router())
        assert "commands: {};" in typescript(describe(Router()))

    def test_messages_that_nobody_declared_may_be_any(self) -> None:
        """A page can listen to what a handler sends before its author has found `Router.event`."""
        assert "see `Router.event`. */\n  messages: { [key: string]: any };" in typescript(describe(Router()))

    def test_a_type_without_a_schema_is_named(self) -> None:
        """It can be used in a handler, but not be described."""
        router = Router()

        @router.command("odd")
        async def _odd(value: object) -> None: ...

        router.event("worse", Callable)
        with pytest.raises(InvalidRouter, match="message of 'worse' has no JSON Schema: "):
            describe(router)


class TestTypescript:
    @pytest.mark.parametrize(
        ("kind", "text"),
        [
            (str, "string"),
            (int | float, "number"),
            (None, "null"),
            (bool | None, "boolean | null"),
            (list[int | str], "(number | string)[]"),
            (list[list[str]], "string[][]"),
            (tuple[int, str], "[number, string]"),
            (tuple[int, ...], "number[]"),
            (typed.Point, "Point"),
            (set[str], "string[]"),
            (dict[str, int], "{ [key: string]: number }"),
            (dict[str, Any], "{ [key: string]: unknown }"),
            (dict[typed.Color, int], "{ [key in Color]?: number }"),
            (dict[Literal["a"], int], '{ [key in "a"]?: number }'),
            (dict[Annotated[str, Field(pattern="^a")], int], "{ [key: string]: number }"),
            (Literal["a", 1, None], '"a" | 1 | null'),
            (Literal['"\n'], '"\\"\\n"'),
            (typed.Color, "Color"),
            (Any, "unknown"),
            (object, "unknown"),
            (Base64Bytes, "string"),
            (typed.Cat | typed.Dog, "Cat | Dog"),
            (typed.Page[int], "PageInt"),
        ],
        ids=str,
    )
    def test_each_kind_of_type_has_its_own(self, kind: Any, text: str) -> None:
        """As a person would write it."""
        assert written(kind) == text

    def test_types_of_one_name_stay_apart(self) -> None:
        """Two modules may each have a `Cat`; the interface itself may be called like a type."""

        class Cat(BaseModel):
            other: int

        router = router_of(tuple[Cat, typed.Cat])
        text = typescript(describe(router), "Cat")
        names = re.findall(r"^export \w+ (\w+)", text, re.MULTILINE)
        assert len(names) == len(set(names)) == 3

    def test_comments_come_from_docstrings(self, module: str) -> None:
        """And cannot end early."""
        assert "    /** Say something in the channel. */\n    chat: {\n" in module
        assert "/** What somebody says. */\nexport interface ChatText {" in module
        assert "  /** who says it */\n  user: string;" in module
        assert module.count("*/") == module.count("/**")

    async def test_it_compiles_against_the_client(self, module: str, tmp_path: Path) -> None:
        """Every use that fits is accepted, every other one is an error."""
        compiler = CLIENT / "node_modules" / ".bin" / "tsc"
        assert compiler.exists(), "the client's tools are not installed: scripts/test does that"
        (tmp_path / "schema.ts").write_text(module)
        (tmp_path / "use.ts").write_text(USE.replace("@gateway/client", (CLIENT / "src" / "index").as_posix()))
        options = {"extends": str(CLIENT / "tsconfig.json"), "include": ["*.ts"]}
        (tmp_path / "tsconfig.json").write_text(json.dumps(options))
        assert await output_of([str(compiler), "--noEmit", "--project", str(tmp_path)], deadline=60) == ""


USE = """
import { Client } from "@gateway/client";
import type { CatOutput, ChatSent, Color, Schema, TreeInput } from "./schema";

export async function use(client: Client<Schema>): Promise<void> {
  const lobby = client.channel("lobby");
  const sent: ChatSent = await lobby.request("chat", { text: "hi" });
  const note: string | null | undefined = sent.note;
  lobby.send("chat", { text: "hi", tags: ["a"] });
  client.send("ping");
  const nothing: null = await client.request("ping");
  client.send("limited");
  client.send("limited", 3, { channel: "lobby" });
  client.send("maybe", null);
  const odd: number | undefined = (await client.request("who-is", 5))?.["odd-key"];
  const cat: Required<CatOutput> = await client.request("pet", { kind: "dog", name: "Rex" });
  const tree: TreeInput = { name: "a", children: [{ name: "b", children: [] }, { name: "c" }] };
  const names: string[] = (await client.request("tree", tree)).children.map((child) => child.name);
  const color: Color = await client.request("constants", true);
  client.send("collections", [
    { a: 1 }, { red: true }, { b: ["x", null] }, [1, 2], ["a"], [], [1], { known: 1, more: "x" }, { any: {} },
  ]);
  lobby.on("chat", ({ user, time }) => user + time);
  lobby.on("pong", (count) => count + 1);
  // @ts-expect-error text is a string
  lobby.send("chat", { text: 5 });
  // @ts-expect-error text is required
  lobby.send("chat", {});
  // @ts-expect-error it takes a param
  lobby.send("chat");
  // @ts-expect-error it takes none
  client.send("ping", { a: 1 });
  // @ts-expect-error there is no such command
  client.send("dance");
  // @ts-expect-error there is no such color
  client.send("collections", [{}, { green: true }, {}, [], [], [], [1], { known: 1 }, {}]);
  // @ts-expect-error there is no such message
  lobby.on("dance", () => {});
  void [note, nothing, odd, cat, names, color];
}
"""
