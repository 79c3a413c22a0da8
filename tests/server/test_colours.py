"""Colours are named in one file, which every page reads before its own style sheet."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "gateway"
TOKENS = PACKAGE / "server" / "static" / "gateway.tokens.css"
SHEETS = sorted(set(PACKAGE.glob("server/**/static/*.css")) - {TOKENS})
PAGES = [page for page in sorted(PACKAGE.glob("server/**/templates/*.html")) if 'rel="stylesheet"' in page.read_text()]

_DEFINED = re.compile(r"^ *(--[\w-]+):", re.MULTILINE)
_USED = re.compile(r"var\((--[\w-]+)\)")
_HEX = re.compile(r"#[0-9a-fA-F]{3,8}\b(?=[^{}]*;)")

every_sheet = pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.name)


@every_sheet
def test_a_colour_has_a_name(sheet: Path) -> None:
    """Shadows and curtains aside, no style sheet but that of the names says one; nor the dark ones a second time."""
    text = sheet.read_text()
    assert _HEX.findall(text) == []
    assert "prefers-color-scheme" not in text


@every_sheet
def test_each_name_that_is_used_is_defined(sheet: Path) -> None:
    """There or here; one that is not would be no colour at all, without a word."""
    text = sheet.read_text()
    assert set(_USED.findall(text)) <= {*_DEFINED.findall(TOKENS.read_text()), *_DEFINED.findall(text)}


def test_each_name_is_used() -> None:
    """By a style sheet, or by a script that draws."""
    sheets = "".join(sheet.read_text() for sheet in [*SHEETS, TOKENS])
    drawn = (PACKAGE / "server" / "admin" / "static" / "charts.js").read_text()
    unused = {name for name in _DEFINED.findall(TOKENS.read_text()) if name not in _USED.findall(sheets)}
    assert {name for name in unused if f'"{name}"' not in drawn} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_reads_the_names_first(page: Path) -> None:
    sheets = re.findall(r'rel="stylesheet" href="([^"?]+)', page.read_text())
    own = [sheet for sheet in sheets if "uplot" not in sheet]
    assert [sheet.rpartition("/")[2] for sheet in own[:1]] == [TOKENS.name]
    assert len(own) == 2
