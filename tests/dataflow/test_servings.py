"""Servings and operators as they are called in pipelines: every shape of input, and the shapes of what comes back."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys

import pytest
from PIL import Image

import fastgen
from fastgen.dataflow import get_logger
from fastgen.dataflow.core import LLMServingABC
from fastgen.dataflow.io import ImageIO
from fastgen.dataflow.operators.core_vision import (
    BatchVQAGenerator,
    FixPromptedVQAGenerator,
    PromptedImageEditGenerator,
    PromptedImageGenerator,
    PromptedVQAGenerator,
    PromptTemplatedVQAGenerator,
)
from fastgen.dataflow.prompts.prompt_template import NamedPlaceholderPromptTemplate
from fastgen.dataflow.serving import APIVLMServing_openai, LocalModelVLMServing_vllm
from fastgen.dataflow.serving.wording import in_parameters
from fastgen.dataflow.utils.storage import DummyStorage


def test_text_to_image_by_prompt_and_by_id(drawn, caplog):
    serving = drawn(diffuser_num_images_per_prompt=2)
    found = serving.generate_from_input(["a fox", "a fox", "refuse"])
    assert found == {"a fox": [f"./cache/pictures/a_fox/a_fox_{i}.png" for i in range(4)], "refuse": []}
    assert all(map(os.path.exists, found["a fox"])) and "refuse: " in caplog.text
    found = serving.generate_from_input_one_batch([{"text_prompt": "a fox", "sample_id": "sample3_condition0"}])
    assert found["sample3_condition0"][1] == "./cache/pictures/sample3_condition0/sample3_condition0_1.png"
    assert serving.generate_from_input([]) == {} and serving.cleanup() is None


def test_edits_by_prompt_and_by_number(drawn):
    serving = drawn("imageedit")
    picture = Image.new("RGB", (32, 32), "blue")
    found = serving.generate_from_input(
        [("image.png", "red"), (["image.png", "human_inpaint.jpg"], "both"), (picture, "red")]
    )
    assert [len(found[key]) for key in ("red", "both")] == [2, 1]
    found = serving.generate_from_input(
        [{"idx": 4, "image_path": "image.png", "prompt": "x"}, {"idx": 5, "prompt": "x"}]
    )
    assert found == {"sample_4": ["./cache/pictures/sample_4/sample_4_0.png"], "sample_5": []}


def test_a_prompt_that_cannot_be_written_down_fails_alone(drawn):
    serving = drawn()
    found = serving.generate_from_input(
        [{"text_prompt": "half \ud83d", "sample_id": "a"}, {"text_prompt": "b", "sample_id": "b"}]
    )
    assert found["a"] == [] and len(found["b"]) == 1 and serving.failures[0]["kind"] == "input"


def test_what_cannot_be_is_said_at_once(drawn, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="Image_gen_task"):
        drawn("video")
    with pytest.raises(fastgen.ModelError, match="no such folder"):
        drawn(backend="local").__class__(ImageIO("./p"), "./nowhere")
    with pytest.raises(ValueError, match="diffuser_model_name"):
        drawn(diffuser_model_name="SD")
    with pytest.raises(fastgen.SettingsError, match="no GPUs in this run"):
        LocalModelVLMServing_vllm("tiny", vllm_tensor_parallel_size=2, vllm_command=sys.executable, gpus="cpu")


def test_pictures_in_and_out(here):
    files = ImageIO("./pictures")
    written = files({"sample_0": [Image.new("RGBA", (8, 8))], "a b": [Image.new("RGB", (4, 4))] * 2})
    assert written == {
        "sample_0": ["./pictures/sample_0/sample_0_0.png"],
        "a b": [f"./pictures/a_b/a_b_{i}.png" for i in (0, 1)],
    }
    found = files.read([written["a b"][1], "none.png", None])
    assert found[0].size == (4, 4) and found[0].mode == "RGB" and found[1:] == [None, None]
    (here / "webp.webp").write_bytes(b"")
    Image.new("RGB", (4, 4), "red").save("webp.webp")
    assert Image.open(files.place("sample_9", 0, "webp.webp")).format == "PNG"


def test_all_ways_to_ask_about_pictures(server, here):
    serving = APIVLMServing_openai(server.openai_url, model_name="a-vlm", max_workers=4)
    assert serving.chat_with_one_image_with_id(7, ["image.png", "human_inpaint.jpg"], "one sheet")[0] == 7
    assert [r.images[0].size for r in server.requests] == [(512, 512)]
    texts = serving.generate_from_input_one_image(["image.png", "none.png"], ["a", "b"], "be short")
    assert texts[0] and texts[1] == "" and serving.failures[0]["key"] == "sample_1"
    assert serving.generate_from_input_multi_images([["image.png", "human_inpaint.jpg"]], [["left", "right"]])[0]
    assert len(server.requests[-1].images) == 2 and {"left", "right"} <= set(server.requests[-1].texts)
    with pytest.raises(ValueError, match="same length"):
        serving.generate_from_input_one_image(["image.png"], [])
    with pytest.raises(fastgen.SettingsError, match="images only"):
        serving.generate_from_input(["x"], image_inputs=["image.png"], video_inputs=[["v.mp4"]])
    for mode, size in (("horizontal", (80, 32)), ("vertical", (48, 64)), ("grid", (512, 512))):
        sheet = serving.combine_images_to_base64(["image.png", "human_inpaint.jpg"], mode)
        assert Image.open(io.BytesIO(base64.b64decode(sheet))).size == size


def test_a_serving_of_texts_makes_edits_where_it_has_an_image_io(server, storage, written):
    store = storage(
        [{"images": ["./image.png"], "conversations": [{"role": "user", "content": "x"}], "edited_images": [""]}]
    )
    serving = APIVLMServing_openai(
        server.openai_url, model_name="gpt-image-2", image_io=ImageIO("./p"), send_request_stream=True
    )
    PromptedImageEditGenerator(pipe=serving).run(storage=store, input_conversation_key="conversations")
    assert written(store)[0]["edited_images"] == ["./p/sample_0/sample_0_0.png"]


def test_a_vllm_that_runs_is_asked_under_its_key(server, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "test-key")
    serving = LocalModelVLMServing_vllm("a-vlm", base_url=server.openai_url, vllm_max_tokens=64)
    turns = [[{"from": "human", "value": "<image> What?"}], [{"from": "human", "value": "<image><image>"}]]
    texts = serving.generate_from_input_messages(turns, image_list=[["image.png"], ["image.png"]])
    assert texts[0] and texts[1] == "" and "2 <image> marks for 1 images" in serving.failures[0]["message"]
    assert server.requests[0].params["temperature"] == 0.7 and server.requests[0].params["max_tokens"] == 64


def test_operators_for_texts(told, storage, written):
    rows = [
        {"image": "image.png", "kind": ["cup", "jug"], "ask": ["a?", "b?"]},
        {"image": ["image.png", "human_inpaint.jpg"], "kind": "x"},
    ]
    store = storage(rows)
    assert FixPromptedVQAGenerator(told(), user_prompt="Say.").run(store) == "answer"
    assert BatchVQAGenerator(told()).run(store.step(), "ask", "image", "answers") == "answers"
    template = NamedPlaceholderPromptTemplate("Which {what}?")
    PromptTemplatedVQAGenerator(told(), template).run(store.step(), what="kind", output_answer_key="templated")
    PromptedVQAGenerator(told()).run(
        store.step(), input_prompt_key="answer", input_image_key="image", output_answer_key="last"
    )
    first, second = written(store)
    assert first == {
        **rows[0],
        "answer": "1 pictures",
        "answers": ["1 pictures"] * 2,
        "templated": "1 pictures",
        "last": "1 pictures",
    }
    assert second["answers"] == [] and second["answer"] == "2 pictures"
    assert template.build_prompt({"what"}, what=["a", "b"]) == "Which a\nb?"
    with pytest.raises(ValueError, match="column"):
        PromptTemplatedVQAGenerator(told(), template).run(store)


def test_servings_of_others_work_too(storage, written):
    class Theirs(LLMServingABC):
        def generate_from_input(self, user_inputs):
            return {given["sample_id"]: ["made.png"] for given in user_inputs[:1]}

        def generate_from_input_messages(self, conversations, image_list, system_prompt):
            return [f"{conversation} {images}" for conversation, images in zip(conversations, image_list, strict=True)]

    store = storage([{"conversations": [{"role": "user", "content": text}]} for text in "ab"])
    PromptedImageGenerator(Theirs()).run(store, "conversations")
    assert [row["images"] for row in written(store)] == [["made.png"], []]
    memory = DummyStorage()
    memory.set_data([{"image": "a.png"}])
    FixPromptedVQAGenerator(Theirs(), user_prompt="p").run(memory)
    assert memory.read("dict")[0]["answer"] == "p ['a.png']"
    assert get_logger().name == "fastgen.dataflow"


def test_a_caption_job_goes_on_where_it_was_and_sees_when_a_picture_was_exchanged(server, storage, here):
    rows = [{"image": "image.png", "conversation": f"number {i}"} for i in range(3)]
    serving = APIVLMServing_openai(server.openai_url, model_name="a-vlm")
    for _ in range(2):
        PromptedVQAGenerator(serving).run(storage(rows), input_image_key="image", output_answer_key="caption")
    assert len(server.requests) == 3
    Image.new("RGB", (32, 32)).save("image.png")
    PromptedVQAGenerator(serving).run(storage(rows), input_image_key="image", output_answer_key="caption")
    assert (
        len(server.requests) == 6
        and json.loads((here / "cache/dataflow_cache_step_step1.jsonl").read_text().splitlines()[0])["caption"]
    )


def test_the_import_is_light():
    names = "APIVLMServing_openai, APIImageGenServing, LocalImageGenServing, LocalModelVLMServing_vllm"
    code = f"""
import sys
from fastgen.dataflow.serving import {names}
from fastgen.dataflow.operators.core_vision import PromptedVQAGenerator
from fastgen.dataflow.utils.storage import FileStorage
from fastgen.dataflow.io import ImageIO
print(*{{name.partition(".")[0] for name in sys.modules}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    heavy = {"pandas", "pyarrow", "numpy", "PIL", "openai", "google", "torch", "rich", "urllib3", "huggingface_hub"}
    assert done.returncode == 0 and not heavy & set(done.stdout.split())


def test_text_alone_is_answered_where_it_may_be(server, storage, written, caplog):
    store = storage(
        [{"conversation": "Hello?"}, {"image": "image.png", "conversation": "What?"}, {"image": "none.png"}]
    )
    serving = APIVLMServing_openai(server.openai_url, model_name="a-vlm")
    PromptedVQAGenerator(serving).run(store, input_image_key="image")
    assert "1 rows have no image in 'image'" in caplog.text and [len(r.images) for r in server.requests] == [0, 1]
    first, second, third = written(store)
    assert "no picture" in first["answer"] and "96x64" in second["answer"] and third["answer"] == ""
    assert serving.generate_from_input(["Hello?"])[0] == first["answer"]
    FixPromptedVQAGenerator(serving).run(store, output_answer_key="fixed")
    assert store.step().read("dict")[0]["fixed"] == "" and "no image" in serving.failures[0]["message"]


def test_captions_have_tables_on_the_way_too(told, storage, monkeypatch):
    store, tables = storage([{"image": "image.png", "conversation": f"number {i}"} for i in range(9)]), []
    write = store.write
    monkeypatch.setattr(store, "write", lambda rows: (tables.append(sum(bool(r["answer"]) for r in rows)), write(rows)))
    monkeypatch.setattr("fastgen.dataflow.operators.core_vision.generate.column.SHARE", 0)
    PromptedVQAGenerator(told(batch_size=1), save_interval=4).run(store, input_image_key="image")
    assert tables == [4, 8, 9] and PromptedVQAGenerator(told()).save_interval == 50


def test_an_empty_cell_says_nothing_in_a_prompt(told, storage):
    class Theirs:
        def generate_from_input_messages(self, conversations, image_list, system_prompt):
            return conversations

    store = storage([{"image": "image.png", "kind": None, "n": 0}, {"image": "image.png"}])
    template = NamedPlaceholderPromptTemplate("A {what}, {n} of them?")
    PromptTemplatedVQAGenerator(Theirs(), template).run(store, what="kind", n="n")
    assert [row["answer"] for row in store.step().read("dict")] == ["A , 0 of them?", "A ,  of them?"]
    assert template.build_prompt({"what", "n"}, what=["a", None, "b"]) == "A a\nb,  of them?"


WORDS = {
    "--model ./x: no such folder; use --backend openai": "model_name ./x: no such folder; use backend openai",
    "row 3, field mask: a.png selects nothing": "mask: a.png selects nothing",
    "row 12: no prompt": "no prompt",
    "a.png: no such file; check the path and --image-root": "a.png: no such file; check the path",
    "cut at --max-tokens; raise it": "cut at max_tokens; raise it",
}


@pytest.mark.parametrize("said", WORDS)
def test_messages_speak_of_a_servings_parameters(said):
    assert in_parameters(said, {"model": "model_name"}) == WORDS[said]


def test_errors_and_failures_do_so_too(server, told):
    with pytest.raises(fastgen.ModelError, match=r"^hf_model_name_or_path ./none: no such folder"):
        LocalModelVLMServing_vllm("./none", vllm_command="true serve")
    serving = told()
    serving.generate_from_input(["What?"], image_inputs=["none.png"])
    message = serving.failures[0]["message"]
    assert "none.png: no such file; check the path" in message and "--" not in message and "row" not in message


def test_every_path_of_the_operators_has_all_of_them():
    from fastgen.dataflow import operators
    from fastgen.dataflow.operators import core_vision, generate

    for place in (operators, core_vision, generate):
        assert len(place.__all__) == 7 and all(getattr(place, name).__name__ == name for name in place.__all__)
