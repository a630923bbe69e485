"""Every kind of bad input: each is named with its field or flag and the fix, no other row is harmed, and
docs/bad_input.md has the messages.

All are sent once; then a test for each promise looks at what became of them. The inputs are in `bad_inputs`.
"""

from __future__ import annotations

import io
import os
import re

import numpy as np
import pytest
from PIL import Image

from tests.scenarios.bad_inputs import edits, page
from tests.scenarios.bad_inputs.case import Row
from tests.scenarios.bad_inputs.told import everything, workshop

pytest.importorskip("openai")
pytest.importorskip("google.genai")
pytestmark = pytest.mark.slow

FIX = re.compile(
    r"\b(such as|supported|use|give|set|write|check|save|rename|must|one of|choose|from \d+ to|at least|most|nearest|"
    r"fix|leave|shorten|flatten|download|crop|scale|keep|supports?|only|make|name|see|load|is for|needs|open|move|"
    r"repainted|treated|twice|above 0|does not apply|there is|restore|another|add|is not in)\b",
    re.IGNORECASE,
)
"""Words that say what to do, or what is possible."""
USAGE = ("Invalid value for", "No such", "Got unexpected", "Option ", "Missing argument")
"""How messages about the form of a command begin; they are the library's own."""
NOT_ENGLISH = re.compile(r"Traceback|<class 'fastgen|NoneType|\[Errno|object at 0x|codec can't|has no attribute")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with workshop(tmp_path_factory.mktemp("bad")) as folder:
        yield folder


@pytest.fixture(scope="module")
def rooms(folder):
    return {room.title: room for room in everything(folder)}


@pytest.fixture(scope="module")
def each(rooms):
    return [(room, case, told) for room in rooms.values() for case, told in zip(room.cases, room.told, strict=True)]


@pytest.fixture(scope="module")
def rows(rooms):
    """(case, its row in the table, the good row before it), of all runs."""
    runs = [room for room in rooms.values() if room.rows]
    return [
        (case, room.rows[2 * number + 1], room.rows[2 * number])
        for room in runs
        for number, case in enumerate(room.cases)
    ]


def test_there_are_enough_kinds(each):
    kinds = {(room.title, case.kind) for room, case, _ in each}
    assert len(kinds) == len(each) >= 500


def test_the_message_is_the_expected_one_and_names_the_flag(each):
    wrong = [
        (told.kind, told.message)
        for _, case, told in each
        if case.words not in told.message or getattr(case, "names", "") not in told.message
    ]
    assert wrong == []


def test_commands_end_with_the_expected_exit_code(each):
    assert [told for _, case, told in each if hasattr(case, "code") and told.code != case.code] == []


def test_the_message_names_row_and_field(rooms):
    wrong = []
    for room in rooms.values():
        for number, case in enumerate(room.cases):
            if not isinstance(case, Row) or case.done:
                continue
            about = room.rows[2 * number + 1]["fastgen"]
            error = about.get("error", {})
            place = f"row {2 * number + 2}" + (f", field {case.field}: " if case.field else ": ")
            named = error.get("message", "").startswith(place) or room.title == "Answers of a gateway"
            found = (about["status"], error.get("kind"), error.get("field", ""), named)
            if found != ("failed", case.failure, case.field, True):
                wrong.append((case.kind, found, error.get("message")))
    assert wrong == []


def test_rows_with_a_warning_are_done(rows):
    assert [case.kind for case, row, _ in rows if case.done and row["fastgen"]["status"] != "done"] == []


def test_the_message_says_what_to_do_in_plain_words(rooms, each):
    wrong = [
        (told.kind, told.message)
        for room, _, told in each
        if not told.message.isprintable()  # nothing that a terminal would obey
        or NOT_ENGLISH.search(told.message)
        or not (
            FIX.search(told.message)
            or told.message.startswith(USAGE)
            or told.where.startswith("warning")
            or room.title == "Answers of a gateway"
        )
    ]
    assert wrong == []


def test_of_a_value_at_most_200_characters_are_quoted(each):
    assert [told.kind for _, _, told in each if re.search(r"(.)\1{200}", told.message)] == []
    assert [told.kind for _, case, told in each if isinstance(case, Row) and len(told.message) >= 700] == []


def test_the_other_rows_are_done(rows):
    assert [case.kind for case, _, good in rows if good["fastgen"]["status"] != "done"] == []
    assert not any(
        {"images", "edited_images", "caption"} & row.keys() - case.row.keys()
        for case, row, _ in rows
        if not case.done and isinstance(case.row, dict)
    )


def test_the_other_rows_of_the_engine_are_alike(rooms):
    room = rooms["Rows of edits"]
    good = room.rows[::2]
    assert all(row["prompt"] == edits.GOOD["prompt"] for row in good)
    assert len({path for row in good for path in row["edited_images"]}) == len(room.cases)
    for row in good[:3]:
        image = Image.open(io.BytesIO((room.out / row["edited_images"][0]).read_bytes()))
        assert np.asarray(image).shape == (128, 128, 3)


def test_nothing_is_flooded_and_nothing_lies_elsewhere(folder, rooms):
    room = rooms["Rows of edits"]
    out = folder / room.out
    assert "Traceback" not in room.output and len(room.output) < 100_000
    assert (out / "journal.jsonl").stat().st_size < 300_000
    assert sum(path.stat().st_size for path in (out / "logs").iterdir()) < 100_000
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"images", "logs"}
    assert not [path for path in folder.iterdir() if "passwd" in path.name]


def test_a_refused_command_leaves_no_results(folder, rooms):
    assert not [name for name in ("results.jsonl", "failures.jsonl") if (folder / "new" / name).exists()]


def test_the_page_is_what_the_code_says(folder, rooms):
    said, written = page.text(rooms.values(), folder).splitlines(), page.PATH.read_text("utf-8").splitlines()
    changed = [f"- {old}" for old in written if old not in said] + [f"+ {new}" for new in said if new not in written]
    assert not changed, "\n".join(
        [f"docs/bad_input.md is not what the code says; {page.COMMAND} writes it anew:", *changed]
    )
    assert said == written


def test_names_of_files_that_are_no_text(tmp_path):
    """A folder of pictures with such a name: the others are captioned."""
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "pictures" / "good.png")
    os.link(tmp_path / "pictures" / "good.png", os.fsencode(tmp_path / "pictures") + b"/bad\xff.png")
    from fastgen.api import generate
    from fastgen.resolver import resolve

    settings = resolve("caption", tmp_path / "pictures", out=tmp_path / "out", backend="fake", gpus="cpu")
    found = {type(result).__name__: result for result in generate(settings)}
    assert found["Done"].text == "1 pictures"
    assert "bad\\udcff.png is not UTF-8; rename the file" in found["Failed"].message
