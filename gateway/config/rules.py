"""Rules: what holds for the channels whose name matches a pattern."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic_settings import NoDecode

from gateway.protocol.message import PATTERN_RULE, fits, is_pattern

CHANNELS_REMEMBERED = 65_536
"""Channels whose rule is not looked for again; past that the least recently used one is."""

Who = Literal["anyone", "users", "token", "handler", "nobody"]
WHO = "anyone, users (identified ones), token (whose token names it), handler (whom its authorize allows), nobody"


class Rule(BaseModel):
    """What holds for the channels whose name matches. Of `Settings.channels` the first rule that matches counts.

    Where none does, the defaults below hold. Sizes are in bytes, times in seconds. Never changes once made; a wrong
    value raises pydantic's `ValidationError`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    match: str = Field(description=PATTERN_RULE)
    history: int = Field(default=0, ge=0, description="messages kept; 0 keeps none")
    history_bytes: int = Field(
        default=8 << 20, ge=0, description="bytes of messages kept at most, the newest ones; 0 is no limit"
    )
    ttl: int = Field(default=86_400, ge=0, description="seconds after the last message for which they are kept")
    presence: bool = Field(default=True, description="whether members may ask, and are told, who is there")
    join: Who = Field(default="anyone", description=f"which clients may join: {WHO}")
    send: Who = Field(default="anyone", description=f"which clients may send to it: {WHO}")
    slow: Literal["disconnect", "drop-oldest", "keep-latest"] = Field(
        default="disconnect", description="what happens to who reads too slowly: closed with 4008, or spared messages"
    )
    slow_key: str = Field(default="", description="field of param that, with cmd, says what keep-latest keeps")

    @field_validator("match")
    @classmethod
    def _legal_pattern(cls, pattern: str) -> str:
        if not is_pattern(pattern):
            raise ValueError(f"expected a {PATTERN_RULE}")
        return pattern

    def matches(self, channel: str) -> bool:
        """Tell whether this rule is about a channel."""
        return fits(self.match, channel)


def _tables(value: object) -> object:
    """Read rules as people write them in one string: JSON."""
    tables = parsed(value) if isinstance(value, str) and value.strip() else value or ()
    if not isinstance(tables, list | tuple) or not all(isinstance(table, dict | Rule) for table in tables):
        raise ValueError(
            'expected a list of rules, such as [{"match": "lobby-*", "history": 100}], in TOML [[channels]]'
        )
    return tables


DEFAULT_RULE = Rule(match="*")
Rules = Annotated[tuple[Rule, ...], NoDecode, BeforeValidator(_tables)]


def first_match(rules: Sequence[Rule]) -> Callable[[str], Rule]:
    """Return what finds the rule of a channel."""

    def first(channel: str) -> Rule:
        return next((rule for rule in rules if rule.matches(channel)), DEFAULT_RULE)

    return lru_cache(CHANNELS_REMEMBERED)(first)


def parsed(text: str) -> object:
    """Read JSON; raise `ValueError` in words for whoever wrote it."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"expected JSON: {error}") from None
