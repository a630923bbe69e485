"""How fast is it? Seconds per image, end to end with files written, for sizes, batches and ways to make them."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bench.gpu import models
from bench.gpu.state import State
from fastgen.config import profile
from fastgen.config.settings import Settings

ARMS = {
    "exact": {"quality": "exact"},
    "fast without cache": {"quality": "fast", "cache": "none"},
    "diffusers": {},
    "fast": {"quality": "fast"},
    "high": {"quality": "high"},
    "diffusers + compile": {},
}
"""Way to make images -> flags of fastgen. How many steps a step cache leaves out depends on the pictures, and those of
random weights are noise; hence `fast` without it."""
CELLS = {
    "cuda": (("1024x1024", 1), ("512x512", 1), ("768x768", 1), ("512x512", 4), ("512x512", 8), ("1024x1024", 2),
             ("768x768", 2), ("1024x1024", 4), ("768x768", 4), ("1024x1024", 8)),
    "cpu": (("64x64", 1), ("64x64", 2), ("128x128", 2)),
}  # fmt: skip
"""(size, batch), the most telling first, since time may run out."""
AT_FIRST = 2
"""So many of them are measured of every way before any other: parts `speed`, then parts `batches`."""
STEPS = {"cuda": 28, "cpu": 2}
WARM_STEPS = 2
ROWS = {"cuda": 1000, "cpu": 1}
"""Of the run whose settings are used: whether --quality exact compiles depends on their number."""
ROUNDS, ENOUGH_S = 3, 12.0
"""No further round begins after so many seconds: GPUs differ little from round to round."""
TOGETHER = 2
"""Batches under way at once, as in a worker: one is saved while the next one is computed."""
LONG_S = 4.0
"""Of batches that take longer, fewer are computed one behind the other."""
UNKNOWN_S = {"cuda": 60.0, "cpu": 0.0}
"""What the first cell of a way is thought to take."""
TASKS = {"flux-dev": "t2i", "flux-kontext": "edit"}


def part_names(phase: str) -> list[str]:
    """phase: "speed" or "batches"."""
    return [f"{phase} {model} {arm}" for arm in ARMS for model in TASKS]


def cells_of(device: str, part: str) -> tuple[tuple[str, int], ...]:
    """(size, batch) of each cell of a part."""
    return CELLS[device][:AT_FIRST] if part.startswith("speed") else CELLS[device][AT_FIRST:]


def measure(state: State, device: str, part: str) -> None:
    """All cells of one model and arm in one process."""
    _, model, arm = part.split(" ", 2)
    todo = [(size, n) for size, n in cells_of(device, part) if not state.is_settled(part, f"{size} x{n}")]
    if not todo:
        return
    task, flags = TASKS[model], ARMS[arm]
    path = models.folder(state.folder, model, device)
    how = {"steps": STEPS[device], "size": todo[0][0], **flags}
    settings = models.resolve(state.folder, task, path, device, rows=ROWS[device], **how)
    play = _ours if flags else _diffusers
    play(state, part, settings, todo, STEPS[device], lambda size, n: needed_s(state, device, part, size, n))


def needed_s(state: State, device: str, part: str, size: str, n: int) -> float:
    """How long a cell will take, by those that were measured the same way."""
    _, way = part.split(" ", 1)
    known = [
        cell["s_per_image"] * n * profile.pixels(size) / profile.pixels(cell["name"].split(" x")[0])
        for phase in ("speed", "batches")
        for own, k in CELLS[device]
        if (cell := state.read(f"{phase} {way}", f"{own} x{k}")) and "s_per_image" in cell
    ]
    if not known:
        return UNKNOWN_S[device]
    batch = max(known)
    rounds = min(ROUNDS, 1 + ENOUGH_S // batch) if batch else ROUNDS
    return batch * (1 + rounds + _in_a_row(batch))


def _in_a_row(batch_s: float) -> int:
    return 2 * TOGETHER if batch_s < LONG_S else TOGETHER + 1


def _ours(state: State, part: str, settings: Settings, todo: list, steps: int, needs: Callable) -> None:
    started = time.monotonic()
    with models.engine(settings) as (backend, facts):
        opened = round(time.monotonic() - started, 1)

        def cell(size: str, n: int) -> dict[str, Any]:
            own = replace(
                settings,
                image=replace(settings.image, size=tuple(map(int, size.split("x")))),
                run=replace(settings.run, batch_size=n),
            )
            backend.reconfigure(own)
            given = [WARM_STEPS, *[steps] * (2 * TOGETHER)]
            rows = [models.rows_file(state.folder, settings.task, n, size, s, k * n) for k, s in enumerate(given)]
            batches = [models.batch(own, file) for file in rows]
            done: list[Any] = []

            def once(k: int) -> None:
                results = backend.run(batches[k])
                bad = [one for one in results if hasattr(one, "kind")]
                if bad:
                    raise RuntimeError(f"{len(bad)} rows failed, first: {bad[0].kind}: {bad[0].message}")
                done.append(results)

            found = _timed(once, n, TOGETHER)
            found |= {"opened_s": opened, "opt": facts["opt"], "stages_s": dict(done[-1][0].stages)}
            return found | _counts(done[1:]) | _memory(settings)

        for size, n in todo:
            state.cell(part, f"{size} x{n}", lambda size=size, n=n: cell(size, n), needs(size, n))


def _counts(batches: list[list[Any]]) -> dict[str, float]:
    """The share of blocks that a step cache let be computed, and what was compiled after the warm-up."""
    work: Counter[str] = Counter()
    for results in batches:
        for result in results:
            work.update(result.work)
    found: dict[str, float] = {}
    if whole := work["blocks_without_cache"]:
        found["blocks_computed"] = round(work["blocks"] / whole, 3)
    if "recompiles" in work:
        found["recompiles"] = work["recompiles"]
    return found


def _diffusers(state: State, part: str, settings: Settings, todo: list, steps: int, needs: Callable) -> None:
    """The pipeline as people call it, saving what it returns."""
    import torch

    from fastgen.backends.diffusion.families.flux1.load import load
    from fastgen.bench import baselines

    device = torch.device("cuda" if settings.placement.devices[0].kind == "cuda" else "cpu")
    started = time.monotonic()
    plain = replace(settings, optimizations=type(settings.optimizations)())
    pipeline = baselines._pipeline(load(plain, device), settings.task)
    offload = baselines._put(pipeline, plain, device)
    pipeline.set_progress_bar_config(disable=True)
    if part.endswith("compile"):
        pipeline.transformer.compile_repeated_blocks(fullgraph=True)
    opened = round(time.monotonic() - started, 1)
    saved = Path(settings.run.out) / "diffusers"
    saved.mkdir(exist_ok=True)

    def cell(size: str, n: int) -> dict[str, Any]:
        rows = [{"prompt": f"picture {i} of a lighthouse at dusk", "size": size, "seed": i} for i in range(n)]
        if settings.task == "edit":
            models.rows_file(state.folder, "edit", n, size, steps)
            rows = [row | {"image": str(state.folder / "inputs" / f"{size}.png")} for row in rows]
        asked = baselines._asked(plain, rows)

        def once(k: int) -> None:
            own = asked if k else asked | {"num_inference_steps": WARM_STEPS}
            for i, image in enumerate(pipeline(**own).images):
                image.save(saved / f"{i}.png")

        return _timed(once, n, 1) | {"opened_s": opened, "offload": offload} | _memory(settings)

    for size, n in todo:
        state.cell(part, f"{size} x{n}", lambda size=size, n=n: cell(size, n), needs(size, n))


def _timed(once: Callable[[int], None], images: int, together: int) -> dict[str, Any]:
    """Seconds per image: alone, and with as many batches under way as a worker has.

    Args:
        once: makes batch k; batch 0 has few steps, to warm up.
    """
    started = time.monotonic()
    once(0)
    first = time.monotonic() - started
    seconds: list[float] = []
    while len(seconds) < ROUNDS and sum(seconds) < ENOUGH_S:
        started = time.monotonic()
        once(1)
        seconds.append(time.monotonic() - started)
    found = {
        "s_per_image": round(statistics.median(seconds) / images, 4),
        "least_s": round(min(seconds) / images, 4),
        "most_s": round(max(seconds) / images, 4),
        "warm_up_s": round(first, 2),
        "rounds": len(seconds),
    }
    if together > 1:
        count = _in_a_row(min(seconds))
        with ThreadPoolExecutor(together) as threads:
            started = time.monotonic()
            list(threads.map(once, range(1, 1 + count)))
            found["s_per_image_pipelined"] = round((time.monotonic() - started) / (count * images), 4)
    return found


def _memory(settings: Settings) -> dict[str, Any]:
    if settings.placement.devices[0].kind != "cuda":
        return {}
    import torch

    peak = torch.cuda.max_memory_reserved() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return {"peak_reserved_gib": round(peak, 2)}
