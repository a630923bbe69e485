"""Names of image files: a person can tell which row they belong to, and no two rows share one."""

from __future__ import annotations

import pytest

from fastgen.errors import SettingsError
from fastgen.output.names import Layout, check_pattern, stem
from fastgen.types import ImageParams

NEW, OLD, MANY = Layout(numbered=True), Layout(), Layout(numbered=True, folders=True)
HASH = "7ed99346d09a2ebd"


PARAMS = ImageParams(64, 48, 4, 3.5, 7, 1)


def name_of(id=HASH, row=123, fields=None, pattern="", layout=NEW) -> str:
    return stem(id, not id.startswith(HASH), row, PARAMS, fields or {}, pattern, layout)


@pytest.mark.parametrize(
    ("id", "pattern", "layout", "name"),
    [
        (HASH, "", NEW, "row-000123"),
        (f"{HASH}#2", "", NEW, "row-000123"),
        (HASH, "", OLD, ""),
        ("boat", "", NEW, ""),
        (HASH, "", MANY, "00000/row-000123"),
        ("boat", "", MANY, "00000/boat"),
        ("boat", "{id}", NEW, ""),
        ("boat", "{kind}-{id}", NEW, "sea_side-boat"),
        (HASH, "{id}_{width}x{height}_{seed}", NEW, "row-000123_64x48_7"),
        ("boat", "{row}-{none}", OLD, "000123-none"),
    ],
)
def test_names(id, pattern, layout, name):
    assert name_of(id, 123, {"kind": "sea/side"}, check_pattern(f"{pattern}_{{n}}"), layout) == name


def test_a_row_whose_own_id_looks_like_a_number_has_another_name():
    assert name_of("row-000123").startswith("row-000123-")
    assert name_of(row=10_001, layout=MANY) == "00001/row-010001"


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("{n}_{id}", "at the end"), ("{kind}_{n}", "{id} or {row}"), ("{id", "write it as"), ("a/{id}_{n}", "has only")],
)
def test_patterns_that_cannot_be(pattern, words):
    with pytest.raises(SettingsError, match=f"--name .*{words}"):
        check_pattern(pattern)
