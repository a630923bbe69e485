"""nano-banana as DataFlow-MM's pages have it: APIVLMServing_openai with an image_io, at a gateway that draws in its
chats only."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from fastgen.dataflow.io import ImageIO
from fastgen.dataflow.operators.core_vision import (
    PromptedImageEditGenerator,
    PromptedImageGenerator,
    PromptedVQAGenerator,
)
from fastgen.dataflow.serving.api_vlm_serving_openai import APIVLMServing_openai
from tests.simulator import Simulator

MODEL = "gemini-2.5-flash-image-preview"
PLACE = "./cache/images/sample_{0}/sample_{0}_0.png"


@pytest.fixture
def gateway():
    """gateway(form) -> (simulator, the serving of the page)."""
    opened = []

    def make(form, **about):
        opened.append(sim := Simulator(draws=form, models={MODEL}, **about))
        sim.__enter__()
        images = ImageIO(save_path="./cache/images")
        serving = APIVLMServing_openai(
            api_url=sim.openai_url, model_name=MODEL, image_io=images, send_request_stream=True
        )
        return sim, serving

    yield make
    for sim in opened:
        sim.__exit__(None, None, None)


@pytest.mark.parametrize("form", ["markdown", "link", "images"])
def test_the_pages_program_gives_saved_pictures(gateway, storage, written, form):
    sim, serving = gateway(form, streams_only=True)
    rows = [
        {"conversations": [{"content": "Change the vase to red.", "role": "user"}], "images": ["image.png"]},
        {"conversations": [{"content": "Both.", "role": "user"}], "images": ["image.png", "human_inpaint.jpg"]},
    ]
    store = storage([{**row, "edited_images": [""]} for row in rows])
    PromptedImageEditGenerator(pipe=serving).run(
        storage=store,
        input_image_key="images",
        input_conversation_key="conversations",
        output_image_key="edited_images",
    )
    table = written(store)
    assert table == [{**row, "edited_images": [PLACE.format(i)]} for i, row in enumerate(rows)]
    assert Image.open(table[0]["edited_images"][0]).size == (96, 64) and not serving.failures
    chats = [request for request in sim.requests if request.operation == "chat"]
    assert len(chats) == 2 and all(chat.params["stream"] is True and chat.model == MODEL for chat in chats)
    assert max(len(chat.images) for chat in chats) == 2


def test_pictures_of_prompts_and_what_is_no_picture(gateway, storage, written):
    _, serving = gateway("markdown")
    store = storage([{"conversation": [{"role": "user", "content": "a fox"}]}])
    PromptedImageGenerator(serving).run(store)
    assert written(store)[0]["images"] == ["./cache/images/sample0_condition0/sample0_condition0_0.png"]
    _, serving = gateway("words")
    store = storage(
        [{"conversations": [{"role": "user", "content": "x"}], "images": "image.png"}], cache_path="./other"
    )
    PromptedImageEditGenerator(serving).run(store, input_conversation_key="conversations")
    assert written(store)[0]["edited_images"] == [] and serving.failures[0]["kind"] == "refused"


def test_the_servings_own_methods_give_paths_too(gateway):
    sim, serving = gateway("url")
    found = serving.generate_from_input_one_image(["image.png", "none.png"], ["a", "b"], "Be careful.")
    assert found == [[PLACE.format(0)], []] and serving.failures[0]["key"] == "sample_1"
    assert [request.prompt for request in sim.requests if request.operation == "chat"] == ["Be careful.\na"]
    assert serving.chat_with_one_image_with_id(7, ["image.png", "human_inpaint.jpg"], "one sheet") == (
        7,
        [PLACE.format(7)],
    )
    assert [seen.size for seen in sim.requests[-1].images] == [(512, 512)]
    edits = [{"idx": 3, "image_path": "image.png", "prompt": "c"}]
    assert serving.generate_from_input(edits) == {"sample_3": [PLACE.format(3)]}


def test_texts_may_be_streamed_too(server, storage, written):
    store = storage([{"image": "image.png", "conversation": "What?"}])
    serving = APIVLMServing_openai(server.openai_url, model_name="a-vlm", send_request_stream=True)
    PromptedVQAGenerator(serving).run(store, input_image_key="image")
    assert written(store)[0]["answer"].startswith("A plain view with 96x64")
    assert server.requests[0].params["stream"] is True


def test_two_pictures_in_one_answer_are_both_saved(gateway, here, monkeypatch):
    """As theirs does: data first, then addresses."""
    from tests.simulator import chat_gateway

    def both(call, about):
        packed = [io.BytesIO() for _ in range(2)]
        for file, colour in zip(packed, ("red", "blue"), strict=True):
            Image.new("RGB", (8, 8), colour).save(file, "PNG")
        data = base64.b64encode(packed[0].getvalue()).decode()
        text = f"![a](data:image/png;base64,{data}) ![b]({about.put(packed[1].getvalue())})"
        return {"role": "assistant", "content": text, "refusal": None}

    monkeypatch.setattr(chat_gateway, "message", both)
    _, serving = gateway("markdown")
    edits = [{"image_path": "image.png", "prompt": "make it"}] * 2
    paths = serving.generate_from_input(edits)["make it"]
    assert len(paths) == len(set(paths)) == 4
    colours = [Image.open(path).getpixel((0, 0)) for path in paths]
    assert sorted(colours) == [(0, 0, 255)] * 2 + [(255, 0, 0)] * 2
