"""The cells as results.json, results.md, and a profile for kernels_cfg/."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from bench.gpu import speed
from bench.gpu.state import State, brief
from fastgen.bench.tune import GAIN
from fastgen.config import hardware, profile

PUBLISHED = Path(__file__).with_name("published.json")


def write(state: State, device: str) -> None:
    cells = list(state.cells())
    facts = provenance(cells, device)
    results = {
        "facts": facts,
        "finished": state.finished(),
        "cells": cells,
        "published": json.loads(PUBLISHED.read_text("utf-8")),
    }
    (state.folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    (state.folder / "results.md").write_text(page(cells, facts, results["published"]), "utf-8")
    if text := candidate(cells, facts, device):
        (state.folder / "profile.toml").write_text(text, "utf-8")


def provenance(cells: list[dict[str, Any]], device: str) -> dict[str, Any]:
    """Where the figures come from."""
    found = next((cell for cell in cells if cell["part"] == "environment" and cell["status"] == "done"), {})
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": shlex.join(["python", "-m", "bench.gpu", *sys.argv[1:]]),
        "hardware": found.get("gpu", "CPU" if device == "cpu" else "unknown GPU"),
        "versions": found.get("versions", {}),
        "python": found.get("python"),
        "weights": "synthetic: random numbers; pictures are noise, so nothing here tells about quality",
    }


def page(cells: list[dict[str, Any]], facts: dict[str, Any], published: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    text = f"# bench.gpu on {facts['hardware']}\n\n{facts['date']}, `{facts['command']}`, Python {facts['python']}, "
    text += f"{versions}.\n"
    text += f"\nWeights: {facts['weights']}.\n\n## Right\n\n| part | what | result |\n|---|---|---|\n"
    for cell in cells:
        if not cell["part"].startswith(("speed", "batches", "trace", "environment")):
            text += f"| {cell['part']} | {cell['name']} | {_cell(brief(cell))} |\n"
    for model in speed.TASKS:
        text += _table(model, [cell for cell in cells if cell["part"].startswith(_parts(model, ""))])
    text += "\n## Published by others\n\n" + published["note"] + "\n\n| model | GPU | what | s per image | source |\n"
    text += "|---|---|---|---|---|\n"
    for one in published["figures"]:
        what = f"{one['what']}, {one['size']}, {one['steps']} steps, batch {one['batch']}"
        text += f"| {one['model']} | {one['gpu']} | {what} | {one['s_per_image']} | {one['source']} |\n"
    return text + _traces(cells)


def _table(model: str, cells: list[dict[str, Any]]) -> str:
    """Seconds per image: a line for each size and batch, a column for each arm."""
    arms = [arm for arm in speed.ARMS if any(cell["part"] in _parts(model, arm) for cell in cells)]
    if not arms:
        return ""
    by_place = {(cell["part"].partition(f"{model} ")[2], cell["name"]): cell for cell in cells}
    text = f"\n## {model}: seconds per image, end to end with files written\n\n"
    text += "Of fastgen also with two batches under way, as in a run, after the slash. With a step cache, the share of "
    text += "blocks that was computed follows: the pictures decide it, and these are noise.\n\n"
    text += f"| size x batch | {' | '.join(arms)} |\n{'|---' * (len(arms) + 1)}|\n"
    for name in dict.fromkeys(cell["name"] for cell in cells):
        row = [_seconds(by_place.get((arm, name))) for arm in arms]
        text += f"| {name} | {' | '.join(row)} |\n"
    return text


def _parts(model: str, arm: str) -> tuple[str, str]:
    return f"speed {model} {arm}", f"batches {model} {arm}"


def _seconds(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "not measured"
    if cell["status"] == "failed":
        return "failed: " + _cell(cell["error"][:80])
    also = cell.get("s_per_image_pipelined")
    share = f" ({cell['blocks_computed']:.0%})" if "blocks_computed" in cell else ""
    return f"{cell['s_per_image']}" + (f" / {also}" if also else "") + share


def _traces(cells: list[dict[str, Any]]) -> str:
    text = ""
    for cell in cells:
        if cell["part"] == "trace" and cell["status"] == "done":
            text += f"\n## Where the time goes, {cell['name']}\n\n"
            text += (
                f"{cell['size']}, {cell['steps']} steps, batch 1: {cell['seconds']} s, in kernels {cell['busy_s']} s. "
            )
            text += f"Trace: `{cell['file']}`. Stages: {json.dumps(cell['stages_s'])}.\n\n"
            text += "| kernel | s | calls |\n|---|---|---|\n"
            text += "".join(f"| {_cell(k['name'])} | {k['s']} | {k['calls']} |\n" for k in cell["kernels"])
    return text


def candidate(cells: list[dict[str, Any]], facts: dict[str, Any], device: str) -> str:
    """A profile with the measured batch sizes; the choices of each quality are those that were measured. "" if there is
    no size of which --quality exact was measured with several."""
    done = [c for c in cells if c["part"] in _parts("flux-dev", "exact") and c["status"] == "done"]
    rates: dict[str, dict[int, float]] = {}
    for cell in done:
        size, n = cell["name"].split(" x")
        rates.setdefault(size, {})[int(n)] = 1 / cell.get("s_per_image_pipelined", cell["s_per_image"])
    rates = {size: own for size, own in rates.items() if len(own) > 1}
    if not rates or device == "cpu":
        return ""
    batches = {
        size: next(n for n, rate in sorted(own.items()) if rate * GAIN >= max(own.values()))
        for size, own in sorted(rates.items(), key=lambda one: profile.pixels(one[0]))
    }
    gpu = hardware.find_gpus()[0]
    match = profile.Match(
        family="flux",
        device="cuda",
        compute_capability=gpu.compute_capability,
        least_memory_gib=float(int(0.95 * gpu.memory_gib)),
    )
    used = profile.choose("flux", "flux-dev", hardware.Device("cuda:0", "cuda", 1, gpu))
    versions = ", ".join(f"{name} {facts['versions'].get(name)}" for name in ("torch", "diffusers", "torchao"))
    measured = profile.Measured(
        "measured",
        facts["date"],
        facts["hardware"],
        facts["command"],
        f"{versions}; weights: synthetic; batch sizes measured, choices as in {used.name}",
    )
    return profile.dump(match, batches, used.opt, measured)


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
