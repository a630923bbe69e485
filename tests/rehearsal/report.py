"""The outcomes as a table and as JSON."""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from tests.rehearsal import checks, stand_ins
from tests.rehearsal.cards import CONTEXT_GIB, HOST_GIB
from tests.rehearsal.cases import MIXED, MIXED_SIZE, SIZE, STEPS, Outcome, Setup

GIB = 2**30
HEAD = f"""# The rehearsed matrix

`python -m tests.rehearsal` wrote this page. **Nothing here was measured on a GPU.** The engine ran as it is, with
full-size models, on fake CUDA tensors: they have a shape, a type and a device, and no numbers.
[bench.md](bench.md#without-a-gpu) tells what this can find and what it cannot.

Settings are what fastgen chooses by itself on an idle card with {HOST_GIB:g} GiB of free main memory, at {SIZE}, with
{STEPS} steps. `mixed` is {len(MIXED)} rows of {MIXED_SIZE} with different steps and guidance in one batch, of edits
one with a mask. Prompts are as long as they may be. With a step cache, `computed` is a batch whose cache never finds a
step that it may leave out, and `reused` one in which it always does.

* weights: on the card once the engine is ready. peak: the most while it opened or ran, with {CONTEXT_GIB} GiB for the
  CUDA context. Fragmentation and the workspaces of libraries come on top.
* planned: what `config/fit` reckoned: for one image of {SIZE}, by which the settings were chosen, or for the rows of
  `mixed`, if these need more.
* TFLOP, launches, GB: of one step. GB is what kernels read and write, uncompiled.
* waits: how often the thread that computes waits for the device, in a step + in the rest of the batch.
* sent: from main memory to the card, for the whole batch.
"""
NOT_HERE = """
## Not rehearsed

* Several cards that share a model: `python -m tests.rehearsal.test_sharded` prints those.
* {compile}. Named `compile*` in the table.
* {bitsandbytes}. Named `8bit*` and `4bit*`.
* Attention kernels other than PyTorch's own, NaN, checks inside kernels, streams and their order, real times.
"""
COLUMNS = (
    "cards (GB)", "quality", "choices", "batch", "weights GiB", "peak GiB", "planned GiB",
    "TFLOP", "launches", "GB", "waits", "sent GB", "",
)  # fmt: skip


def row(outcome: Outcome) -> dict[str, Any]:
    """One line of the table, with units in its names."""
    setup, ran, step = outcome.setup, outcome.ran, outcome.ran.step
    return {
        "model": setup.model,
        "quality": setup.quality,
        "cards_gb": [card.sold_as_gb for card in setup.cards],
        "choices": choices(setup),
        "batch": f"{outcome.task} {outcome.cache}".strip(),
        "weights_gib": round(outcome.opened.weights_bytes / GIB, 2),
        "peak_gib": round(max(ran.peak_bytes, outcome.opened.open_peak_bytes) / GIB, 2),
        "peak_at": ran.peak_at if ran.peak_bytes >= outcome.opened.open_peak_bytes else outcome.opened.open_peak_at,
        "planned_gib": round(checks.reckoned(outcome).gib, 2),
        "step_tflop": round(step.flops / 1e12, 2),
        "step_launches": step.launches,
        "step_gb": round(step.moved_bytes / 1e9, 1),
        "step_waits": waits(step.syncs),
        "other_waits": waits(ran.outside.syncs),
        "sent_gb": round(ran.batch.to_device_bytes / 1e9, 2),
        "returned_gb": round(ran.batch.to_host_bytes / 1e9, 3),
        "where": dict(sorted(ran.batch.syncs.items())),
        "problems": checks.problems(outcome),
    }


def failed(setup: Setup, error: BaseException) -> dict[str, Any]:
    """The line of a setup that did not get as far as a batch."""
    return {
        "model": setup.model,
        "quality": setup.quality,
        "cards_gb": [card.sold_as_gb for card in setup.cards],
        "choices": choices(setup),
        "batch": "-",
        "problems": [f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"],
    }


def waits(syncs: Counter[str]) -> int:
    return sum(count for what, count in syncs.items() if not what.endswith("elsewhere"))


def choices(setup: Setup) -> str:
    """What differs from the plain model; * for what a stand-in takes the place of."""
    words = setup.words
    found = [f"{name} {word}" for name, word in words.items() if word not in ("none", False, "auto", True)]
    found += [name for name, word in words.items() if word is True]
    text = ", ".join(found).replace("quantize_text ", "text:").replace("quantize ", "")
    for name in ("compile", *stand_ins.CONTAINERS):
        text = text.replace(name, f"{name}*")
    return text or "everything on the card"


def write(rows: list[dict[str, Any]], refused: list[tuple], folder: Path, command: str) -> None:
    """rehearsal.md and rehearsal.json.

    Args:
        refused: (model, quality, GB of the card) where fastgen says that nothing fits.
    """
    facts = {
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "weights": "none: full-size configs without numbers",
    }
    (folder / "rehearsal.json").write_text(
        json.dumps({"facts": facts, "rows": rows, "refused": refused}, indent=1) + "\n", "utf-8"
    )
    (folder / "rehearsal.md").write_text(page(rows, refused, facts), "utf-8")


def page(rows: list[dict[str, Any]], refused: list[tuple], facts: dict[str, str]) -> str:
    text = HEAD + f"\n{facts['date']}, torch {facts['torch']}, diffusers {facts['diffusers']}.\n"
    for model in dict.fromkeys(one["model"] for one in rows):
        text += f"\n## {model}\n\n| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n"
        text += "".join(_line(one) for one in rows if one["model"] == model)
    if refused:
        text += "\n## Refused, because nothing fits\n\n"
        text += "".join(f"* {model}, {quality}, {gb} GB\n" for model, quality, gb in refused)
    wrong = [(one, problem) for one in rows for problem in one["problems"]]
    if wrong:
        text += "\n## What is wrong\n\n"
        text += "".join(
            f"* {one['model']}, {one['quality']}, {_cards(one)} GB, {one['batch']}: {problem}\n"
            for one, problem in wrong
        )
    return text + NOT_HERE.format(compile=stand_ins.COMPILE, bitsandbytes=stand_ins.BITSANDBYTES)


def _line(one: dict[str, Any]) -> str:
    cells = [_cards(one), one["quality"], one["choices"], one["batch"]]
    cells += [
        one.get(name) for name in ("weights_gib", "peak_gib", "planned_gib", "step_tflop", "step_launches", "step_gb")
    ]
    cells += [f"{one.get('step_waits', '-')} + {one.get('other_waits', '-')}", one.get("sent_gb")]
    cells += ["see below" if one["problems"] else "ok"]
    return "| " + " | ".join("-" if cell is None else str(cell) for cell in cells) + " |\n"


def _cards(one: dict[str, Any]) -> str:
    return ", ".join(map(str, one["cards_gb"]))
