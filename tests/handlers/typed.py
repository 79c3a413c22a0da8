"""A router with one of each kind of type that a schema can have."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from gateway import Router

T = TypeVar("T")
router = Router()


@dataclass
class ChatText:
    """What somebody says."""

    text: str
    tags: list[str] = field(default_factory=list)


class ChatSent(TypedDict):
    """What came of it.

    Ends no comment: */
    """

    id: int
    note: NotRequired[str | None]


@router.event("chat")
class Chat(BaseModel):
    user: str = Field(description="who says it")
    text: str
    time: datetime


router.event("pong", int)
router.event("nothing", None)


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Page(BaseModel, Generic[T]):
    items: list[T]
    next: str | None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    known: int


class string(BaseModel):
    odd_key: int = Field(alias="odd-key")


class Point(NamedTuple):
    x: float
    y: float = 0


@router.command("chat")
async def chat(text: ChatText) -> ChatSent:
    """Say something in the channel."""
    return {"id": len(text.text)}


@router.command("ping")
async def ping() -> None:
    pass


@router.command("untyped")
async def untyped(anything: Any):
    return anything


@router.command("who-is")
async def who_is(user: str | int) -> string | None:
    return None


@router.command("limited")
async def limited(limit: int = 10) -> list[int | str]:
    return [limit]


@router.command("maybe")
async def maybe(text: ChatText | None) -> bool:
    return text is None


@router.command("pet")
async def pet(pet: Annotated[Cat | Dog, Field(discriminator="kind")]) -> Cat:
    return Cat(kind="cat")


@router.command("tree")
async def tree(tree: Tree) -> Tree:
    return tree


@router.command("page")
async def page(numbers: Page[int]) -> Page[string]:
    return Page[string](items=[], next=None)


@router.command("collections")
async def collections(
    all: tuple[
        dict[str, int],
        dict[Color, bool],
        dict[Literal["a", "b"], list[str | None]],
        tuple[int, ...],
        set[str],
        tuple[()],
        Point,
        Open,
        dict[str, Any],
    ],
) -> dict[str, Open]:
    return {}


@router.command("constants")
async def constants(one: Literal["a", 1, True, None]) -> Color:
    return Color.RED
