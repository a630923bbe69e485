"""A user's row becomes a request, or a failure that names the field; its identity is what it says, not where it
stands."""

from __future__ import annotations

import json
import math
from collections import defaultdict

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from fastgen.config.checks import MAX_SEED
from fastgen.input.readers.rows import Row
from fastgen.input.requests import Intake, Prefilled, filled, row_seed
from fastgen.input.row_schema import read_dialogue
from fastgen.resolver import resolve
from fastgen.types import Failed, Request

T2I = resolve("t2i", backend="fake", gpus="cpu", size="96x64", steps=5, guidance=1.5, n=2, seed=3)


def take(settings, *rows):
    """What intake makes of these rows, read in order."""
    intake = Intake(settings)
    items = []
    for number, fields in enumerate(rows, 1):
        row = Row(number, fields if isinstance(fields, bytes) else json.dumps(fields).encode())
        items.append(intake.read(row, intake.identify(row)))
    return items


def ids(settings, rows) -> list[str]:
    intake = Intake(settings)
    return [intake.identify(Row(i, json.dumps(fields).encode())).id for i, fields in enumerate(rows)]


def test_defaults_come_from_the_settings():
    [request] = take(T2I, {"prompt": " a fox "})
    params = request.params
    assert isinstance(request, Request) and request.prompts == (" a fox ",) and request.render == (96, 64)
    assert (params.width, params.height, params.steps, params.guidance, params.n) == (96, 64, 5, 1.5, 2)
    assert params.seed == row_seed(3, request.id) and 0 <= params.seed <= MAX_SEED


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 128, "height": 64, "steps": 7, "guidance": 0, "seed": 2**53 - 1, "n": 3},
        {"size": "128x64", "steps": 7.0, "guidance": 0.0, "seed": 2**53 - 1, "n": 3},
        {"size": "128 × 64", "steps": 7, "guidance": 0.0, "seed": 2**53 - 1, "n": 3},
        {"size": [128, 64], "width": 128, "height": 64, "steps": 7, "guidance": 0, "seed": 2**53 - 1, "n": 3},
    ],
)
def test_a_row_may_say_everything(fields):
    [request] = take(T2I, {"prompt": "a", **fields})
    params = request.params
    assert (params.width, params.height, params.steps, params.guidance) == (128, 64, 7, 0.0)
    assert (params.seed, params.n) == (2**53 - 1, 3)


@pytest.mark.parametrize(
    ("fields", "prompts"),
    [
        (
            {
                "conversations": [
                    {"role": "system", "content": "no"},
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "no"},
                    {"role": "User", "content": "b"},
                ]
            },
            ("a", "b"),
        ),
        ({"conversation": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "no"}]}, ("a",)),
        ({"conversations": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}]}, ("a",)),
        ({"prompt": "p", "conversations": [{"role": "user", "content": "a"}]}, ("p",)),
        ({"prompt": None, "conversation": [{"from": "user", "value": "a"}]}, ("a",)),
        ({"prompt": "一杯茶 🍵"}, ("一杯茶 🍵",)),
    ],
)
def test_prompts(fields, prompts):
    [request] = take(T2I, {**fields, "images": [""]})
    assert request.prompts == prompts and request.samples == 2 * len(prompts)


BAD = [
    (b'{"prompt": "a"', "", "column"),
    (b"[1]", "", "a row is a JSON object"),
    (b'{"prompt": "\xff"}', "", "UTF-8"),
    ({}, "prompt", "no prompt"),
    ({"prompt": 7}, "prompt", "must be a string, not 7"),
    ({"prompt": ["a"]}, "prompt", "must be a string, not a list"),
    ({"prompt": "  "}, "prompt", "no text"),
    ({"prompt": "x" * 200_000}, "prompt", "200,000 characters"),
    (rb'{"prompt": "\ud83d"}', "prompt", "half of a character"),
    ({"conversations": "a"}, "conversations", "list of turns"),
    ({"conversations": [{"role": 1, "content": "a"}]}, "conversations", "role"),
    ({"conversations": [{"role": "user", "content": 5}]}, "conversations", "must be a string"),
    ({"conversations": [{"role": "assistant", "content": "a"}]}, "conversations", "no text"),
    ({"conversation": [{"from": "human", "value": "a"}] * 65}, "conversation", "65 user turns"),
    ({"prompt": "a", "width": math.nan, "height": 64}, "width", "nan"),
    ({"prompt": "a", "width": math.inf, "height": 64}, "width", "inf"),
    ({"prompt": "a", "width": -64, "height": 64}, "width", "-64 is out of range"),
    ({"prompt": "a", "width": "64", "height": 64}, "width", "whole number"),
    ({"prompt": "a", "width": True, "height": 64}, "width", "true or false"),
    ({"prompt": "a", "width": 64.5, "height": 64}, "width", "whole number"),
    ({"prompt": "a", "width": 64}, "height", "must be given together"),
    ({"prompt": "a", "height": 64}, "width", "must be given together"),
    ({"prompt": "a", "width": 100, "height": 64}, "width", "nearest size is 96x64"),
    ({"prompt": "a", "width": 10**7, "height": 10**7}, "width", "megapixels"),
    ({"prompt": "a", "size": "8x8"}, "size", "at least 16"),
    ({"prompt": "a", "size": "100x64"}, "size", "nearest size is 96x64"),
    ({"prompt": "a", "size": "16000x16"}, "size", "8192 pixels per side"),
    ({"prompt": "a", "size": "large"}, "size", "1024x768"),
    ({"prompt": "a", "size": "²x64"}, "size", "1024x768"),
    ({"prompt": "a", "size": 64}, "size", "1024x768"),
    ({"prompt": "a", "size": "64x64", "width": 96}, "size", "contradicts"),
    ({"prompt": "a", "steps": 0}, "steps", "from 1 to 1000"),
    ({"prompt": "a", "steps": "many"}, "steps", "whole number"),
    ({"prompt": "a", "steps": 10**400}, "steps", "out of range"),
    ({"prompt": "a", "n": 10**9}, "n", "out of range"),
    ({"prompt": "a", "seed": -1}, "seed", "out of range"),
    ({"prompt": "a", "seed": 2**53}, "seed", "out of range"),
    ({"prompt": "a", "guidance": math.nan}, "guidance", "nan"),
    ({"prompt": "a", "guidance": -1}, "guidance", "from 0 to 100"),
    ({"prompt": "a", "guidance": "3"}, "guidance", "must be a number"),
    ({"prompt": "a", "guidance": 10**400}, "guidance", "out of range"),
    ({"prompt": "a", "id": 1.5}, "id", "string or a whole number"),
    ({"prompt": "a", "id": ""}, "id", "1 to 512"),
    ({"prompt": "a", "id": "x" * 513}, "id", "1 to 512"),
    ({"prompt": "a", "id": ["a"]}, "id", "string or a whole number"),
]


@pytest.mark.parametrize(("row", "field", "words"), BAD, ids=range(len(BAD)))
def test_bad_rows_say_row_field_and_mend(row, field, words):
    good, failed, more = take(T2I, {"prompt": "before"}, row, {"prompt": "after"})
    assert isinstance(good, Request) and isinstance(more, Request)
    assert isinstance(failed, Failed) and (failed.kind, failed.field) == ("input", field)
    assert failed.message.startswith(f"row 2, field {field}: " if field else "row 2: ") and words in failed.message
    assert len(failed.message) < 1000, "nobody reads so long a message"


def test_filled_rows_are_kept():
    items = take(T2I, {"prompt": "a", "images": ["x.png"]}, {"prompt": "a", "images": [""]}, {"images": "x.png"})
    assert [type(item) for item in items] == [Prefilled, Request, Prefilled]
    assert [filled(v) for v in ([""], [], "", " ", None, [None], [[]])] == [False] * 7
    assert [filled(v) for v in (["a"], "a", {"a": 1}, 0)] == [True] * 4


# Identity


def test_own_ids_and_numbers():
    rows = [{"prompt": "a", "id": "fox"}, {"prompt": "b", "id": 2**64 + 1}, {"prompt": "c"}]
    one, two, three = ids(T2I, rows)
    assert (one, two) == ("fox", str(2**64 + 1))
    assert three == ids(T2I, [{"prompt": "c", "images": [""]}])[0], "a placeholder says nothing"
    assert three != ids(T2I, [{"prompt": "c", "note": 1}])[0]


def test_the_same_id_with_other_content_is_bad():
    first, clash, again = take(
        T2I, {"prompt": "a", "id": "x"}, {"prompt": "b", "id": "x"}, {"id": "x", "prompt": "a", "images": []}
    )
    assert isinstance(first, Request) and isinstance(again, Request) and again.id != first.id
    assert isinstance(clash, Failed) and clash.field == "id" and "earlier row" in clash.message


def test_a_result_row_keeps_its_identity_when_fed_back():
    plain = {"prompt": "a", "n": 1}
    [request] = take(T2I, plain)
    fed_back = {**plain, "fastgen": {"id": request.id, "status": "failed"}}
    [again] = take(T2I, fed_back)
    assert (again.id, again.params.seed) == (request.id, request.params.seed)


words = st.sampled_from(["a", "b"])
rows_with_ids = st.fixed_dictionaries(
    {"prompt": words}, optional={"id": st.sampled_from(["x", "y", "x#2", "x#3", "x!", 1, "1"]), "n": st.just(1)}
)


@given(st.lists(rows_with_ids, max_size=8))
@example([{"prompt": "a", "id": "x"}, {"prompt": "a", "id": "x"}, {"prompt": "b", "id": "x#2"}])
@example([{"prompt": "b", "id": "x#2"}, {"prompt": "a", "id": "x"}, {"prompt": "a", "id": "x"}])
def test_no_two_requests_share_an_id(rows):
    items = [item for item in take(T2I, *rows) if isinstance(item, Request)]
    assert len({item.id for item in items}) == len(items)


@given(
    st.lists(st.fixed_dictionaries({"prompt": words}, optional={"n": st.just(1)}), max_size=8).flatmap(
        lambda rows: st.tuples(st.just(rows), st.permutations(rows))
    )
)
def test_position_does_not_matter(pair):
    def by_content(rows):
        found = defaultdict(set)
        for fields, id in zip(rows, ids(T2I, rows), strict=True):
            found[json.dumps(fields, sort_keys=True)].add(id)
        return found

    assert by_content(pair[0]) == by_content(pair[1])


# Edits


@pytest.fixture
def edit(tmp_path):
    Image.new("RGB", (300, 150)).save(tmp_path / "wide.png")
    Image.new("RGB", (150, 300)).save(tmp_path / "tall.png")
    Image.new("L", (300, 150), 255).save(tmp_path / "mask.png")
    return resolve("edit", backend="fake", gpus="cpu", image_root=tmp_path)


def test_an_edit_takes_the_shape_of_its_picture(edit):
    wide, tall, sized, masked = take(
        edit,
        {"prompt": "a", "image": "wide.png"},
        {"prompt": "a", "images": ["tall.png"]},
        {"prompt": "a", "image": "wide.png", "size": "64x64"},
        {"prompt": "a", "image": "wide.png", "mask": "mask.png"},
    )
    assert wide.render == (96, 48) == wide.reference and wide.images == (f"{edit.rows.image_root}/wide.png",)
    assert tall.render == (48, 96)
    assert sized.render == (64, 64) and (sized.params.width, sized.params.height) == (64, 64)
    assert sized.reference == (96, 48), "the reference keeps its own shape"
    assert (masked.params.width, masked.params.height) == (300, 150) and masked.render == (96, 48)


def test_references_are_one_edit_and_turns_are_steps(edit):
    turns = [{"role": "user", "content": t} for t in "ab"]
    [request] = take(edit, {"conversations": turns, "images": ["wide.png", "tall.png"], "n": 3})
    assert len(request.images) == 2 and request.prompts == ("a", "b") and request.samples == 3
    assert request.reference[0] / request.reference[1] == pytest.approx((300 + 75) / 150, rel=0.2)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({}, "images", "no image to edit"),
        ({"images": []}, "images", "no image to edit"),
        ({"foto": "wide.png"}, "images", "`foto`, and --image-key says which one to use"),
        ({"images": [""]}, "images", "empty|no picture"),
        ({"image": "none.png"}, "image", "no such file"),
        ({"images": ["wide.png", "none.png"]}, "images", "no such file"),
        ({"image": "."}, "image", "folder"),
        ({"image": "../wide.png"}, "image", "leads out"),
        ({"image": 5}, "image", "string"),
        ({"images": {"a": 1}}, "images", "string"),
        ({"images": ["wide.png"] * 17}, "images", "17 images"),
        ({"image": "wide.png", "mask": "none.png"}, "mask", "no such file"),
        ({"image": "wide.png", "mask": 1}, "mask", "string"),
        ({"image": "wide.png\0"}, "image", "NUL"),
        ({"image": "x" * 5000}, "image", "no such file"),
    ],
)
def test_bad_edits_name_the_users_own_field(edit, fields, field, words):
    [failed] = take(edit, {"prompt": "a", **fields})
    assert isinstance(failed, Failed) and failed.kind == "input" and failed.field == field
    assert any(word in failed.message for word in words.split("|"))


def test_words_of_a_row_about_its_turns_and_its_texts(edit, settings, tmp_path):
    [turns, varied, other] = take(
        edit,
        {"prompt": "a", "image": "wide.png", "keep_turns": True},
        {"prompt": "a", "image": "wide.png", "use_variations": True},
        {"prompt": "a", "image": "wide.png", "keep_turns": "always", "use_variations": False},
    )
    assert (turns.keep_turns, varied.variation, other.keep_turns, other.variation) == (True, True, False, False)
    caption = settings("caption", image_root=tmp_path)
    [asked, silent, both, none] = take(
        caption,
        {"prompt": "What?", "text_only": True, "images": []},
        {"text_only": True},
        {"prompt": "What?", "text_only": True, "image": "wide.png"},
        {"prompt": "What?", "text_only": "yes"},
    )
    assert (asked.images, asked.dialogue) == ((), (("user", "What?"),))
    assert [failed.field for failed in (silent, both, none)] == ["prompt", "text_only", "images"]


def test_words_of_apis_are_the_users_own_where_there_is_no_api(settings, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a")
    [request] = take(settings("t2i"), {"prompt": "a", "quality": 5})
    assert request.params.quality == ""
    openai = settings("t2i", backend="openai", quality="low")
    plain, other, wrong = take(
        openai, {"prompt": "a"}, {"prompt": "b", "quality": " high "}, {"prompt": "c", "quality": 5}
    )
    assert (plain.params.quality, other.params.quality) == ("low", "high"), "the row's word counts before the flag's"
    assert wrong.field == "quality" and "must be a string" in wrong.message


def test_rows_that_clash_twice_are_told_apart(settings):
    intake = Intake(settings("t2i"))
    rows = [{"id": "x", "prompt": p} for p in ("a", "b", "b")]
    lines = [Row(number, json.dumps(row).encode()) for number, row in enumerate(rows, 1)]
    ids = [identity.id for identity in map(intake.identify, lines)]
    assert len(set(ids)) == 3


def test_an_empty_prompt_beside_turns_is_no_prompt(settings):
    intake = Intake(settings("t2i"))
    row = Row(1, json.dumps({"prompt": "", "conversations": [{"role": "user", "content": "a fox"}]}).encode())
    assert intake.read(row, intake.identify(row)).prompts == ("a fox",)


def test_a_row_that_only_brings_instructions_keeps_them():
    said = [("system", "be short"), ("assistant", "yes")]
    row = {"conversations": [{"role": role, "content": text} for role, text in said]}
    assert read_dialogue(row, 1, "Describe it.") == (("system", "be short"), ("user", "Describe it."))
