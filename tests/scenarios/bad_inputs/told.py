"""Runs bad inputs and collects what is said. Rows go through whole runs, with a good row before each; commands and
calls run in this process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fastgen
from fastgen.cli.main import app
from tests.scenarios.bad_inputs import calls, commands, edits, run_folders, service_rows, texts
from tests.scenarios.bad_inputs.case import Call, Command, Row, Told
from tests.scenarios.bad_inputs.files import write_files
from tests.simulator import Simulator

VARIABLES = (
    "OPENAI_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "VLLM_API_KEY",
    "DF_API_KEY",
    "DF_BASE_URL",
    "OPENAI_BASE_URL",
    "GOOGLE_GEMINI_BASE_URL",
    "FASTGEN_SERVICES",
)
NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}


@dataclass
class Room:
    """The bad inputs of one kind and what was said of them."""

    title: str
    cases: list
    told: list[Told]
    rows: list[dict]
    """Of the table of a run: a good row before each bad one."""
    output: str = ""
    """What the command of a run said."""
    out: Path = Path()


@contextmanager
def workshop(folder: Path) -> Iterator[Path]:
    """The current folder, with all files in it, in an environment without keys and GPUs."""
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        for name, value in NO_GPU.items():
            patch.setenv(name, value)
        run_folders.make_folders(folder)
        yield folder


def everything(folder: Path) -> Iterator[Room]:
    """All rooms, in the order of the page."""
    yield edit_rows(folder)
    yield run_rows("Rows of t2i", "t2i", texts.GOOD_T2I | {"id": "good"}, texts.T2I, backend="fake", gpus="cpu")
    yield run_rows("Rows of captions", "caption", texts.GOOD_CAPTION, texts.CAPTION, backend="fake", gpus="cpu")
    yield python_rows(folder)
    yield from service_rooms(folder)
    for title, cases in commands.ROOMS.items():
        yield Room(title, cases, [told_by_command(case) for case in cases], [])
    yield Room("Run folders", run_folders.COMMANDS, [told_by_command(case) for case in run_folders.COMMANDS], [])
    for title, called in (("Arguments from Python", calls.FLAGS), ("Calls from Python", calls.CALLS)):
        yield Room(title, called, [told_by_call(case) for case in called], [])


def edit_rows(folder: Path) -> Room:
    """By the command and the real engine."""
    lines = alternating(edits.GOOD, edits.CASES)
    (folder / "edits.jsonl").write_bytes(b"".join(lines))
    flags = ["--model", "tiny", "--gpus", "cpu", "--steps", "1"]
    command = ["-m", "fastgen", "edit", "edits.jsonl", "-o", "edits", *flags]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 3, done.stderr[-3000:]
    return _of_table("Rows of edits", edits.CASES, folder / "edits", done.stderr)


def run_rows(title: str, task: str, good: dict, cases: list[Row], **flags: object) -> Room:
    name = title.replace(" ", "-").lower()
    Path(f"{name}.jsonl").write_bytes(b"".join(alternating(good, cases)))
    settings = fastgen.resolve(task, f"{name}.jsonl", out=name, **flags)
    list(fastgen.generate(settings))
    return _of_table(title, cases, Path(settings.run.out))


def python_rows(folder: Path) -> Room:
    cases = calls.made(folder)
    rows = [row for case in cases for row in (edits.GOOD | {"image": str(folder / "good.png")}, case.row)]
    settings = fastgen.resolve("edit", out=folder / "python-rows", backend="fake", gpus="cpu")
    list(fastgen.generate(settings, rows))
    return _of_table("Rows from Python", cases, Path(settings.run.out))


def service_rooms(folder: Path) -> Iterator[Room]:
    with Simulator() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "test-key")
        patch.setenv("GEMINI_API_KEY", "test-key")
        good = service_rows.GOOD
        for title, task, backend, url, rows, first in (
            ("Rows for OpenAI's format", "t2i", "openai", server.openai_url, service_rows.OPENAI, good),
            ("Rows for Gemini's format", "t2i", "gemini", server.gemini_url, service_rows.GEMINI, good),
            ("Edits by Gemini's format", "edit", "gemini", server.gemini_url, service_rows.GEMINI_EDITS, edits.GOOD),
        ):
            yield run_rows(title, task, first, rows, backend=backend, base_url=url)
    with service_rows.gateway(folder / "good.png") as url:
        cases = service_rows.answers(url)
        yield run_rows("Answers of a gateway", "t2i", good, cases, backend="openai", base_url=f"{url}/v1", model="any")


def alternating(good: dict, cases: list[Row]) -> Iterator[bytes]:
    for case in cases:
        yield json.dumps(good).encode() + b"\n"
        yield (case.row if isinstance(case.row, bytes) else json.dumps(case.row).encode()) + b"\n"


def _of_table(title: str, cases: list[Row], out: Path, output: str = "") -> Room:
    lines = (out / "results.jsonl").read_bytes().split(b"\n")[:-1]
    rows = [json.loads(line, parse_int=str) for line in lines]  # one of them has more digits than Python reads
    assert len(rows) == 2 * len(cases)
    told = []
    for case, row in zip(cases, rows[1::2], strict=True):
        about = row["fastgen"]
        message = about.get("error", {}).get("message", "") or " ".join(about.get("warnings", []))
        where = f"row, field `{case.field}`" if case.field else "row"
        told.append(Told(case.kind, f"warning of a {where}" if case.done else where, message, 3))
    return Room(title, cases, told, rows, output, out)


def told_by_command(case: Command) -> Told:
    line = case.line if "-o" in case.line or case.line[0] not in ("t2i", "caption") else (*case.line, "-o", "new")
    result = CliRunner().invoke(app, line, env=case.environment)
    assert isinstance(result.exception, SystemExit), (case.kind, result.exception, result.output[-500:])
    errors = [one for one in result.stderr.splitlines() if one.lower().startswith("error: ")]
    assert len(errors) == 1, (case.kind, result.exit_code, result.stderr[-500:])
    return Told(case.kind, f"the command, exit code {result.exit_code}", errors[0][len("error: ") :], result.exit_code)


def told_by_call(case: Call) -> Told:
    try:
        found = case.call()
    except fastgen.FastgenError as error:
        return Told(case.kind, f"the call, {type(error).__name__}", str(error), error.exit_code)
    raise AssertionError(f"{case.kind}: nothing was raised: {found!r:.200}")
