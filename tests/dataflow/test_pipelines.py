"""The documented pipelines as programs: `fastgen init`, the scripts that it writes, and `fastgen dataflow ...`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from PIL import Image

import fastgen
from tests.dataflow.conftest import made_in

PLACES = ("", "dataflow/statics/", "dataflow/statics/pipelines/")
PROGRAMS = {"t2i": ("text2image_api", "images", 2), "edit": ("image_edit_api", "output_image", 4)}


@pytest.fixture
def folder(here, cli):
    """A working folder, made by the command; the current one."""
    result = cli("init", here)
    assert result.returncode == 0, result.stderr
    return here


def read(path) -> list[dict]:
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def test_init_leaves_what_is_there(folder, cli):
    path = folder / "README.md"
    path.write_text("mine")
    assert "0 new files" in cli("init", folder).stdout and path.read_text() == "mine"
    scripts = {place: sorted(p.name for p in folder.glob(f"{place}*_pipelines/*.py")) for place in PLACES}
    assert len(scripts[""]) == 8 and all(names == scripts[""] for names in scripts.values())
    assert all("fastgen.dataflow" in p.read_text() for p in folder.glob("*_pipelines/*.py"))


def test_the_documents_command_fills_the_current_folder(here, cli):
    entry = tomllib.loads(Path(fastgen.__file__).parents[1].joinpath("pyproject.toml").read_text())
    module, _, name = entry["project"]["scripts"]["dataflowmm"].partition(":")
    call = [sys.executable, "-c", f"from {module} import {name}; {name}()"]
    done = subprocess.run([*call, "init"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "new files in this folder" in done.stdout, done.stderr
    assert "0 new files" in cli("init").stdout, "fastgen init without DIR makes the same"
    assert subprocess.run([*call, "init", "x"], capture_output=True, timeout=60).returncode == 2
    for name in ("data/image_caption", "data/image_vqa", "example_data/image_caption", "example_data/image_vqa"):
        for row in json.loads((here / name / "sample_data.json").read_text()):
            assert row["image"][0].startswith(f"./{name}/") and Image.open(row["image"][0]).size


@pytest.mark.parametrize(("task", "format"), [("t2i", "openai"), ("edit", "gemini")])
def test_pictures_by_a_service(server, folder, cli, task, format):
    place, key, count = PROGRAMS[task]
    url, model = (
        (server.openai_url, "gpt-image-2") if format == "openai" else (server.gemini_url, "gemini-nano-banana-2.1")
    )
    flags = ["--api_format", format, "--model_name", model, "--batch_size", "2"]
    result = cli("dataflow", f"{task}-api", *flags, DF_BASE_URL=url)
    assert result.returncode == 0, result.stderr
    rows = read(folder / "cache_local" / place / "dataflow_cache_step_step1.jsonl")
    name = "sample{0}_condition0" if task == "t2i" else "sample_{0}"
    for i, row in enumerate(rows):
        turns = len(row["conversations"]) if task == "edit" else 1
        names = [f"{name.format(i)}_{turn}.png" for turn in range(turns)]
        assert row[key] == [f"./cache_local/{place}/{name.format(i)}/{file}" for file in names]
        assert all(Image.open(path).size for path in row[key])
    assert len(rows) == count


def test_captions_by_a_service_as_a_script(server, folder):
    script = folder / "api_pipelines" / "image_caption.py"
    command = [sys.executable, script, "--model_name", "a-vlm", "--first_entry_file_name", "rows.json"]
    rows = [
        {"image": ["image.png"], "conversation": [{"from": "human", "value": text}]}
        for text in ("What?", "fault:refusal_text")
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    result = subprocess.run(
        command, env={**os.environ, "DF_BASE_URL": server.openai_url}, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 3 and "sample_1" in result.stderr, result.stderr  # 31: a partial failure is told
    first, second = read(folder / "cache_local" / "caption_step1.json")
    assert list(first) == ["image", "conversation", "caption"] and first["caption"] and second["caption"] == ""
    assert any(text.startswith("You are a image caption generator.") for r in server.requests for text in r.texts)


def test_pictures_by_a_model_here_as_a_script_and_again(folder):
    command = [sys.executable, folder / "gpu_pipelines" / "text_to_image_generation_pipeline.py"]
    command += ["--model_name", "tiny", "--steps", "1", "--height", "64", "--width", "64"]
    tables = []
    for _ in range(2):
        result = subprocess.run(
            command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, timeout=60
        )
        assert result.returncode == 0, result.stderr
        tables.append(read(folder / "cache_local" / "text2image_local" / "dataflow_cache_step_step1.jsonl"))
    assert tables[0] == tables[1] and len(made_in(folder)) == 2
    assert Image.open(tables[0][0]["images"][0]).size == (64, 64)


DOCUMENTED = [
    (
        "api_pipelines/image_caption.py --images_file data/image_caption/sample_data.json",
        "caption_step1.json",
        "caption",
    ),
    (
        "api_pipelines/image_caption.py --images_file data/image_caption/sample_data.json --cache_path ./cache_local "
        "--file_name_prefix other --cache_type jsonl",
        "other_step1.jsonl",
        "caption",
    ),
    ("api_pipelines/image_vqa.py", "qa_step1.json", "vqa"),
    (
        "dataflow/statics/pipelines/api_pipelines/text_to_image_generation_api_pipeline.py --api_format openai "
        "--first_entry_file_name example_data/image_gen/text2image/prompts.jsonl",
        "text2image_api/dataflow_cache_step_step1.jsonl",
        "images",
    ),
    (
        "dataflow/statics/api_pipelines/image_editing_api_pipeline.py --api_format openai "
        "--first_entry_file_name example_data/image_gen/image_edit/prompts_api.jsonl",
        "image_edit_api/dataflow_cache_step_step1.jsonl",
        "output_image",
    ),
]


def test_the_documents_commands_as_typed(server, folder):
    keyed = {**os.environ, "DF_BASE_URL": server.openai_url}
    for words, table, column in DOCUMENTED:
        model = "gpt-image-2" if column in ("images", "output_image") else "a-vlm"
        command = [sys.executable, *words.split(), "--model_name", model]
        result = subprocess.run(command, env=keyed, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0 and "Traceback" not in result.stderr, (words, result.stderr)
        assert all(row[column] for row in read(folder / "cache_local" / table)), words


def test_without_a_gpu_a_script_finds_the_embedded_model_itself(folder):
    script = "dataflow/statics/gpu_pipelines/image_editing_pipeline.py"
    command = [sys.executable, script, "--steps", "1", "--height", "64", "--width", "64"]
    bare = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, env=bare, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and "the model is tiny" in result.stderr, result.stderr
    rows = read(folder / "cache_local" / "image_edit_local" / "dataflow_cache_step_step1.jsonl")
    assert all(Image.open(row["output_image"][0]).size == (64, 64) for row in rows)


FAULTS = {
    "no rows": (["api_pipelines/image_caption.py", "--images_file", "none.json"], {}, 2, "none.json: no such file"),
    "no server": (["api_pipelines/image_caption.py"], {"DF_BASE_URL": "http://127.0.0.1:9/v1"}, 3, "unavailable"),
    "no vLLM": (["gpu_pipelines/image2caption.py"], {"FASTGEN_HOME": "none", "PATH": ""}, 2, "fastgen setup vllm"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_script_cannot_do_it_says_in_a_line(folder, fault):
    words, more, code, said = FAULTS[fault]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **more}
    result = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == code and said in result.stderr and "Traceback" not in result.stderr, result.stderr


@pytest.mark.parametrize("program", ["t2i-api", "edit-api", "caption-api"])
def test_without_a_key_it_ends_with_two(cli, program):
    result = cli("dataflow", program, DF_API_KEY="")
    assert result.returncode == 2 and "Environment variable DF_API_KEY is not set" in result.stderr


def test_settings_that_cannot_be_end_with_two(cli):
    result = cli("dataflow", "t2i-gpu", "--model_name", "./nowhere")
    assert (
        result.returncode == 2
        and result.stderr.startswith("error: hf_model_name_or_path ./nowhere")
        and "Traceback" not in result.stderr
    )


KILLED = """
from fastgen.dataflow.io import ImageIO
from fastgen.dataflow.operators.core_vision import PromptedImageGenerator
from fastgen.dataflow.serving.local_image_gen_serving import LocalImageGenServing
from fastgen.dataflow.utils.storage import FileStorage

serving = LocalImageGenServing(
    ImageIO("./cache/pictures"), "fake", diffuser_image_height=64, diffuser_image_width=64,
    backend="fake", gpus="cpu", batch_size=1
)
storage = FileStorage("rows.jsonl", "./cache", "step", "jsonl")
PromptedImageGenerator(serving, save_interval=1).run(storage.step(), "conversations")
"""


def test_a_pipeline_that_was_killed_goes_on_where_it_was(here):
    rows = [{"conversations": [{"role": "user", "content": f"slow:0.1 number {i}"}]} for i in range(20)]
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    process = subprocess.Popen([sys.executable, "-c", KILLED])
    deadline = time.monotonic() + 30
    while not 3 <= len(list((here / "cache").glob("pictures/sample*"))) < 20:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = made_in(here)
    assert 3 <= len(before) < 20
    subprocess.run([sys.executable, "-c", KILLED], check=True, timeout=60)
    made = made_in(here)
    assert made[: len(before)] == before and len(made) == len(set(made)) == 20
    table = read(here / "cache" / "step_step1.jsonl")
    assert [re.findall(r"\d+", row["images"][0].split("/")[-1]) for row in table] == [
        [str(i), "0", "0"] for i in range(20)
    ]
    assert not list(here.rglob("*.tmp"))


PAID = {
    "pictures": """
from fastgen.dataflow.io import ImageIO
from fastgen.dataflow.operators.core_vision import PromptedImageGenerator
from fastgen.dataflow.serving.api_image_gen_serving import APIImageGenServing
from fastgen.dataflow.utils.storage import FileStorage

serving = APIImageGenServing({url!r}, ImageIO("./cache/pictures"), batch_size=4, model_name="gpt-image-2")
storage = FileStorage("rows.jsonl", "./cache", "step", "jsonl")
PromptedImageGenerator(serving, save_interval=10).run(storage.step(), "conversations")
""",
    "captions": """
from fastgen.dataflow.operators.core_vision import PromptedVQAGenerator
from fastgen.dataflow.serving.api_vlm_serving_openai import APIVLMServing_openai
from fastgen.dataflow.utils.storage import FileStorage

serving = APIVLMServing_openai({url!r}, model_name="a-vlm", max_workers=4)
storage = FileStorage("rows.jsonl", "./cache", "step", "jsonl")
PromptedVQAGenerator(serving, save_interval=10).run(storage.step(), "conversations", input_image_key="image")
""",
}


@pytest.mark.parametrize("what", PAID)
def test_a_kill_costs_as_many_requests_as_are_under_way_and_leaves_a_table(server, here, what):
    server.latency_s = 0.05
    rows = [{"image": "image.png", "conversations": [{"role": "user", "content": f"number {i}"}]} for i in range(40)]
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    program = [sys.executable, "-c", PAID[what].format(url=server.openai_url)]
    process = subprocess.Popen(program)
    deadline = time.monotonic() + 60
    while sum(request.status == 200 for request in server.requests) < 25:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    column = {"pictures": "images", "captions": "answer"}[what]
    assert len([row for row in read(here / "cache" / "step_step1.jsonl") if row.get(column)]) >= 10
    subprocess.run(program, check=True, timeout=60)
    asked = [request.prompt for request in server.requests]
    assert len(set(asked)) == 40 and len(asked) <= 44
    assert all(row[column] for row in read(here / "cache" / "step_step1.jsonl"))


@pytest.mark.slow
@pytest.mark.vllm
def test_captions_by_the_real_vllm(folder, cli, environment):
    result = cli("dataflow", "caption-gpu", "--model_name", "tiny", CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 0, result.stderr
    assert all(row["caption"] for row in read(folder / "cache_local" / "caption_step1.json"))
