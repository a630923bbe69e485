"""What is plainly meant for fastgen and not read is said once, with its count; a user's own column never is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastgen.input.unread_fields import MOST_NAMES, SAID_AFTER, UnreadFields, misnamed_turns


def said(task, *rows) -> list[str]:
    messages: list[str] = []
    unread = UnreadFields(task, messages.append)
    for row in rows:
        unread.note(row)
    unread.end()
    assert len(messages) == len(set(messages)) and unread.notes == messages
    return messages


@pytest.mark.parametrize(
    ("task", "name", "instead"),
    [
        ("t2i", "num_inference_steps", "`steps` is"),
        ("t2i", "guidance_scale", "`guidance` is"),
        ("t2i", "num_images_per_prompt", "`n` is"),
        ("edit", "strength", "no strength"),
        ("t2i", "lora", "--lora PATH:SCALE"),
        ("t2i", "negative_prompt", "no such field"),
        ("t2i", "true_cfg_scale", "no such field"),
        ("t2i", "stpes", "`steps` is"),
        ("t2i", "Size", "`size` is"),
        ("t2i", "STEPS", "`steps` is"),
        ("t2i", "aspectRatio", "`aspect_ratio` is"),
        ("t2i", "step", "`steps` is"),
        ("t2i", "seeds", "`seed` is"),
        ("t2i", "guidence", "`guidance` is"),
        ("t2i", "heigth", "`height` is"),
        ("t2i", "hight", "`height` is"),
        ("t2i", "widthh", "`width` is"),
        ("t2i", "ID", "`id` is"),
        ("t2i", "promtp", "`prompt` is"),
        ("edit", "Mask", "`mask` is"),
        ("t2i", "numInferenceSteps", "`steps` is"),
        ("t2i", "guidance-scale", "`guidance` is"),
        ("t2i", "negativePrompt", "no such field"),
        ("edit", "inpainting_mask", "`mask` is"),
        ("edit", "mask_url", "`mask` is"),
        ("edit", "maskFile", "`mask` is"),
        ("caption", "maxNewTokens", "`max_tokens` is"),
        ("edit", "mask-convention", "`mask_convention` is"),
        ("edit", "imgae", "`image` is"),
        ("caption", "max_new_tokens", "`max_tokens` is"),
        ("caption", "temprature", "`temperature` is"),
        ("caption", "question", "`prompt` is"),
        ("caption", "top_p", "`temperature` is the only"),
    ],
)
def test_what_is_meant_for_us_is_said(task, name, instead):
    [message] = said(task, {name: 1}, {name: None, "x": 1}, {name: 2})
    assert message.startswith(f"the field `{name}`, in 2 of 3 rows, is not read; ") and instead in message


OWN = (
    "text source caption title url path file file_name name label labels class category score weight weights "
    "speed side sides task tag tags type split index idx hash md5 date time language lang style model version "
    "note notes comment answer eight state image_id prompt_id images_dir masked height_cm size_kb n_tokens "
    "original_image width_ratio with_text seedling stage sized metadata uuid key x y ids N "
)


@pytest.mark.parametrize("task", ["t2i", "edit", "caption"])
def test_a_column_of_ones_own_is_never_said(task):
    assert said(task, dict.fromkeys(OWN.split(), 1)) == []


def test_what_is_read_is_not_said():
    row = {"prompt": "a", "steps": 4, "num_inference_steps": 4, "Prompt": "A", "mask_image": "m.png"}
    assert said("edit", row, {"fastgen": {}, "images": ["a.png"]}) == []
    assert said("t2i", {"image": "a.png", "images": [], "mask": "m.png", "num_inference_steps": None}) == []


def test_a_long_run_hears_of_it_at_once():
    messages: list[str] = []
    unread = UnreadFields("t2i", messages.append)
    for number in range(SAID_AFTER + 5):
        unread.note({"guidance_scale": 2, **({"lora": "a"} if number > SAID_AFTER else {})})
        assert len(messages) == (number >= SAID_AFTER - 1)
    unread.end()
    first, second = messages
    assert "in 1,000 of the first 1,000 rows" in first and "`lora`, in 4 of 1,005 rows" in second
    assert "in 1,005 of 1,005 rows" in unread.notes[0] and len(unread.notes) == 2


def test_text_beside_a_picture_is_not_asked_in_silence():
    """Where it is not asked, because --prompt is, or it is the data set's caption, it is named; it is never refused."""
    told = ["the field `text`, in 1 of 2 rows, is not read; `prompt` is; if it is what to ask, add --prompt-key text"]
    rows = {"image": "a.png", "text": "What colour is it?"}, {"image": "b.png", "text": "a cat", "prompt": "What?"}
    assert said("caption", *rows) == told
    assert said("caption", {"image": "a.png", "text": ["What?"]}, {"image": "b.png", "text": 5}) == told
    UnreadFields("caption", print, strict=True).note(rows[0])


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"contents": [{"role": "user", "parts": [{"text": "How many?"}]}]}, "contents"),
        ({"dialogue": [{"from": "human", "value": "How many?"}]}, "dialogue"),
        ({"question": {"en": "How many?"}}, "question"),
        ({"queries": ["a"], "objects": [{"name": "a"}], "contents": [], "question": ""}, ""),
    ],
)
def test_a_question_in_a_form_that_is_not_read_is_found(fields, named):
    assert misnamed_turns({"image": "a.png", **fields}) == named


def test_names_without_end_fill_no_memory():
    unread = UnreadFields("t2i", lambda message: None)
    for number in range(MOST_NAMES + 100):
        unread.note({f"column {number}": 1, "stpes": 1})
    unread.end()
    assert len(unread._meant) == MOST_NAMES and len(unread.notes) == 1


def test_a_run_says_it_and_keeps_it(go, rows_file, settings):
    rows = [{"prompt": "a", "cfg_scale": 9.0, "text": "mine"}, {"prompt": "b", "Size": "64x64"}]
    run = go(settings("t2i", rows_file(rows)))
    warnings = [event["message"] for event in run.events if event["event"] == "warning"]
    wanted = [
        "the field `cfg_scale`, in 1 of 2 rows, is not read; `guidance` is",
        "the field `Size`, in 1 of 2 rows, is not read; `size` is",
    ]
    assert warnings == wanted
    assert json.loads((run.out / "run.json").read_text("utf-8"))["notes"][-2:] == wanted
    assert [row["fastgen"]["status"] for row in run.table] == ["done", "done"]
    from fastgen.api import explain

    assert explain(settings("t2i", rows_file(rows), out=Path(run.out).with_name("other")))["unread"] == wanted
