"""The results of a bench as bench.json, as bench.md and as a table on the screen: the same figures three times."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import fastgen
from fastgen.bench import noise
from fastgen.bench.measure import Measurement
from fastgen.config.model_cards import TINY, TINY_VLM
from fastgen.config.settings import Settings

LIBRARIES = ("torch", "diffusers", "transformers", "torchao", "bitsandbytes")


def about(settings: Settings, command: list[str], measurement: Measurement, peak: tuple[float, str]) -> dict:
    """Where the figures come from, so that somebody else can reproduce them."""
    device, work = settings.placement.devices[0], measurement.work
    how = {
        "steps": settings.image.steps,
        "guidance": settings.image.guidance,
        "size": "x".join(map(str, work.size)),
        "max_sequence_length": settings.engine.max_sequence_length,
        "batch_size": settings.batch_for(work.size[0] * work.size[1]),
    }
    return {
        "task": settings.task,
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": shlex.join(command),
        "hardware": device.gpu.name if device.gpu else f"{device.threads} threads of {_cpu()}",
        "memory_gib": device.gpu.memory_gib if device.gpu else None,
        "versions": {"fastgen": fastgen.__version__, "python": platform.python_version(), **_versions()},
        "model": settings.model.name,
        "weights": weights(settings),
        "dtype": settings.engine.dtype,
        **(how if settings.task != "caption" else {}),
        "profile": settings.placement.profile.name,
        "rows": measurement.rows,
        "rounds": measurement.rounds,
        "interleaved": measurement.interleaved,
        "peak_flops": round(peak[0]) or None,
        "peak_flops_source": peak[1],
        "load_average": os.getloadavg()[0],
    }


def weights(settings: Settings) -> str:
    if settings.model.synthetic:
        return "random: the figures are about speed, not about images"
    return (
        "embedded, trained on scenes of flat shapes"
        if settings.model.path in (str(TINY), str(TINY_VLM))
        else "as given"
    )


def rerun(about: dict, name: str, out: str) -> str:
    """The command that measures one arm again, with the same number of rows and rounds, into another folder."""
    words = shlex.split(about["command"])
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in ("--only", "--rows", "--rounds", "-o", "--out", "--compare"):
            skip = True
        elif not word.startswith(("--only=", "--rows=", "--rounds=", "--out=", "--compare=")) and word != "--tune":
            kept.append(word)
    if about["task"] not in kept:
        kept.insert(2, about["task"])
    counts = ["--rows", str(about["rows"]), "--rounds", str(about["rounds"])]
    return shlex.join([*kept, "--only", name, *counts, "-o", f"{out}/again"])


def write_json(path: Path, found: dict) -> None:
    """Infinity, the PSNR of equal images, is written as a text, because JSON has no number for it."""
    path.write_text(json.dumps(_finite(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return "inf" if isinstance(value, float) and math.isinf(value) else value


HEAD = (
    "",
    "per second",
    "ratio",
    "least-most",
    "first, s",
    "GiB",
    "of peak",
    "PSNR",
    "SSIM",
    "same text",
    "right",
    "fewer blocks",
    "recompiles",
)


def table_of(found: dict) -> list[tuple[str, ...]]:
    """The header and one row per arm, without empty columns and without arms that did not run."""
    on_gpu = found["about"]["memory_gib"] is not None
    table: list[tuple[str, ...]] = []
    for arm in found["arms"]:
        if "ratio" not in arm:
            continue
        memory, score = arm["peak_memory_gib"], arm["score"]
        table.append(
            (
                arm["name"],
                f"{arm['images_per_second']:.3g}",
                f"{arm['ratio']:.2f}{' ?' if noise.is_noise(arm) else ''}",
                f"{arm['ratio_least']:.2f}-{arm['ratio_most']:.2f}",
                f"{arm['first_image_seconds']:.1f}",
                _said(memory["gpu" if on_gpu else "main"], "{:.1f}"),
                _said(arm["share_of_peak"], "{:.1%}"),
                _said(arm["psnr_db"], "{:.1f}"),
                _said(arm["ssim"], "{:.3f}"),
                _said(arm["same_text"], "{:.0%}"),
                f"{score['right']} of {score['of']}" if score else "",
                _said(arm["times_fewer_blocks"], "{:.2f}"),
                _said(arm["recompiles"], "{}"),
            )
        )
    kept = [at for at in range(len(HEAD)) if any(row[at] for row in table)]
    return [tuple(row[at] for at in kept) for row in (HEAD, *table)]


def left_out(found: dict) -> list[str]:
    """One line per arm that did not run, with the reason."""
    said = []
    for arm in found["arms"]:
        if arm["refused"]:
            said.append(f"{arm['name']}: refused: {arm['refused']}")
        elif arm["same_as"]:
            said.append(f"{arm['name']}: the same choices as {arm['same_as']} on this machine")
        elif arm["failed"]:
            said.append(f"{arm['name']}: failed: {arm['failed']}")
    return said


def markdown(found: dict) -> str:
    facts, (head, *rows) = found["about"], table_of(found)
    text = [f"# fastgen bench {facts['task']}", ""]
    text += [f"* {key.replace('_', ' ')}: {_plain(value)}" for key, value in facts.items()]
    text += [
        "",
        NOTES.format(
            opponent=found["arms"][0]["name"],
            turns="in the same round"
            if facts["interleaved"]
            else "which ran all its rounds before, because the two do not fit into memory together",
        ),
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    text += [f"| {' | '.join(row)} |" for row in rows]
    text += ["", *(f"**Warning**: {line}." for line in noise.warnings(found))]
    if said := left_out(found):
        text += ["", "Not run:", "", *(f"* {line}" for line in said)]
    stages = [name for arm in found["arms"] for name in arm.get("stages_seconds", {})]
    if stages := list(dict.fromkeys(stages)):
        text += [
            "",
            "Seconds per image by stage; stages of different batches overlap:",
            "",
            f"| | {' | '.join(stages)} |",
            "|---" * (1 + len(stages)) + "|",
        ]
        for arm in found["arms"]:
            if spent := arm.get("stages_seconds"):
                text.append(
                    f"| {arm['name']} | " + " | ".join(_said(spent.get(name), "{:.4f}") for name in stages) + " |"
                )
    if found.get("commands"):
        text += ["", "Complete commands, including loading:", "", "| | per second | s | ratio |", "|---" * 4 + "|"]
        text += [
            f"| `{c['command']}` | {c['images_per_second']:.3g} | {c['seconds']:.1f} | {c['ratio']:.2f} |"
            for c in found["commands"]
        ]
    text += ["", "To measure one arm again:", "", *(f"    {arm['again']}" for arm in found["arms"] if "ratio" in arm)]
    return "\n".join(text) + "\n\n![ratios](bench.png)\n"


NOTES = (
    "Ratios are against {opponent}, {turns}: median, lowest and highest. First: seconds from the start of "
    "the process to the first image or text. GiB: peak memory, of the GPU if there is one. Of peak: operations of the "
    "transformer's blocks, counted from its config, divided by the total time, as a share of the hardware's peak. PSNR "
    "(dB) and SSIM are against the images of {opponent} for the same rows and noise; same text: share of captions "
    "equal to those of {opponent}. Right: images that show what was asked for, by the scene reader; captions that are "
    "exact. Fewer blocks: how many times fewer blocks of the transformer were evaluated."
)


def show(found: dict) -> None:
    """The table, on stdout. Where it is wider than the terminal, it is several, each with the names of the arms."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 170)
    title = f"{found['about']['task']} on {found['about']['hardware']}, {found['about']['weights']}"
    head, *rows = table_of(found)
    for columns in _in_width([head, *rows], console.width):
        table = Table(title=title, title_justify="left")
        for at in columns:
            table.add_column(head[at], justify="right" if at else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(row[at] for at in columns))
        console.print(table)
        title = ""
    for line in left_out(found):
        console.print(line, markup=False, highlight=False)
    for command in found.get("commands", ()):
        console.print(
            f"{command['command']}: {command['seconds']:.1f} s, {command['ratio']:.2f} of fastgen's rate", markup=False
        )
    for line in noise.warnings(found):
        console.print(f"warning: {line}", markup=False, highlight=False)


def _in_width(table: list[tuple[str, ...]], width: int) -> list[list[int]]:
    """The columns of each table that is shown, so that none is wider than the terminal. The first one is in all."""
    frame = 3  # of each column: a line and two blanks
    widths = [max(len(row[at]) for row in table) + frame for at in range(len(table[0]))]
    shown = [[0]]
    for at in range(1, len(widths)):
        if sum(widths[one] for one in shown[-1]) + widths[at] + 1 > width and len(shown[-1]) > 1:
            shown.append([0])
        shown[-1].append(at)
    return shown


def _said(value: Any, form: str) -> str:
    return "" if value is None else form.format(value)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return "none" if value is None else str(value)


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
