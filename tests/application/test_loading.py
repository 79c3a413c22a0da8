"""What is said when the handler that a setting names cannot be had."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.application.loading import load_handler
from gateway.errors import InvalidSettings

HANDLER = "from gateway import Handler\nclass Chat(Handler):\n    def __init__(self{more}):\n        {body}\n"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a module that can be imported, to be written by the test."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "written_by_test.py"
    sys.modules.pop("written_by_test", None)


@pytest.mark.parametrize(
    ("source", "said", "line"),
    [
        ("import os\nx = os.nothing\n", "AttributeError: module 'os' has no attribute 'nothing'", 2),
        ("\n\nimport not_installed_anywhere\n", "ModuleNotFoundError: No module named 'not_installed_anywhere'", 3),
        ("from os import nothing\n", "ImportError: cannot import name 'nothing'", 1),
        ("import json\njson.loads('{')\n", "JSONDecodeError", 2),
        ("x = 1\ndef broken(:\n", "SyntaxError: ", 2),
        ("raise ValueError('first line\\nsecond')\n", "ValueError: first line", 1),
        ("int('a', b=2)\n", "TypeError", 1),
        ("import sys\nsys.exit('no database')\n", "SystemExit: no database", 2),
        (HANDLER.format(more="", body="1 / 0"), "ZeroDivisionError", 4),
        (HANDLER.format(more="", body="int(None)"), "TypeError", 4),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_error_in_the_module_has_file_and_line(module: Path, source: str, said: str, line: int) -> None:
    """Those of the application, in one line, also where a library raised it."""
    module.write_text(source)
    with pytest.raises(InvalidSettings) as error:
        load_handler("written_by_test:Chat")
    text = str(error.value)
    assert text.startswith("handler: written_by_test")
    assert said in text
    assert text.endswith(f"({module}, line {line})")
    assert "\n" not in text


@pytest.mark.parametrize(
    "name", ["nonsense", ":x", "x:", "::", "no.such.module:X", "os.path.none:x", ".relative:x", "a b:x", "os:nothing"]
)
def test_a_name_that_is_none_is_said_to_be_one(name: str) -> None:
    """With the form that is expected."""
    with pytest.raises(InvalidSettings, match="expected module:Class or module:router") as error:
        load_handler(name)
    assert name in str(error.value)


def test_a_class_that_wants_arguments_is_told(module: Path) -> None:
    """It is called without any."""
    module.write_text(HANDLER.format(more=", database", body="pass"))
    with pytest.raises(InvalidSettings, match="called without arguments"):
        load_handler("written_by_test:Chat")
