"""What JSON can say and Python cannot, and the other way round."""

from __future__ import annotations

import datetime
import json
import math
import random
import time
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel, field_serializer

from gateway.errors import BadMessage, InvalidEnvelope, InvalidParam
from gateway.protocol import codec
from gateway.protocol.envelope import unpack
from gateway.protocol.json_values import MOST_SEARCHED, check_integers, id_in, parse

LARGEST, SMALLEST = 2**64 - 1, -(2**63)


@dataclass
class Article:
    price: object


@dataclass(slots=True)
class Slotted:
    price: object
    _hidden: float = math.nan
    """Which orjson leaves out."""


class Late(Article):
    def __init__(self) -> None:
        super().__init__(None)
        self.later = math.nan
        """No field, but orjson writes it."""


class Limit(Enum):
    NONE = math.inf


class Offer(BaseModel):
    price: float


class Rounded(Offer):
    @field_serializer("price")
    def _whole(self, price: float) -> int | None:
        return round(price) if math.isfinite(price) else None


def nested(levels: int, *innermost: object) -> list[Any]:
    value: list[Any] = [*innermost]
    for _ in range(levels):
        value = [value]
    return value


class TestHalvesOfCharacters:
    @pytest.mark.parametrize(
        ("written", "read"),
        [
            (r"ok \ud83d", "ok \ufffd"),
            (r"\ude00 ok", "\ufffd ok"),
            (r"\uD83D\uDE00", "\U0001f600"),
            (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
            (r"\ude00\ud83d", "\ufffd\ufffd"),
            (r"\\ud83d", r"\ud83d"),
            (r"\\\ud83d", "\\\ufffd"),
            (r"\\\\ud83d \udc00", "\\\\ud83d \ufffd"),
            (r"\ud83d\n\u0041", "\ufffd\nA"),
            (r"\ud83dx", "\ufffdx"),
        ],
    )
    def test_they_are_read_as_one_that_says_so(self, written: str, read: str) -> None:
        """What stands around them is untouched, in values as in keys."""
        text = f'{{"{written}": ["{written}"]}}'.encode()
        assert parse(text) == {read: [read]}

    def test_any_text_is_read_as_a_browser_would_send_it(self) -> None:
        """Python's JSON writes the halves as they are; only they differ afterwards."""
        lot = random.Random(7)
        alphabet = ["\ud83d", "\ude00", "\U0001f600", "\\", '"', "u", "d83d", "\n", "\x00", "ä", "a"]
        for _ in range(500):
            value = {"".join(lot.choices(alphabet, k=4)): ["".join(lot.choices(alphabet, k=lot.randrange(12)))]}
            whole = json.loads(json.dumps(value))
            expected = {
                key.encode("utf-16", "surrogatepass").decode("utf-16", "replace"): [
                    text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts
                ]
                for key, texts in whole.items()
            }
            assert parse(json.dumps(value).encode()) == expected

    def test_a_message_with_one_keeps_its_id(self) -> None:
        """So that its request is answered."""
        message = codec.decode(rb'{"cmd": "chat", "id": "a1", "param": {"text": "ok \ud83d"}}')
        assert (message.id, message.param) == ("a1", {"text": "ok \ufffd"})


class TestIntegers:
    @pytest.mark.parametrize(
        "text",
        [
            f"{LARGEST}",
            f"{SMALLEST}",
            f'"{LARGEST + 1}"',
            f'["\\"{LARGEST + 1}", {{"{LARGEST + 1}": 1}}]',
            "0.12345678901234567890123",
            "12345678901234567890123.5",
            "12345678901234567890123e5",
            "1e30",
            "[" + ", ".join(["1234567890123456789"] * 3) + "]",
        ],
    )
    def test_what_can_be_written_again_passes(self, text: str) -> None:
        """Floats and strings are what they are, however many digits they have."""
        check_integers(text.encode())

    @pytest.mark.parametrize("value", [LARGEST + 1, SMALLEST - 1, 10**30, -(10**30), 10**200])
    @pytest.mark.parametrize("shape", ["{}", '[1, "x", {}]', '{{"a": {{"b": {}}}}}', '"\\\\", {}'])
    def test_what_would_be_rounded_is_refused(self, value: int, shape: str) -> None:
        """Wherever it stands, and in whichever message: a client's, a person's."""
        text = shape.format(value)
        text = f"[{text}]"
        with pytest.raises(ValueError, match="64 bits"):
            check_integers(text.encode())
        with pytest.raises(BadMessage, match="64 bits") as refused:
            codec.decode(f'{{"cmd": "x", "id": 5, "param": {text}}}'.encode())
        assert refused.value.fields == {"id": 5}
        with pytest.raises(InvalidEnvelope, match="64 bits"):
            unpack(f'{{"cmd": "x", "param": {text}}}'.encode())


class TestIds:
    @pytest.mark.parametrize(
        "text",
        [
            '{"param": {"id": 1}, "x": 1e999}',
            '[{"id": 1}, 1e999]',
            '{"cmd": "id", "x": 1e999}',
            '{"x": "\\"id\\": 1", "y": 1e999}',
            '{"id": [1], "x": 1e999}',
            '{"id": 1.5, "x": 1e999}',
            '{"id": true, "x": 1e999}',
            '{"id": 18446744073709551616, "x": 1e999}',
            '{"id": 01, "x": 1e999}',
            '{"id": 1',
            '{"id": "a\x01", "x": 1e999}',
            '{"id": "a',
        ],
    )
    def test_what_is_no_id_of_a_request_is_none(self, text: str) -> None:
        """An id within the param, a value called so, what may be none."""
        assert id_in(text.encode()) is None

    def test_any_id_is_found_wherever_it_stands(self) -> None:
        """As whoever can read the whole would find it."""
        lot = random.Random(11)
        pieces = ["id", '"id":1', "\\", '"', "{", "}", "[", "]", ":", ",", "ä", "\U0001f600", " "]
        for _ in range(500):
            values = ["".join(lot.choices(pieces, k=lot.randrange(6))) for _ in range(6)]
            inner = {"id": values[3], values[4]: [{"id": 1}, values[5]]}
            fields = [("id", values[0]), (values[1] + "-", inner), ("x", math.inf), ("y", [values[2], inner])]
            lot.shuffle(fields)
            text = json.dumps(dict(fields), ensure_ascii=lot.random() < 0.5).replace("Infinity", "1e999")
            assert id_in(text.encode()) == values[0]

    def test_a_text_made_for_it_is_searched_quickly(self) -> None:
        """So that a client which sends nothing else, as fast as it may, keeps no node from its other ones."""
        for piece in (b'"', b'""', b'\\"', b'"id":"', b"[", b"[]", b'"id": ', b'{"id":"', b"\\", b'"id":1,', b'" '):
            text = (b'{"id"' + piece * MOST_SEARCHED)[:MOST_SEARCHED]
            took = []
            for _ in range(5):
                began = time.process_time()
                id_in(text)
                took.append(time.process_time() - began)
            assert min(took) < 0.005, piece

    def test_an_id_before_thousands_of_other_values_is_found(self) -> None:
        many = ",".join(10_000 * ["[]"])
        assert id_in(f'{{"id": 7, "param": [{many}, 1e999]}}'.encode()) == 7


class TestUnsayable:
    @pytest.mark.parametrize(
        ("param", "said"),
        [
            (Decimal("1.50"), "param is of type Decimal: str()"),
            ({"items": [1, {"price": Decimal(2)}]}, "param.items[1].price is of type Decimal"),
            ([Article(b"x")], "param[0].price is of type bytes: write base64"),
            ({"since": datetime.timedelta(1)}, "param.since is of type timedelta: write its total_seconds()"),
            (datetime.time(1, tzinfo=datetime.UTC), "param is of type time: write its isoformat()"),
            ({"who": {1, 2}}, "param.who is of type set: write list()"),
            ({"a": {1: 2}}, "param.a has the key 1: expected a string"),
            ({"a\ud83d": 2}, "param has the key 'a\\ud83d'"),
            ({"n": [2**64]}, "param.n[0] is of type int: beyond 64 bits"),
            ({"t": "\ud83d"}, "param.t is of type str: half a character"),
            (object(), "param is of type object: expected dict, list"),
            (nested(400), "is nested deeper than 254 levels"),
            (math.nan, "param is nan: JSON has no such number, write None"),
            ({"null": None, "rate": [1.5, math.inf]}, "param.rate[1] is inf"),
            ([Article(-math.inf)], "param[0].price is -inf"),
            ([Slotted(math.nan)], "param[0].price is nan"),
            ({"limit": Limit.NONE}, "param.limit is inf"),
            ([Offer(price=math.nan)], "param[0].price is nan"),
            ((1, {"deep": nested(200, math.nan)}), "[0][0] is nan: JSON has no"),
            (Late(), "param.later is nan"),
            ({"text": "x" * 5000, "rate": math.nan}, "param.rate is nan"),
            (["x" * 5000, math.nan], "param[1] is nan"),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    def test_it_is_said_what_where_and_what_to_do(self, param: object, said: str) -> None:
        """By the error of whoever writes it."""
        with pytest.raises(InvalidParam) as refused:
            codec.encode("x", param)
        assert said in refused.value.message

    @pytest.mark.parametrize(
        "param",
        [
            None,
            [None, {"null": None}],
            {"text": "null, nan, Infinity", "looks like NaN in msgpack": 0xCB7FF8, "nothing": None},
            [Slotted(None), Slotted(1.5)],
            [Rounded(price=math.nan), Rounded(price=1.4)],
            [1.7976931348623157e308, -1e308, 5e-324, 0.0, None],
            nested(200, None),
        ],
    )
    def test_a_null_that_is_meant_is_written(self, param: object) -> None:
        """One that stands for None, and the word in a text."""
        written = codec.encode("x", param)
        assert b"null" in written
        assert codec.encode_reply(1, param) == written[:-1].replace(b'"x"', b'"$reply","id":1') + b"}"

    def test_no_number_ever_becomes_null(self) -> None:
        """Wherever it stands, whatever is around it, in messages, answers and errors."""
        lot = random.Random(3)
        for _ in range(300):
            param: Any = lot.choice([math.nan, math.inf, -math.inf])
            for _ in range(lot.randrange(6)):
                around = [None, 1.5, "null", {"a": None}, True]
                param = lot.choice([[*around, param], {"a": around, "b": param}, (param,), Article(param)])
            for write in (partial(codec.encode, "x"), partial(codec.encode_reply, 1)):
                with pytest.raises(InvalidParam, match="JSON has no such number"):
                    write(param)
            with pytest.raises(InvalidParam, match="JSON has no such number"):
                codec.encode_error("rate-limited", "too fast", field=param)

    def test_what_can_be_said_is_written(self) -> None:
        """Dates among it."""
        day = datetime.date(2026, 11, 28)
        assert json.loads(codec.encode("x", [day, Article(1.5), None]))["param"] == ["2026-11-28", {"price": 1.5}, None]
