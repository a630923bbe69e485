"""Programs as users of DataFlow-MM write them, changed by the documented command alone, which replaces the imports.

They call servings, operators and storage as DataFlow-MM's pages and its own pipelines do. Besides the imports only the
address of the service and the name of the model are others here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import fastgen
from tests.dataflow.conftest import KEY
from tests.simulator import Simulator, gemini_reading

PROGRAMS = Path(__file__).parent / "programs"
PAGE = Path(fastgen.__file__).parents[1] / "docs" / "dataflow.md"
MODEL = "gpt-5-nano-2025-08-07"
NANO_BANANA = "gemini-2.5-flash-image-preview"
DEFAULT = "gemini-3-pro-image-preview"
"""What the pages' programs ask for if nothing else is said. Google no longer has it; another service may."""


@pytest.fixture
def folder(here, cli):
    """A working folder as `fastgen init` makes it; the current one."""
    assert cli("init").returncode == 0
    return here


@pytest.fixture
def service(monkeypatch):
    """A service that still has the pages' model."""
    monkeypatch.setitem(gemini_reading.MODELS, DEFAULT, gemini_reading.MODELS["gemini-3-pro-image"])
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def change(folder):
    """change(program, old=new, ...) -> the program, after the command of our page."""
    (command,) = re.findall(r"^ +(sed .*) my_pipeline\.py$", PAGE.read_text("utf-8"), re.MULTILINE)

    def change(name: str, **others: str) -> str:
        text = (PROGRAMS / f"{name}.py").read_text("utf-8")
        for constant, value in others.items():
            text, count = re.subn(rf'^{constant} = ".*"$', f"{constant} = {value!r}", text, flags=re.MULTILINE)
            assert count == 1, constant
        (folder / "my_pipeline.py").write_text(text, "utf-8")
        subprocess.run([*shlex.split(command), "my_pipeline.py"], check=True)
        return "my_pipeline.py"

    return change


def run(*command: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def read(path: str) -> list[dict]:
    text = Path(path).read_text("utf-8")
    return json.loads(text) if path.endswith(".json") else [json.loads(line) for line in text.splitlines()]


def rows_of(path: str) -> list[dict]:
    return [{name: value for name, value in row.items() if value not in ([""], [])} for row in read(path)]


def check(done: subprocess.CompletedProcess, table: str, rows: str, column: str, size=None) -> list[dict]:
    """Exit code 0; a row for each of the input, unchanged, with a file or a text in its column."""
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    written = read(table)
    assert [{name: row[name] for name in row if name != column} for row in written] == rows_of(rows)
    for row in written:
        assert row[column]
        for path in row[column] if isinstance(row[column], list) else ():
            assert Image.open(path).size == (size or Image.open(path).size)
    return written


T2I_ROWS = "example_data/image_gen/text2image/prompts.jsonl"
EDIT_ROWS = "example_data/image_gen/image_edit/prompts_api.jsonl"
FLAGS = {
    "openai": ["--api_format", "openai", "--model_name", "gpt-image-2", "--batch_size", "2"],
    "gemini": ["--api_format", "gemini", "--model_name", "gemini-2.5-flash-image"],
    "the defaults": [],
}


@pytest.mark.parametrize("format", FLAGS)
def test_images_by_a_service(service, change, format):
    url = service.openai_url if format == "openai" else service.gemini_url
    done = run(change("t2i_api"), *FLAGS[format], DF_BASE_URL=url)
    written = check(done, "cache_local/text2image_api/dataflow_cache_step_step1.jsonl", T2I_ROWS, "images")
    place = "./cache_local/text2image_api/sample{0}_condition0/sample{0}_condition0_0.png"
    assert [row["images"] for row in written] == [[place.format(i)] for i in range(len(written))]
    assert len(service.requests) == len(written)


@pytest.mark.parametrize("format", FLAGS)
def test_edits_by_a_service(service, change, format):
    url = service.openai_url if format == "openai" else service.gemini_url
    done = run(change("edit_api"), *FLAGS[format], DF_BASE_URL=url)
    check(done, "cache_local/image_edit_api/dataflow_cache_step_step1.jsonl", EDIT_ROWS, "output_image")
    assert max(len(request.images) for request in service.requests) == 2


def test_a_program_without_a_key_says_so(change):
    done = subprocess.run(
        [sys.executable, change("t2i_api")],
        env={name: value for name, value in os.environ.items() if name != "DF_API_KEY"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode and "DF_API_KEY" in done.stderr.splitlines()[-1]


@pytest.fixture
def chats():
    """A server that takes the key that the pages write into their programs."""
    with Simulator(models={MODEL}, keys={KEY, "sk-xxx"}) as simulator:
        yield simulator


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_captions_by_a_service(chats, change, folder, kind):
    rows = "./example_data/image_caption/sample_data.json"
    if kind == "jsonl":
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in read(rows)]
        rows = "rows.jsonl"
        Path(rows).write_text("".join(lines), "utf-8")
    program = change("caption_api", API_URL=chats.openai_url, ROWS=rows, CACHE_TYPE=kind)
    check(run(program), f"cache_local/caption_step1.{kind}", rows, "caption")
    assert all("image caption generator" in request.texts[0] for request in chats.requests)


def test_questions_and_answers_in_two_steps(chats, change):
    done = run(change("vqa_api", API_URL=chats.openai_url))
    check(done, "cache_local/qa_step1.json", "example_data/image_vqa/sample_data.json", "question")
    asked = check(done, "cache_local/qa_step2.json", "cache_local/qa_step1.json", "answer")
    second = chats.requests[len(asked) :]
    assert sorted(request.texts[-1] for request in second) == sorted(row["question"] for row in asked)


@pytest.mark.parametrize("form", ["markdown", "link", "images", "parts"])
def test_nano_banana_behind_a_gateway_that_only_chats(change, here, form):
    turns = [{"content": text, "role": "user"} for text in ("Change the vase to red.", "Now to blue.")]
    rows = [
        {"conversations": turns[:1], "images": ["image.png"], "edited_images": [""]},
        {"conversations": turns[:1], "images": ["image.png", "human_inpaint.jpg"], "edited_images": [""]},
        {"conversations": turns, "images": "human_inpaint.jpg"},
    ]
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Simulator(draws=form, streams_only=True, models={NANO_BANANA}) as gateway:
        done = run(change("nano_banana", API_URL=gateway.openai_url))
        written = check(done, "cache_local/nano_banana_step1.jsonl", "rows.jsonl", "edited_images")
        place = "./cache_local/nano_banana/sample_{0}/sample_{0}_0.png"
        assert [row["edited_images"] for row in written] == [[place.format(i)] for i in range(3)]
        drawn = [request for request in gateway.requests if request.status == 200]
        assert len(drawn) == 4 and all(request.operation == "chat" and request.params["stream"] for request in drawn)


def test_images_by_the_embedded_model(change):
    done = run(change("t2i_gpu", MODEL="tiny"))
    check(done, "cache_local/text2image_local/dataflow_cache_step_step1.jsonl", T2I_ROWS, "images", (96, 64))


def test_edits_by_the_embedded_model(change):
    done = run(change("edit_gpu", MODEL="tiny"))
    rows = "example_data/image_gen/image_edit/prompts_local.jsonl"
    check(done, "cache_local/image_edit_local/dataflow_cache_step_step1.jsonl", rows, "output_image")


@pytest.mark.slow
@pytest.mark.vllm
def test_captions_and_answers_by_the_real_vllm(change, environment):
    done = run(change("caption_gpu", MODEL="tiny"))
    check(done, "cache_local/caption_step1.json", "example_data/image_caption/sample_data.json", "caption")
    check(done, "cache_local/qa_step1.json", "example_data/image_vqa/sample_data.json", "vqa")


PIPELINES = "dataflow/statics/pipelines/"
AS_TYPED = {
    f"{PIPELINES}api_pipelines/text_to_image_generation_api_pipeline.py": ("text2image_api", "images"),
    "dataflow/statics/api_pipelines/text_to_image_generation_api_pipeline.py": ("text2image_api", "images"),
    f"{PIPELINES}api_pipelines/image_editing_api_pipeline.py": ("image_edit_api", "output_image"),
    f"dataflow/statics/gpu_pipelines/text_to_image_generation_pipeline.py --first_entry_file_name {T2I_ROWS}": (
        "text2image_local",
        "images",
    ),
}


@pytest.mark.parametrize("command", AS_TYPED)
def test_the_documents_commands_without_any_other_flag(service, folder, command):
    """With the model and the format that they name themselves: Gemini's, or, without a GPU, the embedded one."""
    place, column = AS_TYPED[command]
    done = run(*command.split(), DF_BASE_URL=service.gemini_url)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert all(row[column] for row in read(f"cache_local/{place}/dataflow_cache_step_step1.jsonl"))
