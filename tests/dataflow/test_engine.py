"""A serving keeps its engine, or vLLM's server, from its first call until it is cleaned up, collected, or the program
ends."""

from __future__ import annotations

import gc
import subprocess
import sys
import time

import psutil
import pytest
from PIL import Image

from fastgen.dataflow.io import ImageIO
from fastgen.dataflow.operators.core_vision import PromptedImageEditGenerator, PromptedImageGenerator
from fastgen.dataflow.serving.local_image_gen_serving import LocalImageGenServing
from fastgen.dataflow.serving.local_model_vlm_serving import LocalModelVLMServing_vllm
from tests.processes import command_line, ended

PATIENCE_S = 30


def engines() -> list[int]:
    """The engine processes of this one."""
    return sorted(
        p.pid for p in psutil.Process().children() if "fastgen.workers.worker_main" in " ".join(command_line(p))
    )


@pytest.fixture(autouse=True)
def none_before():
    gc.collect()
    before = engines()
    yield
    gc.collect()
    assert engines() == before, "a test leaves none"


def kill(pid: int) -> None:
    process = psutil.Process(pid)
    process.kill()
    deadline = time.monotonic() + PATIENCE_S
    while not ended(process) and time.monotonic() < deadline:
        time.sleep(0.01)


def test_calls_and_operators_on_one_serving_have_one_engine(drawn, storage, written):
    serving = drawn()
    assert not engines(), "the first call starts it"
    serving.generate_from_input(["a fox"])
    [engine] = engines()
    store = storage([{"conversations": [{"role": "user", "content": text}]} for text in ("a boat", "refuse")])
    for column in ("images", "more"):
        PromptedImageGenerator(serving).run(store, "conversations", column)
        assert engines() == [engine]
        store.step()
    edits = drawn("imageedit")
    PromptedImageEditGenerator(edits).run(
        storage([{"images": "image.png", "conversations": "blue"}]), "images", "conversations"
    )
    assert engines() == [engine], "a serving of another task with the same model has it too"
    del edits


def test_an_engine_that_died_in_between_is_replaced_and_cleanup_ends_it(drawn):
    serving = drawn()
    serving.generate_from_input(["a fox"])
    [first] = engines()
    kill(first)
    assert serving.generate_from_input(["a boat"])["a boat"]
    [second] = engines()
    assert second != first
    serving.cleanup()
    serving.cleanup()
    assert not engines()
    assert serving.generate_from_input(["a house"])["a house"] and engines()
    serving.load_model()
    del serving
    gc.collect()
    assert not engines()


def test_another_model_in_the_same_place_replaces_it_and_the_log_says_so(drawn, caplog):
    one, other = drawn(), drawn(max_sequence_length=64)
    one.generate_from_input(["a fox"])
    [first] = engines()
    other.generate_from_input(["a fox"])
    [second] = engines()
    assert second != first and "cpu: the engine with fake was stopped to make room for one with fake" in caplog.text
    one.generate_from_input(["a fox"])
    assert engines() == [second], "nothing is started for what is done already"


def test_services_are_asked_by_one_process_too(server, monkeypatch):
    from fastgen.dataflow.serving.api_vlm_serving_openai import APIVLMServing_openai

    serving = APIVLMServing_openai(server.openai_url, model_name="a-vlm")
    for text in ("What?", "Which?"):
        assert serving.chat_with_one_image("image.png", text)
        now = engines()
    [engine] = now
    monkeypatch.setenv("DF_API_KEY", "another")  # as a new serving would have it
    other = APIVLMServing_openai(server.openai_url, model_name="a-vlm")
    assert other.chat_with_one_image("image.png", "What?") == "" and other.failures[0]["kind"] == "unauthorized"
    assert engine in engines() and len(engines()) == 2, "never with the key of an earlier call"


def test_pictures_of_a_kept_engine_are_those_of_a_new_one(here):
    def draw(place, prompt, steps, side):
        serving = LocalImageGenServing(
            ImageIO(place),
            "tiny",
            gpus="cpu",
            diffuser_num_inference_steps=steps,
            diffuser_image_height=side,
            diffuser_image_width=side,
            seed=3,
        )
        return serving, Image.open(serving.generate_from_input([prompt])[prompt][0])

    first, _ = draw("./one", "a red circle", 1, 64)
    [engine] = engines()
    second, kept = draw("./two", "a blue square", 2, 96)
    assert engines() == [engine] and kept.size == (96, 96)
    first.cleanup()
    second.cleanup()
    assert not engines()
    _, new = draw("./three", "a blue square", 2, 96)
    assert kept.tobytes() == new.tobytes()


SCRIPT = """
import sys
import psutil
from fastgen.dataflow.io import ImageIO
from fastgen.dataflow.serving.local_image_gen_serving import LocalImageGenServing
size = {"diffuser_image_height": 64, "diffuser_image_width": 64}
serving = LocalImageGenServing(ImageIO("./p"), "fake", backend="fake", gpus="cpu", **size)
serving.generate_from_input(["a fox"])
print(*[p.pid for p in psutil.Process().children()], flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_none_outlives_the_program(end):
    program = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, end], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        engine = psutil.Process(int(program.stdout.readline()))
        if end == "kill":
            program.kill()
        else:
            program.stdin.write("\n")
            program.stdin.flush()
        assert program.wait(PATIENCE_S) == (-9 if end == "kill" else 0)
        _, alive = psutil.wait_procs([engine], timeout=PATIENCE_S)
        assert not alive or ended(engine)
    finally:
        program.kill()
        program.communicate()


@pytest.mark.slow
@pytest.mark.vllm
def test_the_real_vllm_stays_between_calls(here, environment):
    serving = LocalModelVLMServing_vllm("tiny", gpus="cpu", vllm_temperature=0.0, vllm_max_tokens=64)
    texts, families = [], []
    for question in ("What?", "Where?", "Describe it."):
        texts += serving.generate_from_input([question], image_inputs=[["image.png"]])
        families.append({p.pid for p in psutil.Process().children(recursive=True)})
    assert all(texts) and len(families[0]) >= 3 and families[0] == families[1] == families[2]
    programs = {p: command_line(p) for p in psutil.Process().children(recursive=True)}
    server = next(p for p, line in programs.items() if "--port" in line and "supervisor" not in " ".join(line))
    server.kill()
    assert serving.generate_from_input(["Which?"], image_inputs=[["human_inpaint.jpg"]])[0], serving.failures
    assert families[0] != (now := {p.pid for p in psutil.Process().children(recursive=True)})
    serving.cleanup()
    assert not [pid for pid in now | families[0] if not ended(pid)]
