"""One field at a time: its type, its range, and its name in the error."""

from __future__ import annotations

import math

import pytest

from fastgen.errors import InputError
from fastgen.input import row_schema
from fastgen.input.row_schema import MARK, MAX_IMAGES, MAX_PROMPT_CHARACTERS, MAX_TURNS, read_dialogue, read_prompts


def user(text: object) -> dict:
    return {"role": "user", "content": text}


@pytest.mark.parametrize(
    ("value", "found"), [(None, 5), (7, 7), (7.0, 7), (1, 1), (10, 10), (0, "0"), (11, "11"), (10**400, "range")]
)
def test_whole_numbers(value, found):
    if isinstance(found, int):
        assert row_schema.read_whole({"n": value}, "n", 5, 1, 10) == found
        return
    with pytest.raises(InputError, match=f"{found}.*from 1 to 10|range") as caught:
        row_schema.read_whole({"n": value}, "n", 5, 1, 10)
    assert caught.value.field == "n" and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("value", "named"),
    [(True, "true or false"), ("7", "a string"), ([7], "a list"), ({}, "an object"), (7.5, "7.5"), (math.nan, "nan")],
)
def test_what_is_no_whole_number_is_named(value, named):
    with pytest.raises(InputError, match=f"whole number, not {named}"):
        row_schema.read_whole({"n": value}, "n", 5, 1, 10)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 100.1, 10**400])
def test_real_numbers_out_of_range(value):
    with pytest.raises(InputError, match="from 0 to 100"):
        row_schema.read_real({"guidance": value}, "guidance", 3.5)


def test_real_numbers():
    assert row_schema.read_real({}, "guidance", 3.5) == 3.5
    assert row_schema.read_real({"guidance": 0}, "guidance", 3.5) == 0.0
    for value in (True, "3", None):
        if value is not None:
            with pytest.raises(InputError, match="must be a number"):
                row_schema.read_real({"guidance": value}, "guidance", 3.5)


def test_flags_are_true_and_nothing_else():
    assert row_schema.read_flag({"mask_inverted": True}, "mask_inverted")
    for value in (1, "true", "yes", [True], None, False):
        assert not row_schema.read_flag({"mask_inverted": value}, "mask_inverted")


@pytest.mark.parametrize(("text", "words"), [("\ud83d", "half of a character"), ("a\udcff.png", "not UTF-8")])
def test_texts_that_no_file_can_hold(text, words):
    assert not row_schema.is_unicode(text) and row_schema.is_unicode("é 🍵")
    with pytest.raises(InputError, match=words):
        row_schema.read_text(text, "prompt")


def test_the_first_field_with_something_in_it_is_the_prompt():
    turns = [user("a"), {"role": "assistant", "content": "no"}, user("b")]
    assert read_prompts({"prompt": "p", "conversations": turns}, "t2i") == ("p",)
    for empty in (None, "", []):
        assert read_prompts({"prompt": empty, "conversations": turns}, "t2i") == ("a", "b")
    assert read_prompts({"conversation": [{"from": "human", "value": "c"}]}, "t2i") == ("c",)


def test_marks_of_images_are_no_words_of_an_edit():
    assert read_prompts({"prompt": f"{MARK}\nmake it night"}, "edit") == ("make it night",)
    assert read_prompts({"prompt": f"make it night\n{MARK}"}, "edit") == ("make it night",)
    assert read_prompts({"prompt": f"{MARK}\nmake it night"}, "t2i") == (f"{MARK}\nmake it night",)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({}, "prompt", "no prompt"),
        ({"prompt": 5}, "prompt", "must be a string"),
        ({"prompt": " \n"}, "prompt", "no text"),
        ({"prompt": "x" * (MAX_PROMPT_CHARACTERS + 1)}, "prompt", f"{MAX_PROMPT_CHARACTERS + 1:,} characters"),
        ({"conversations": [user("a")] * (MAX_TURNS + 1)}, "conversations", f"{MAX_TURNS + 1} user turns"),
        ({"conversations": {"role": "user"}}, "conversations", "list of turns"),
        ({"conversations": [user("a"), "b"]}, "conversations", "list of turns"),
        ({"conversations": [{"role": 5, "content": "a"}]}, "conversations", "role must be a string"),
        ({"conversation": [{"from": "gpt", "value": "a"}]}, "conversation", "no text"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_prompts_that_are_none(fields, field, words):
    with pytest.raises(InputError, match=words) as caught:
        read_prompts(fields, "t2i")
    assert caught.value.field == field


def test_a_caption_is_asked_with_the_default_where_the_row_asks_nothing():
    assert read_dialogue({}, 1, "Describe it.") == (("user", "Describe it."),)
    assert read_dialogue({"prompt": "What is it?"}, 1, "Describe it.") == (("user", "What is it?"),)
    only_system = {"conversations": [{"role": "developer", "content": "be short"}]}
    assert read_dialogue(only_system, 1, "Describe it.") == (("system", "be short"), ("user", "Describe it."))
    assert read_dialogue({"conversations": [user(MARK)]}, 1, "Describe it.") == (("user", f"{MARK}Describe it."),)


def test_an_answer_that_is_there_already_is_not_asked_for():
    turns = [user("a"), {"role": "assistant", "content": "b"}, user("c"), {"role": "bot", "content": "d"}]
    assert read_dialogue({"conversations": turns}, 1, "x") == (("user", "a"), ("assistant", "b"), ("user", "c"))


def test_parts_in_the_form_of_openai():
    parts = [{"type": "image_url", "image_url": {}}, {"type": "text", "text": "What is it?"}]
    assert read_dialogue({"conversations": [user(parts)]}, 1, "x") == (("user", f"{MARK}\nWhat is it?"),)
    assert read_prompts({"conversations": [user(parts)]}, "t2i") == ("What is it?",)


@pytest.mark.parametrize(
    ("fields", "pictures", "words"),
    [
        ({"prompt": f"{MARK} and {MARK}"}, 1, f"2 {MARK} marks for 1 image"),
        ({"conversations": [{"role": "narrator", "content": "a"}]}, 1, "role is one of .*narrator"),
        ({"conversations": [user("a")] * (MAX_TURNS + 1)}, 1, f"{MAX_TURNS + 1} turns"),
        ({"conversations": [user("x" * (MAX_PROMPT_CHARACTERS + 1))]}, 1, "characters"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_dialogues_that_are_none(fields, pictures, words):
    with pytest.raises(InputError, match=words):
        read_dialogue(fields, pictures, "Describe it.")


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, None),
        ({"size": "128x64"}, (128, 64)),
        ({"size": [128, 64]}, (128, 64)),
        ({"width": 128, "height": 64}, (128, 64)),
        ({"size": "128x64", "width": 128}, (128, 64)),
    ],
    ids=str,
)
def test_sizes(settings, fields, size):
    assert row_schema.read_size(fields, settings("t2i")) == size


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"size": "auto"}, "size", "1024x768"),
        ({"size": "1" * 50}, "size", "1024x768"),
        ({"size": {"width": 1}}, "size", "1024x768"),
        ({"size": "128x64", "height": 128}, "size", "contradicts"),
        ({"width": 128}, "height", "together"),
        ({"height": 128}, "width", "together"),
        ({"size": "100x64"}, "size", "96x64"),
    ],
    ids=str,
)
def test_sizes_that_are_none(settings, fields, field, words):
    with pytest.raises(InputError, match=words) as caught:
        row_schema.read_size(fields, settings("t2i"))
    assert caught.value.field == field


def test_an_api_decides_about_sizes_itself(settings, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a")
    openai = settings("t2i", backend="openai")
    assert row_schema.read_size({"size": "auto"}, openai) is None
    assert row_schema.read_size({"size": "100x70"}, openai) == (100, 70), "its limits are in the data of its provider"


def test_words_of_apis():
    assert row_schema.read_api_options({}) == {}
    assert row_schema.read_api_options({"quality": " high ", "background": ""}) == {"quality": "high"}
    for value, words in ((5, "must be a string"), ("x" * 101, "long")):
        with pytest.raises(InputError, match=words):
            row_schema.read_api_options({"quality": value})


def test_images(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    root = str(tmp_path)
    assert row_schema.read_images({"image": "a.png"}, root, "edit") == ("image", (f"{root}/a.png",))
    assert row_schema.read_images({"image": "", "images": ["a.png", "b.png"]}, root, "edit") == (
        "images",
        (f"{root}/a.png", f"{root}/b.png"),
    )
    for fields, field, words in (
        ({}, "images", "no image to caption"),
        ({"images": ["a.png"] * (MAX_IMAGES + 1)}, "images", f"{MAX_IMAGES + 1} images"),
        ({"image": 5}, "image", "must be a string"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            row_schema.read_images(fields, root, "caption")
        assert caught.value.field == field


TURNS = [{"role": "user", "content": "<image>Which colour?"}, {"role": "assistant", "content": "Red."}]


def test_messages_are_read_as_conversations_are():
    assert row_schema.read_dialogue({"messages": TURNS}, 1, "Describe.") == (("user", "<image>Which colour?"),)
    parts = [{"type": "image_url", "image_url": {"url": "a.png"}}, {"type": "text", "text": "Which colour?"}]
    row = {"messages": [{"role": "user", "content": parts}]}
    assert row_schema.read_dialogue(row, 1, "Describe.") == (("user", "<image>\nWhich colour?"),)
    theirs = {"messages": ["hello"]}
    assert row_schema.read_dialogue(theirs, 1, "Describe.") == (("user", "Describe."),), "a column of the user's own"


@pytest.mark.parametrize("part", [{"image_url": {"url": "a.png"}}, {"image_url": "a.png"}, {"image": "a.png"}])
def test_images_in_the_parts_of_messages(part, tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    row = {"messages": [{"role": "user", "content": [{"type": "image", **part}, {"type": "text", "text": "What?"}]}]}
    field, (path,) = row_schema.read_images(row, str(tmp_path), "caption")
    assert (field, path) == ("messages", str(tmp_path / "a.png"))


def test_parts_without_a_type_keep_the_places_of_their_images(tmp_path):
    """Qwen-VL's form, with addresses of files."""
    parts = [{"image": f"file://{tmp_path}/a.png"}, {"text": "or"}, {"image": "b.png", "max_pixels": 50176}]
    row = {"messages": [{"role": "user", "content": parts}]}
    found = row_schema.read_images(row, str(tmp_path), "caption")
    assert found == ("messages", (f"{tmp_path}/a.png", f"{tmp_path}/b.png"))
    assert row_schema.read_dialogue(row, 2, "x") == (("user", f"{MARK}\nor\n{MARK}"),)


def test_parts_in_the_forms_of_other_services():
    data = {"type": "base64", "media_type": "image/webp", "data": "UklGR"}
    anthropic = [{"type": "image", "source": data}, {"type": "text", "text": "What?"}]
    responses = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": "a.png"}]
    gemini = {"conversations": [{"role": "user", "parts": [{"text": "What?"}]}]}
    assert row_schema.images_in({"messages": [user(anthropic)]}) == ["data:image/webp;base64,UklGR"]
    assert row_schema.images_in({"messages": [user(responses)]}) == ["a.png"]
    assert read_dialogue({"messages": [user(anthropic)]}, 1, "x") == (("user", f"{MARK}\nWhat?"),)
    assert read_dialogue({"messages": [user(responses)]}, 1, "x") == (("user", f"What?\n{MARK}"),)
    assert read_dialogue(gemini, 1, "x") == (("user", "What?"),)


@pytest.mark.parametrize("name", ["system", "system_prompt"])
def test_the_rows_own_system_prompt(name):
    asked = (("system", "Be short."), ("user", "What?"))
    assert row_schema.read_dialogue({name: "Be short.", "prompt": "What?"}, 1, "") == asked
    turns = [{"role": "system", "content": "Be long."}, {"role": "user", "content": "What?"}]
    assert row_schema.read_dialogue({name: "Be short.", "messages": turns}, 1, "")[0] == ("system", "Be long.")
