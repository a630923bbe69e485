"""What DataFlow-MM gets wrong, and what happens here instead. The numbers in the tests' names are those of this list.

 1 the results of edits by OpenAI are looked up under a name that they do not have: paid, on disk, and not in the table
 2 a failure late in a job loses every row, save_interval is never read, a job that is done is made anew
 3 one missing picture discards a job of edits, with exit code 0 and no table
 4 mask, size, variation and aspect ratio of a row never reach the service
 5 edits go on by a row's place: a row put in between gets the picture of another one
 6 prompts without ASCII letters share one file
 7 pictures named by prompt share a file, where equal instructions meet other pictures too; done rows are overwritten
 8 the placeholder [""] stays in the table, and its row is made anew each time
 9 error texts are stored as captions
10 one missing picture ends a job of captions, with no table
11 turns of role and content become an empty message without a picture, and its answer a caption
12 the picture is dropped where the last turn is an answer, and sent twice where the first turn equals the last
13 broken lines vanish, 64-bit numbers become floats, missing keys become null
14 an output column that only some rows have ends the job
15 rate limits and timeouts are not waited out; the row silently becomes []
16 the address gets its version twice
17 edits do not name the model; a quality that it does not know and a format that it refuses are sent; transparency is
   lost
18 edits of several pictures by OpenAI fail
19 turns of the system and of the assistant become prompts
20 local edits of mixed rows open "/"; of several pictures the first is used, of several turns the last
21 a serving whose method knows no system prompt ends the job
22 a streamed answer is read as a whole one and becomes an error text; a refusal becomes a null caption
23 a chat with Gemini gives the pictures of all its rounds, and says the last; the aspect ratio is not applied in the
   first
24 names of models that are gone
25 the batch size is for all GPUs together, each waits for the slowest, pictures are saved one by one after that
26 a service is asked one request at a time, and each picture is encoded and saved twice
27 float16, attention slicing always on, none of the faster modes
28 all pictures are decoded before the first is asked about, on one engine however many GPUs, with no bound on their
   pixels or number
29 all edits of a batch take the first one's shape
30 places and keys of somebody's machine, a default address that is not encrypted; the pictures do not follow cache_path
31 a documented flag is ignored, models mix in one folder, there is no seed, no record of how a picture was made, no
   exit code for a partial failure
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fastgen
from fastgen.backends.remote import vllm_command
from fastgen.config import hardware
from fastgen.dataflow.calls import check
from fastgen.dataflow.core import LLMServingABC
from fastgen.dataflow.io import ImageIO
from fastgen.dataflow.operators.core_vision import (
    PromptedImageEditGenerator,
    PromptedImageGenerator,
    PromptedVQAGenerator,
    Text2ImageGenerator,
)
from fastgen.dataflow.serving.api_image_gen_serving import APIImageGenServing
from fastgen.dataflow.serving.api_vlm_serving_openai import APIVLMServing_openai
from fastgen.dataflow.serving.local_image_gen_serving import LocalImageGenServing, find_model
from fastgen.dataflow.serving.local_model_vlm_serving import LocalModelVLMServing_vllm
from fastgen.dataflow.statics import PROGRAMS
from fastgen.scheduler.worker_pool import WorkerPool
from tests.dataflow.conftest import made_in
from tests.simulator import Simulator


def says(*texts):
    return [{"role": "user", "content": text} for text in texts]


def service(server, task="text2image", format="openai", **more):
    url, model = (
        (server.openai_url, "gpt-image-2") if format == "openai" else (server.gemini_url, "gemini-nano-banana-2.1")
    )
    return APIImageGenServing(
        url, ImageIO("./cache/pictures"), task, api_format=format, **{"model_name": model, **more}
    )


@pytest.fixture
def two_gpus(monkeypatch):
    """What a machine with two GPUs says of itself."""
    gpus = [hardware.Gpu(i, f"GPU-{i}", "NVIDIA H100 80GB HBM3", 80.0, "9.0") for i in range(2)]
    monkeypatch.setattr(hardware, "find_gpus", lambda: gpus)


def test_every_defect_of_the_list_has_a_test():
    sources = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    named = {
        int(number)
        for name in re.findall(r"^def test_((?:\d+_)+)", sources, re.MULTILINE)
        for number in name.split("_")[:-1]
    }
    assert named == {int(number) for number in re.findall(r"^ ?(\d+) ", __doc__, re.MULTILINE)} == set(range(1, 32))


# Lost or wrong data


def test_1_3_15_18_edits_by_openai_reach_the_table_and_a_missing_picture_costs_its_own_row_only(
    server, storage, written
):
    store = storage(
        [
            {"images": "image.png", "conversations": says("Change the guitar to a piano.")},
            {"images": "none.png", "conversations": says("lost")},
            {"images": ["image.png", "human_inpaint.jpg"], "conversations": says("Both. fault:rate_limit:once")},
        ]
    )
    serving = service(server, "imageedit")
    PromptedImageEditGenerator(serving).run(store, "images", "conversations", "output_image")
    one, lost, both = written(store)
    assert one["output_image"] == ["./cache/pictures/sample_0/sample_0_0.png"] and os.path.exists(
        one["output_image"][0]
    )
    assert both["output_image"] == ["./cache/pictures/sample_2/sample_2_0.png"] and lost["output_image"] == []
    assert [(f["key"], f["kind"]) for f in serving.failures] == [("sample_1", "input")]
    assert {r.model for r in server.requests if r.status == 200} == {"gpt-image-2"}  # 17: the model is sent
    assert max(len(r.images) for r in server.requests) == 2 and [r.status for r in server.requests].count(429) == 1


def test_2_a_failure_late_in_the_job_loses_no_row_and_a_rerun_makes_nothing_twice(storage, drawn, here):
    rows = [{"conversations": says(f"number {i}")} for i in range(6)]

    class Cut(LocalImageGenServing):
        def answers(self, inputs, tell=None):
            def until(place, answer):
                tell(place, answer)
                if sum(os.path.exists(f"./cache/pictures/sample{i}_condition0") for i in range(6)) == 4:
                    raise KeyboardInterrupt

            return super().answers(inputs, until)

    serving = drawn()
    serving.__class__ = Cut
    store = storage(rows)
    with pytest.raises(KeyboardInterrupt):
        PromptedImageGenerator(serving, save_interval=2).run(store, "conversations")
    half = store.step().read("dict")
    assert len(half) == 6 and len([row for row in half if row["images"]]) == 4
    for _ in range(2):  # after the kill, and after the end
        store = storage(rows)
        PromptedImageGenerator(drawn(), save_interval=2).run(store, "conversations")
        assert all(len(row["images"]) == 1 for row in store.step().read("dict"))
    assert len(made_in(here)) == len(set(made_in(here))) == 6


def test_2_save_interval_writes_tables_on_the_way(storage, drawn, monkeypatch):
    store = storage([{"conversations": says(f"number {i}")} for i in range(9)])
    tables = []
    write = store.write
    monkeypatch.setattr(
        store, "write", lambda rows: (tables.append(sum(bool(r.get("images")) for r in rows)), write(rows))[1]
    )
    monkeypatch.setattr("fastgen.dataflow.operators.core_vision.generate.column.SHARE", 0)
    PromptedImageGenerator(drawn(), save_interval=3).run(store, "conversations")
    assert tables == [3, 6, 9]


@pytest.mark.parametrize("format", ["openai", "gemini"])
def test_4_17_23_what_a_row_says_reaches_the_service(server, storage, written, here, format):
    mask = np.zeros((64, 96), np.uint8)
    mask[16:48, 24:72] = 255
    Image.fromarray(mask).save(here / "mask.png")
    words = (
        {"size": "1024x1536", "quality": "low", "background": "opaque"}
        if format == "openai"
        else {"aspect_ratio": "16:9"}
    )
    turns = says("one", "two")
    store = storage(
        [
            {"images": "image.png", "conversations": says("wide"), **words},
            {"images": "image.png", "mask": "mask.png", "conversations": says("masked")},
            {"images": "image.png", "conversations": turns},
            {"images": "image.png", "use_variations": True, "conversations": None},
        ]
    )
    PromptedImageEditGenerator(service(server, "imageedit", format)).run(
        store, "images", "conversations", "output_image"
    )
    rows = written(store)
    # 23: a chat with Gemini gives the pictures of all its rounds, in their order and under their names
    made = "./cache/pictures/sample_2/sample_2_{0}.png"
    assert rows[2]["output_image"] == [made.format(i) for i in range(2 if format == "gemini" else 1)]
    assert [len(row["output_image"]) for row in rows if row["conversations"] != turns] == [1, 1, 1]
    wide = Image.open(rows[0]["output_image"][0])
    assert abs(wide.width / wide.height - (2 / 3 if format == "openai" else 16 / 9)) < 0.05
    asked = [r for r in server.requests if r.status == 200]
    assert len(asked) == 5 and any("ariation" in r.prompt for r in asked)
    if format == "openai":
        assert any(r.mask is not None for r in asked)
        assert {r.params.get("quality") for r in asked} == {"low", None} and all(
            "response_format" not in r.params for r in asked
        )


def with_alpha(alpha: np.ndarray, colour=(0, 0, 0)) -> Image.Image:
    image = Image.new("RGBA", alpha.shape[::-1], colour)
    image.putalpha(Image.fromarray(alpha))
    return image


def test_4_a_mask_means_what_it_means_to_openai(server, storage, written, here):
    """Theirs sends a mask as it is: what is transparent is edited. One that is drawn in black and white has no such."""
    hole, drawn = np.full((64, 96), 255, np.uint8), np.zeros((64, 96), np.uint8)
    hole[16:48, 24:72], drawn[16:48, 24:72] = 0, 255
    masks = {
        "hole": with_alpha(hole),
        "white hole": with_alpha(hole, (255, 255, 255)),
        "drawn": Image.fromarray(drawn),
        "everything": with_alpha(np.zeros_like(hole)),
        "opposite": with_alpha(255 - hole),
    }
    rows = []
    for name, mask in masks.items():
        mask.save(here / f"{name}.png")
        rows.append({"images": "image.png", "mask": f"{name}.png", "conversations": says(name)})
    rows[-1]["mask_convention"] = "opaque_is_edited"
    serving = service(server, "imageedit")
    PromptedImageEditGenerator(serving).run(storage(rows), "images", "conversations", "output_image")
    assert not serving.failures
    sent = {request.prompt: np.asarray(request.mask.getchannel("A")) for request in server.requests}
    assert {name: (alpha[32, 48], alpha[4, 4]) for name, alpha in sent.items()} == {
        **dict.fromkeys(("hole", "white hole", "drawn", "opposite"), (0, 255)),
        "everything": (0, 0),
    }
    direct = [{"idx": 0, "image_path": "image.png", "prompt": "again", "mask_path": "hole.png"}]
    assert serving.generate_from_input(direct)["sample_0"] and (server.requests[-1].mask.getpixel((48, 32))[3] == 0)


def test_4_variations_are_asked_for_where_dall_e_2_makes_them(storage, written, here):
    Image.new("RGB", (256, 256), "red").save("square.jpg")
    store = storage([{"images": "square.jpg", "use_variations": True}])
    with Simulator(models={"dall-e-2"}) as dall_e:
        PromptedImageEditGenerator(service(dall_e, "imageedit", model_name="dall-e-2")).run(store)
        (asked,) = dall_e.requests
    assert asked.operation == "vary" and asked.images[0].mime == "image/png"
    assert written(store)[0]["edited_images"] == ["./cache/pictures/sample_0/sample_0_0.png"]


def test_5_a_row_that_is_put_in_between_gets_its_own_picture_and_the_others_keep_theirs(server, storage, written, here):
    first = [{"images": "image.png", "conversations": says(f"number {i}")} for i in range(3)]
    store = storage(first)
    PromptedImageEditGenerator(service(server, "imageedit")).run(store, "images", "conversations")
    before = [Path(row["edited_images"][0]).read_bytes() for row in written(store)]
    store = storage([first[0], {"images": "image.png", "conversations": says("new")}, *first[1:]])
    PromptedImageEditGenerator(service(server, "imageedit")).run(store, "images", "conversations")
    rows = written(store)
    after = [Path(row["edited_images"][0]).read_bytes() for row in rows]
    assert [after[0], *after[2:]] == before and after[1] not in before
    assert [Path(row["edited_images"][0]).name for row in rows] == [f"sample_{i}_0.png" for i in range(4)]
    assert sorted(r.prompt for r in server.requests) == ["new", "number 0", "number 1", "number 2"]


def test_6_7_pictures_named_by_prompt_never_share_a_file(storage, drawn, written):
    prompts = [
        "一只狐狸",
        "一条船",
        "a fox, at dusk",
        "a fox at dusk",
        "a fox at dusk",
        "sample0 condition0",
        "sample_1",
    ]
    store = storage([{"conversations": says(prompt)} for prompt in prompts])
    PromptedImageGenerator(drawn()).run(store, "conversations", save_image_with_idx=False)
    paths = [row["images"][0] for row in written(store)]
    assert len(set(paths)) == len(paths) and all(map(os.path.exists, paths))
    assert paths[2] == "./cache/pictures/a_fox_at_dusk/a_fox_at_dusk_0.png"
    assert [path.replace(path.split("/")[-2], "*") for path in paths[3:5]] == [
        f"./cache/pictures/*/*_{i}.png" for i in (0, 1)
    ]
    store = storage([{"conversations": says("a fox at dusk")}], "later.jsonl")
    PromptedImageGenerator(drawn()).run(store, "conversations", save_image_with_idx=False)
    assert written(store)[0]["images"] == [paths[3]]


def test_7_one_instruction_for_two_pictures_gives_two_edits_and_done_rows_are_left_alone(storage, drawn, written):
    store = storage(
        [
            {"images": "image.png", "conversations": says("make it blue"), "edited_images": ["mine.png"]},
            {"images": "image.png", "conversations": says("make it blue")},
            {"images": "human_inpaint.jpg", "conversations": says("make it blue"), "edited_images": [""]},
        ]
    )
    PromptedImageEditGenerator(pipe=drawn("imageedit")).run(store, "images", "conversations", save_image_with_idx=False)
    mine, first, second = (row["edited_images"] for row in written(store))
    assert mine == ["mine.png"] and [first, second] == [
        [f"./cache/pictures/make_it_blue/make_it_blue_{i}.png"] for i in (0, 1)
    ]


def test_8_14_19_placeholders_missing_columns_and_turns_of_others(storage, drawn, written):
    store = storage(
        [
            {"id": 9007199254740993, "conversations": says("a"), "images": [""]},
            {
                "conversations": [
                    {"role": "system", "content": "You draw."},
                    *says("b", "c"),
                    {"role": "assistant", "content": "d"},
                ]
            },
            {"conversations": says("e"), "images": ["kept.png"], "note": None},
            {"conversations": [{"role": "assistant", "content": "nothing asked"}], "images": [""]},
            {"conversation": [{"from": "human", "value": "f"}]},
        ]
    )
    serving = drawn()
    Text2ImageGenerator(pipe=serving).run(store)
    rows = written(store)
    place = "./cache/pictures/sample{0}_condition{1}/sample{0}_condition{1}_0.png"
    assert rows[0] == {"id": 9007199254740993, "conversations": says("a"), "images": [place.format(0, 0)]}
    assert rows[1]["images"] == [place.format(1, 1), place.format(1, 2)] and list(rows[1]) == [
        "conversations",
        "images",
    ]
    assert rows[2] == {"conversations": says("e"), "images": ["kept.png"], "note": None}
    assert rows[3]["images"] == [] and rows[4]["images"] == [place.format(4, 0)]
    assert [failure["key"] for failure in serving.failures] == ["sample3_condition0"]


def test_9_10_22_a_failed_caption_is_no_caption_and_costs_its_own_row_only(server, storage, written):
    human = lambda text: [{"from": "human", "value": text}]  # noqa: E731
    store = storage(
        [
            {"image": ["image.png"], "conversation": human("Describe it.")},
            {"image": ["none.png"], "conversation": human("Describe it.")},
            {"image": ["image.png"], "conversation": human("fault:refusal_field")},
            {"image": ["image.png"], "conversation": human("fault:rate_limit:once")},
            {"image": "human_inpaint.jpg", "conversation": human("What?")},
        ]
    )
    serving = APIVLMServing_openai(server.openai_url, model_name="a-vlm", send_request_stream=True, max_workers=4)
    key = PromptedVQAGenerator(serving).run(store, input_image_key="image", output_answer_key="caption")
    captions = [row["caption"] for row in written(store)]
    assert key == "caption" and captions[1] == captions[2] == "" and all(captions[i] for i in (0, 3, 4))
    assert not any("rror" in caption for caption in captions)
    assert [failure["kind"] for failure in serving.failures if failure["key"] == "sample_1"] == ["input"]
    assert {r.key for r in server.requests} == {"test-key"}


def test_11_12_both_dialects_and_every_picture_once(server, storage, written):
    store = storage(
        [
            {"image": "image.png", "conversation": [{"role": "user", "content": "What is it?"}]},
            {
                "image": "image.png",
                "conversation": [
                    {"from": "human", "value": "What?"},
                    {"from": "gpt", "value": "Red."},
                    {"from": "human", "value": "What?"},
                ],
            },
            {
                "image": "image.png",
                "conversation": [{"from": "human", "value": "Last is an answer"}, {"from": "gpt", "value": "Yes."}],
            },
            {
                "image": ["image.png", "human_inpaint.jpg"],
                "conversation": [{"from": "human", "value": "<image> or <image>?"}],
            },
        ]
    )
    serving = APIVLMServing_openai(server.openai_url, model_name="a-vlm")
    PromptedVQAGenerator(serving, "look closely").run(store, input_image_key="image")
    assert all(row["answer"] for row in written(store)) and not serving.failures
    assert sorted(len(r.images) for r in server.requests) == [1, 1, 1, 2]
    assert all("look closely" in r.texts[0] for r in server.requests)


def test_13_a_broken_line_is_a_failed_row_and_numbers_stay_as_they_are(storage, drawn, written):
    store = storage(
        [{"id": 9007199254740993, "conversations": says("a")}, b'{"conversations": [', {"conversations": says("b")}]
    )
    PromptedImageGenerator(drawn()).run(store, "conversations")
    first, broken, last = written(store)
    assert first["id"] == 9007199254740993 and broken == {"line": '{"conversations": [', "images": []}
    assert "id" not in last and last["images"] == ["./cache/pictures/sample2_condition0/sample2_condition0_0.png"]


@pytest.mark.parametrize("format", ["openai", "gemini"])
def test_15_rate_limits_timeouts_and_broken_lines_are_waited_out_and_what_fails_is_told(
    server, storage, written, format
):
    server.hang_s = 30
    faults = ["rate_limit:once", "hang:once", "error_500:once", "disconnect:once", "moderation"]
    store = storage([{"conversations": says(f"fault:{fault}")} for fault in faults])
    serving = service(server, format=format, timeout=3)
    PromptedImageGenerator(serving).run(store, "conversations")
    assert [len(row["images"]) for row in written(store)] == [1, 1, 1, 1, 0]
    assert [(failure["key"], failure["kind"]) for failure in serving.failures] == [("sample4_condition0", "refused")]


# Wrong requests


@pytest.mark.parametrize("ending", ["", "/v1", "/v1/"])
def test_16_the_version_is_in_the_address_once(server, ending):
    serving = APIImageGenServing(
        server.openai_url.removesuffix("/v1") + ending, ImageIO("./p"), model_name="gpt-image-2", api_key="test-key"
    )
    assert serving._flags["base_url"] == server.openai_url


def test_17_a_transparent_background_stays(server):
    found = service(server, model_name="gpt-image-1.5").generate_from_input(
        [{"text_prompt": "a cup", "sample_id": "cup", "background": "transparent"}]
    )
    assert found == {"cup": ["./cache/pictures/cup/cup_0.png"]} and Image.open(found["cup"][0]).mode == "RGBA"
    assert "response_format" not in server.requests[-1].params and "quality" not in server.requests[-1].params


def test_20_29_local_edits_take_mixed_rows_several_turns_and_each_its_own_shape(storage, written):
    Image.new("RGB", (60, 90), "red").save("tall.png")
    store = storage(
        [
            {"images": "image.png", "conversations": says("make it red")},
            {"images": ["tall.png"], "conversations": says("make it blue", "make it green")},
            {"images": ["image.png", "human_inpaint.jpg"], "conversations": says("together")},
        ]
    )
    serving = LocalImageGenServing(
        ImageIO("./cache/pictures"),
        "tiny",
        Image_gen_task="imageedit",
        diffuser_model_name="FLUX-Kontext",
        diffuser_num_inference_steps=1,
        diffuser_guidance_scale=3.5,
        gpus="cpu",
    )
    PromptedImageEditGenerator(serving).run(store, "images", "conversations", "output_image")
    sizes = [Image.open(row["output_image"][0]).size for row in written(store)]
    assert sizes[:2] == [(192, 128), (128, 192)] and not serving.failures


def test_24_a_model_that_google_no_longer_has_is_exchanged_with_a_word(caplog):
    old = "gemini-3-pro-image-preview"
    serving = APIImageGenServing(None, ImageIO("./p"), api_format="gemini", model_name=old)
    assert serving._flags["model"] == "gemini-3-pro-image" and old in caplog.text
    serving = APIImageGenServing("http://127.0.0.1:9", ImageIO("./p"), api_format="gemini", model_name=old)
    assert serving._flags["model"] == old, "another server may have it"


def test_21_a_serving_that_knows_no_system_prompt_is_asked_without_it_and_that_is_said(storage, written, caplog):
    class Theirs(LLMServingABC):
        def generate_from_input(self, user_inputs): ...

        def generate_from_input_messages(self, conversations, image_list=None, video_list=None, audio_list=None):
            return [f"{len(images)} pictures" for images in image_list]

    store = storage([{"image": "image.png", "conversation": [{"from": "human", "value": "What?"}]}])
    PromptedVQAGenerator(Theirs(), "Be short.").run(store, input_image_key="image", output_answer_key="caption")
    assert written(store)[0]["caption"] == "1 pictures" and "Theirs takes no system prompt" in caplog.text


# Speed and operations


def test_25_the_batch_size_is_each_engines_own_and_none_waits_for_the_slowest(drawn, monkeypatch, here):
    batches, submit = [], WorkerPool.submit
    monkeypatch.setattr(
        WorkerPool,
        "submit",
        lambda pool, state, batch: (
            batches.append((state.worker.name, [request.prompts[0] for request in batch.requests])),
            submit(pool, state, batch),
        )[1],
    )
    serving = drawn(gpus="cpu:2", batch_size=4)
    serving.generate_from_input([f"slow:0.2 warm up {i}" for i in range(16)])  # both engines are there now, or almost
    batches.clear()
    told = []
    serving.answers(
        ["slow:4", *(f"slow:0.1 number {i}" for i in range(43))],
        lambda place, answer: told.append((place, answer, sum(1 for _ in here.glob("cache/pictures/*/*.png")))),
    )
    assert {len(prompts) for _, prompts in batches} >= {4} and max(len(prompts) for _, prompts in batches) == 4
    assert {worker for worker, _ in batches} == {"cpu:0", "cpu:1"}
    mates = next(prompts for _, prompts in batches if "slow:4" in prompts)
    last = {place for place, _, _ in told[-len(mates) :]}
    assert 0 in last and len(told) == 44, "all the others were answered while one batch took its time"
    assert all(answer.value for _, answer, _ in told)
    assert [files for _, _, files in told] == list(range(17, 61)), (
        "a picture is in its place when its answer comes, not at the end"
    )


def test_26_a_batch_of_requests_is_under_way_at_once_and_never_more(server, storage, written):
    server.latency_s = 0.3
    store = storage([{"conversations": says(f"number {i}")} for i in range(12)])
    PromptedImageGenerator(service(server, batch_size=6)).run(store, "conversations")
    assert server.peak == 6, "so a kill costs six requests at most"
    places = [Path(row["images"][0]) for row in written(store)]
    saved = [path for path in Path("cache").rglob("*.png") if "inputs" not in path.parts]
    assert len({path.stat().st_ino for path in saved}) == len({path.stat().st_ino for path in places}) == 12, (
        "each is saved once"
    )
    server.reset()
    store = storage([{"conversations": says(f"other {i}")} for i in range(3)], "others.jsonl")
    PromptedImageGenerator(service(server, batch_size=1)).run(store, "conversations")
    assert server.peak == 1


def test_27_bfloat16_on_a_gpu_no_sliced_attention_and_every_faster_mode_by_a_word(two_gpus):
    faster = {"quantize": "fp8", "cache": "first-block:0.1", "compile": True}
    serving = LocalImageGenServing(ImageIO("./p"), "tiny", **faster)
    settings = check("t2i", **serving._flags)
    assert settings.engine.dtype == "bfloat16"
    assert [device.name for device in settings.placement.devices] == ["cuda:0", "cuda:1"]
    words = settings.optimizations.words()
    assert (words["quantize"], words["cache"], words["compile"]) == ("fp8", "first-block:0.1", True)
    from fastgen.backends.diffusion.families.flux1.load import load

    modules = load(check("t2i", model="tiny", gpus="cpu"), "cpu")
    parts = [part for whole in (modules.transformer, modules.vae) for part in whole.modules()]
    processors = {type(part.processor).__name__ for part in parts if hasattr(part, "processor")}
    assert processors and not [name for name in processors if "Sliced" in name]


def test_28_pictures_are_read_when_their_turn_comes_and_are_scaled_down(server, storage, written, here, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "test-key")
    server.latency_s = 0.05
    rows = 120
    for number in range(rows):
        Image.new("RGB", (48, 48), (number, 0, 0)).save(f"{number}.png")
    Image.new("RGB", (4000, 3000)).save("0.png")
    serving = LocalModelVLMServing_vllm("a-vlm", base_url=server.openai_url, max_inflight=2)
    seen = []

    def tell(place, answer):
        if not seen:
            os.unlink(f"{rows - 1}.png")
        seen.append(place)

    answers = serving.answers(["What?"] * rows, [[f"{number}.png"] for number in range(rows)], tell=tell)
    assert len(seen) == rows and [bool(answer.value) for answer in answers] == [True] * (rows - 1) + [False]
    assert answers[-1].kind == "input" and max(w * h for r in server.requests for w, h in [r.images[0].size]) < 1.1e6
    serving.generate_from_input(["Both?"], image_inputs=[["1.png", "2.png"]])
    assert len(server.requests[-1].images) == 2


def test_28_each_gpu_has_an_engine_of_its_own_that_takes_several_pictures(two_gpus):
    serving = LocalModelVLMServing_vllm("tiny", vllm_command="true serve")
    settings = check("caption", **serving._flags)
    assert [device.gpu.visible_as for device in settings.placement.devices] == ["GPU-0", "GPU-1"]
    words = vllm_command.arguments(settings, 1, 4321)
    assert json.loads(words[words.index("--limit-mm-per-prompt") + 1])["image"] > 1


def test_30_keys_stay_where_they_are_and_are_written_nowhere(server, here, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "somebody-else")
    monkeypatch.setenv("MY_KEY", "test-key")
    monkeypatch.delenv("DF_API_KEY")
    service(server, api_key="test-key").generate_from_input(["a fox"])
    serving = APIVLMServing_openai(server.openai_url, "MY_KEY", "a-vlm", image_io=ImageIO("./texts"))
    assert serving.chat_with_one_image("image.png", "What?")
    assert os.environ["OPENAI_API_KEY"] == "somebody-else" and {r.key for r in server.requests} == {"test-key"}
    files = [path for path in here.rglob("*") if path.is_file()]
    assert files and not [path for path in files if b"test-key" in path.read_bytes()]
    with pytest.raises(EnvironmentError, match="DF_API_KEY"):
        APIVLMServing_openai(server.openai_url)
    with pytest.raises(ValueError, match="DF_API_KEY"):
        APIImageGenServing(server.openai_url, ImageIO("./p"))


@pytest.mark.parametrize("program", PROGRAMS.values())
def test_30_pipelines_know_no_place_but_the_current_folder_and_no_address_of_anybody(program):
    from importlib import import_module

    source = Path(import_module(f"fastgen.dataflow.statics.pipelines.{program}").__file__).read_text()
    assert "http://" not in source and "environ[" not in source and "__file__" not in source
    assert not re.findall(r"[\"']/\w", source), "no absolute path"


def test_31_a_model_in_a_local_folder_is_found_under_its_whole_name_and_nothing_is_put_there(here):
    for name in ("one/model", "two/model", "other"):
        (here / "ckpt" / name).mkdir(parents=True)
    assert [find_model(name, None, "ckpt") for name in ("one/model", "two/model", "three/other", "three/model")] == [
        "ckpt/one/model",
        "ckpt/two/model",
        "ckpt/other",
        "three/model",
    ]


def test_31_every_picture_says_how_it_was_made_and_other_settings_make_it_anew(drawn, here):
    drawn(seed=1).generate_from_input(["a fox"])
    drawn(seed=1).generate_from_input(["a fox"])
    drawn(seed=2).generate_from_input(["a fox"])
    assert len(made_in(here)) == 2
    lines = [line for path in here.rglob("results.jsonl") for line in path.read_text().splitlines()]
    made = [json.loads(line)["fastgen"] for line in lines]
    assert {(one["status"], one["backend"], one["model"]) for one in made} == {("done", "fake", "fake")}
    assert len({one["seed"] for one in made}) == 2 and {(one["width"], one["height"]) for one in made} == {(64, 64)}


def test_strict_raises_after_all_others_are_done_and_the_table_is_there(storage, drawn, written):
    store = storage([{"conversations": says(text)} for text in ("a", "refuse", "b")])
    with pytest.raises(fastgen.FastgenError, match=r"1 of 3 inputs failed:\nsample1_condition0: .*refused"):
        PromptedImageGenerator(drawn(strict=True)).run(store, "conversations")
    assert [len(row["images"]) for row in written(store)] == [1, 0, 1]
