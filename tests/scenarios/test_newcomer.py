"""The first hour of somebody new to fastgen: what once made people stumble, one test for each, by its own example.

Commands run in this process, on the fake backend.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import fastgen
from fastgen.backends.remote.failure_words import told as told_of
from fastgen.bench import noise, report
from fastgen.cli.main import app
from fastgen.config import downloads
from fastgen.dataflow.io import ImageIO
from fastgen.dataflow.serving.local_image_gen_serving import LocalImageGenServing
from fastgen.output.journal import with_checksum
from fastgen.scheduler import run as running
from fastgen.types import Failed
from tests.bench.test_noise import arm, bench
from tests.conftest import read_lines
from tests.simulator import Simulator

ROOT = Path(fastgen.__file__).parents[1]
FAKE = {"backend": "fake", "gpus": "cpu"}
ON_FAKE = ("--backend", "fake", "--gpus", "cpu")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The current folder, with three pictures in pics/."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("OPENAI_API_KEY", "DF_API_KEY", "OPENAI_BASE_URL", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    Path("pics").mkdir()
    for name in ("circle", "square", "star"):
        Image.new("RGB", (64, 64), "red").save(f"pics/{name}.png")
    return tmp_path


@pytest.fixture(autouse=True)
def handlers():
    """Those of signals, which a command changes, are set back."""
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(name) for name in names]
    yield
    for name, handler in zip(names, before, strict=True):
        signal.signal(name, handler)


@pytest.fixture(scope="module")
def session():
    with fastgen.Session() as session:
        yield session


def fg(*arguments: object, given: bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), input=given, catch_exceptions=False)


def rows_of(*rows: dict, name: str = "rows.jsonl") -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def test_1_a_gpu_user_is_told_how_to_start():
    pages = (ROOT / "README.md").read_text() + (ROOT / "docs" / "gpu_quickstart.md").read_text()
    for words in ("gated", "licence", "HF_TOKEN", "hf auth login", "driver", "CUDA", "--index-url", "fastgen doctor"):
        assert words in pages, words
    for model in ("FLUX.1", "FLUX.2-klein-4B", "Z-Image-Turbo"):
        assert re.search(rf"(?m)^\| {re.escape(model)} \| [\d.]+ GiB \| \d+ GB and more \| \d+ GB \|$", pages), model
    for token, said in ((False, "there is no token: run 'hf auth login', or set HF_TOKEN"), (True, "there is a token")):
        with mock.patch.object(downloads, "has_token", lambda token=token: token):
            gated = str(downloads.of("black-forest-labs/FLUX.1-dev"))
        assert "its licence must be accepted at https://huggingface.co/black-forest-labs/FLUX.1-dev" in gated
        assert said in gated and re.search(r"FLUX.1-dev: 3\d\.\d GiB to .* are free", gated)


def test_2_a_dry_run_downloads_nothing(monkeypatch):
    def refuse(*_):
        raise AssertionError("a plan asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_HUB_CACHE", str(Path("hub").absolute()))
    given = rows_of({"prompt": "a fox"})
    for model, size in (("me/tinyhub", "a size that the hub alone knows"), ("flux-dev", "GiB to")):
        told = fg("t2i", given, "--model", model, "--gpus", "cpu", "--dry-run")
        assert told.exit_code == 0 and "1 row: " in told.stdout and size in told.stdout, told.output
    assert not Path("hub").exists()


def test_3_results_can_be_looked_at(session):
    list(session.generate(fastgen.resolve("t2i", rows_of({"prompt": "a fox"}), out="run", size="64x64", **FAKE)))
    told = fg("view", "run", "--export", "page")
    assert told.exit_code == 0, told.output
    assert Path("page/index.html").is_file() and any(
        "a fox" in path.read_text() for path in Path("page").rglob("*.js*")
    )
    assert [path.name for path in Path("run/images").iterdir()] == ["row-000001_0.png"], (
        "a name for a row without an id"
    )


def test_4_results_are_input_of_the_next_command(session):
    def run(task, given, out, **flags):
        settings = fastgen.resolve(task, given, out=out, **FAKE, **flags)
        assert [result.error for result in session.generate(settings)] == [None] * 3
        return f"{out}/results.jsonl"

    captions = run("caption", "pics", "cap")
    run("caption", captions, "again", output_key="second")
    drawn = run("t2i", captions, "drawn", prompt_key="caption", size="64x64")
    with pytest.raises(fastgen.SettingsError, match=r"is the folder of a run; give its rows, drawn/results\.jsonl"):
        fastgen.resolve("t2i", "drawn", **FAKE)
    edited = run("edit", drawn, "edited", prompt="make it night", size="64x64")
    run("caption", edited, "last", image_key="edited_images", output_key="third")


def test_5_the_tables_that_people_have_are_read(monkeypatch):
    prompts = ["a red circle", "a green star"]
    Path("p.txt").write_text("\n".join(prompts) + "\n")
    with open("p.csv", "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["caption", "mine"], *([prompt, "x,y"] for prompt in prompts)])
    rows_of(*({"text": prompt} for prompt in prompts), name="p.jsonl")
    Path("p.jsonl.gz").write_bytes(gzip.compress(Path("p.jsonl").read_bytes()))
    pyarrow.parquet.write_table(pyarrow.table({"prompt": prompts}), "p.parquet")
    for name in ("p.txt", "p.csv", "p.jsonl", "p.jsonl.gz", "p.parquet"):
        told = fg("t2i", name, *ON_FAKE, "--dry-run")
        assert told.exit_code == 0 and "2 rows: " in told.stdout and "0 bad" in told.stdout, (name, told.output)
    assert "2 rows: " in fg("t2i", "-", *ON_FAKE, "--dry-run", given=Path("p.jsonl").read_bytes()).stdout
    assert "1 row: " in fg("t2i", "a red circle", *ON_FAKE, "--dry-run").stdout
    night = ("--prompt", "make it night", *ON_FAKE, "--dry-run")
    for given, rows in (("pics", "3 rows"), ("pics/star.png", "1 row"), ("pics/s*.png", "2 rows")):
        told = fg("edit", given, *night)
        assert told.exit_code == 0 and f"{rows}: " in told.stdout and "0 bad" in told.stdout, told.output


def test_6_there_is_a_table_after_ctrl_c_and_after_a_stop(here):
    settings = fastgen.resolve(
        "t2i", rows_of(*({"prompt": f"{n}"} for n in range(9))), out="run", batch_size=1, size="64x64", **FAKE
    )
    run = running.Run(settings)
    for _ in run.results():
        run.interrupt()
    statuses = [row["fastgen"]["status"] for row in read_lines(here / "run/results.jsonl")]
    assert run.state == "interrupted" and "done" in statuses and "pending" in statuses and len(statuses) == 9
    rows = rows_of({"prompt": "a"}, {"prompt": "disk"})
    settings = fastgen.resolve("t2i", rows, out="stopped", batch_size=1, size="64x64", **FAKE)
    with pytest.raises(fastgen.DiskError):
        list(fastgen.generate(settings))
    assert fg("table", "stopped").exit_code == 0 and len(read_lines(here / "stopped/results.jsonl")) == 2


def test_7_python_gives_every_row_each_time(session, here):
    settings = fastgen.resolve("t2i", out="run", size="64x64", **FAKE)
    rows = [{"prompt": "a red circle", "mine": 1}, {"prompt": "refuse"}]
    for earlier in (False, True):
        done, failed = sorted(session.generate(settings, rows), key=lambda result: bool(result.error))
        assert done.row == rows[0] and done.images[0].size == (64, 64) and done.earlier is earlier
        assert failed.row == rows[1] and "refused" in failed.error

    async def main():
        return [result.row["prompt"] async for result in session.generate_async(settings, rows)]

    assert sorted(asyncio.run(main())) == ["a red circle", "refuse"]
    assert (Path(fastgen.__file__).parent / "py.typed").is_file() and fastgen.Failed.__doc__ and fastgen.Done.__doc__


def test_8_no_field_is_ignored_in_silence(session):
    foreign = {"prompt": "a", "num_inference_steps": 4, "guidance_scale": 3.0, "num_images_per_prompt": 2}
    given, events = rows_of(foreign, {"prompt": "b", "stpes": 4, "Size": "64x64"}), []
    settings = fastgen.resolve("t2i", given, out="run", size="64x64", **FAKE)
    results = session.generate(settings, emit=lambda event, **facts: events.append(facts.get("message", "")))
    done = next(result for result in results if result.row["prompt"] == "a")
    assert (done.params.steps, done.params.guidance, done.params.n) == (4, 3.0, 2)
    assert any("`stpes`" in said and "steps" in said for said in events), events
    assert any("`Size`" in said and "size" in said for said in events), events
    told = fg("t2i", given, *ON_FAKE, "--dry-run")
    assert "`stpes`" in told.stdout and "`Size`" in told.stdout
    told = fg("t2i", given, *ON_FAKE, "--dry-run", "--strict")
    assert told.exit_code == 2 and "--strict" in told.output


def test_9_progress_counts_earlier_rows_and_leaves_out_loading(session, monkeypatch):
    monkeypatch.setattr(running, "TICK_S", 0.0)
    flags = {"out": "run", "size": "64x64", "batch_size": 1, **FAKE}
    given = rows_of(*({"prompt": f"{n}"} for n in range(24)))
    assert len(list(session.generate(fastgen.resolve("t2i", given, limit=16, **flags)))) == 16
    seen = []
    settings = fastgen.resolve("t2i", given, **flags)
    list(fastgen.generate(settings, emit=lambda event, **facts: seen.append(facts) if event == "progress" else None))
    assert seen[0]["rows"] >= 16 and seen[0]["total"] == 24, "rows of earlier runs count from the start"
    assert seen[0]["images_per_second"] is None and seen[0]["eta_seconds"] is None, "nothing is guessed while it loads"
    assert {worker["lane"] for facts in seen for worker in facts["workers"]} == {"cpu"}
    assert all({"state", "bucket", "restarts"} <= worker.keys() for worker in seen[-1]["workers"])
    assert "cost_usd" in seen[-1] and any(facts["eta_seconds"] is not None for facts in seen)


def test_10_a_dry_run_estimates(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    given = rows_of({"prompt": "a"}, {"prompt": "b", "n": 3})
    paid = fg("t2i", given, "--backend", "openai", "--max-cost", "0.5", "--dry-run")
    assert paid.exit_code == 0 and re.search(r"cost: at most \d\.\d+ USD", paid.stdout), paid.output
    local = fg("t2i", given, "--model", "tiny", "--gpus", "cpu", "--size", "128x128", "--dry-run").stdout
    assert re.search(r"time: .*profile 'cpu-tiny'", local), local
    assert re.search(r"4 images, batch size 16 -> (1 batch|\d batches, so that nothing idles at the end)\n", local), (
        local
    )
    bad = fg("t2i", rows_of({"prompt": ""}, {"promt": "a"}), *ON_FAKE, "--dry-run")
    assert bad.exit_code == 3 and "2 bad" in bad.stdout


def test_11_output_is_a_dataset(session):
    datasets = pytest.importorskip("datasets")
    given = rows_of({"id": "circle", "prompt": "a circle"}, {"prompt": "refuse"}, {"prompt": "a star"})
    list(session.generate(fastgen.resolve("t2i", given, out="run", size="64x64", **FAKE)))
    rows_of({"id": "circle", "prompt": "a circle"}, {"prompt": "refuse"})  # one is taken out
    list(session.generate(fastgen.resolve("t2i", given, out="run", size="64x64", **FAKE)))
    assert fg("export", "run", "--to", "imagefolder", "-o", "data").exit_code == 0
    loaded = datasets.load_dataset("imagefolder", data_dir="data", split="train")
    assert [(row["image"].size, row["prompt"]) for row in loaded] == [((64, 64), "a circle")]


def test_12_other_settings_have_a_folder_of_their_own():
    given = rows_of({"prompt": "a"})

    def resolved(**more):
        return fastgen.resolve("t2i", given, model="tiny", gpus="cpu", **more)

    first = resolved()
    out = Path(first.run.out)  # as a run with results leaves it
    out.mkdir(parents=True)
    (out / "run.json").write_text(json.dumps({"fastgen": fastgen.__version__, "settings": first.fingerprint()}))
    (out / "journal.jsonl").write_bytes(with_checksum(b'{"status":"done","id":"a"}'))
    again, other = resolved(), resolved(quality="high")
    assert out.parts[-2:] == ("fastgen-runs", "t2i") and again.run.out == first.run.out
    assert other.run.out == f"{first.run.out}-2"
    assert "has a run with other settings" in other.run.notes[-1] and "taylorseer:0.2" in other.run.notes[-1]


def test_13_noise_is_not_told_as_a_fact(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    found = bench(arm("diffusers", 1, 1), arm("quantize 4bit", 0.33, 14.84), load=1.9)
    busy, spread = noise.warnings(found)
    assert "kept 1.9 of 2 processors busy" in busy and "quantize 4bit differ too much" in spread
    assert [row[2] for row in report.table_of(found)] == ["ratio", "1.00", "7.58 ?"]


def test_14_pipelines_show_how_far_they_are_and_end_without_a_traceback(capsys, here):
    size = {"diffuser_image_height": 64, "diffuser_image_width": 64}
    serving = LocalImageGenServing(ImageIO("./made"), "fake", None, Image_gen_task="text2image", **size, **FAKE)
    assert serving.generate_from_input(["a fox"])
    serving.cleanup()
    assert "t2i: 1 of 1 rows (100%)" in capsys.readouterr().err
    program = ROOT / "fastgen/dataflow/statics/pipelines/gpu_pipelines/text_to_image_generation_pipeline.py"
    command = [sys.executable, program, "--model_name", "black-forest-labs/FLUX.1-dev", "--cache_path", here / "c"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "error: " in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_15_errors_of_services_name_the_row_the_host_and_the_fix(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    with Simulator() as server:
        service = ("--backend", "openai", "--base-url", server.openai_url)
        given = rows_of({"prompt": "fault:unauthorized a"}, {"prompt": "fault:unauthorized b"})
        told = fg("t2i", given, *service, "-o", "key")
        assert told.exit_code in (1, 3) and "check the key in OPENAI_API_KEY" in told.output, told.output
        assert "the same command" in told.output and "fix them" not in told.output
    quiet = fg("t2i", rows_of({"prompt": "a"}, {"prompt": ""}), *ON_FAKE, "-q", "-o", "quiet")
    assert quiet.exit_code == 3 and "row 2, field prompt" in quiet.output, "failed rows are told even so"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
        settings = fastgen.resolve("t2i", backend="openai", base_url=f"http://{host}/v1", out="none")
        message = told_of(Failed("a", "unavailable", "no answer: [Errno 111] Connection refused"), settings, 1)
    assert message == f"row 1, {host}: no answer: Connection refused; check --base-url and that the service runs"
