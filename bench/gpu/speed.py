"""How fast is it? Seconds per image, end to end with files written, for sizes, batches and ways to make them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bench.gpu import models
from bench.gpu.state import State
from fastgen.config.settings import Settings

ARMS = ("exact", "diffusers", "fast", "high", "diffusers + compile")
"""Those of one word are values of --quality."""
CELLS = {
    "cuda": (("1024x1024", 1), ("512x512", 1), ("768x768", 1), ("512x512", 4), ("512x512", 8), ("1024x1024", 2),
             ("768x768", 2), ("1024x1024", 4), ("768x768", 4), ("1024x1024", 8)),
    "cpu": (("64x64", 1), ("128x128", 2)),
}  # fmt: skip
"""(size, batch), the most telling first, since time may run out."""
STEPS = {"cuda": 28, "cpu": 2}
ROUNDS = 3
TOGETHER = 2
"""Batches under way at once, as in a worker: one is saved while the next one is computed."""
TASKS = {"flux-dev": "t2i", "flux-kontext": "edit"}


def part_names() -> list[str]:
    return [f"speed {model} {arm}" for arm in ARMS for model in TASKS]


def measure(state: State, device: str, part: str) -> None:
    """All cells of one model and arm in one process."""
    _, model, arm = part.split(" ", 2)
    todo = [(size, n) for size, n in CELLS[device] if (state.read(part, f"{size} x{n}") or {}).get("status") != "done"]
    if not todo:
        return
    task = TASKS[model]
    path = models.folder(state.folder, model, device)
    quality = {} if arm.startswith("diffusers") else {"quality": arm}
    size = todo[0][0]
    settings = models.resolve(state.folder, task, path, device, steps=STEPS[device], size=size, **quality)
    play = _ours if quality else _diffusers
    play(state, part, settings, todo, STEPS[device], arm)


def _ours(state: State, part: str, settings: Settings, todo: list, steps: int, arm: str) -> None:
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
            rows = [models.rows_file(state.folder, settings.task, n, size, steps, k * n) for k in range(2 * TOGETHER)]
            batches = [models.batch(own, file) for file in rows]
            stages: list[dict[str, float]] = []

            def once(k: int = 0) -> None:
                results = backend.run(batches[k])
                bad = [one for one in results if hasattr(one, "kind")]
                if bad:
                    raise RuntimeError(f"{len(bad)} rows failed, first: {bad[0].kind}: {bad[0].message}")
                stages.append(dict(results[0].stages))

            found = _timed(once, n, TOGETHER)
            return found | {"opened_s": opened, "opt": facts["opt"], "stages_s": stages[-1]} | _memory(settings)

        for size, n in todo:
            state.cell(part, f"{size} x{n}", lambda size=size, n=n: cell(size, n))


def _diffusers(state: State, part: str, settings: Settings, todo: list, steps: int, arm: str) -> None:
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
    if "compile" in arm:
        pipeline.transformer.compile_repeated_blocks(fullgraph=True)
    opened = round(time.monotonic() - started, 1)
    saved = Path(settings.run.out) / "diffusers"
    saved.mkdir(exist_ok=True)

    def cell(size: str, n: int) -> dict[str, Any]:
        rows = [{"prompt": f"picture {i} of a lighthouse at dusk", "size": size, "seed": i} for i in range(n)]
        if settings.task == "edit":
            models.rows_file(state.folder, "edit", n, size, steps)
            rows = [row | {"image": str(state.folder / "inputs" / f"{size}.png")} for row in rows]

        def once(_: int = 0) -> None:
            for i, image in enumerate(pipeline(**baselines._asked(plain, rows)).images):
                image.save(saved / f"{i}.png")

        return _timed(once, n, 1) | {"opened_s": opened, "offload": offload} | _memory(settings)

    for size, n in todo:
        state.cell(part, f"{size} x{n}", lambda size=size, n=n: cell(size, n))


def _timed(once: Callable[..., None], images: int, together: int) -> dict[str, Any]:
    """Seconds per image: alone, and with as many batches under way as a worker has."""
    started = time.monotonic()
    once()
    first = time.monotonic() - started
    seconds = []
    for _ in range(ROUNDS):
        started = time.monotonic()
        once()
        seconds.append(time.monotonic() - started)
    found = {
        "s_per_image": round(statistics.median(seconds) / images, 4),
        "least_s": round(min(seconds) / images, 4),
        "most_s": round(max(seconds) / images, 4),
        "first_s": round(first, 2),
        "rounds": ROUNDS,
    }
    if together > 1:
        with ThreadPoolExecutor(together) as threads:
            started = time.monotonic()
            list(threads.map(once, range(2 * together)))
            found["s_per_image_pipelined"] = round((time.monotonic() - started) / (2 * together * images), 4)
    return found


def _memory(settings: Settings) -> dict[str, Any]:
    if settings.placement.devices[0].kind != "cuda":
        return {}
    import torch

    peak = torch.cuda.max_memory_reserved() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return {"peak_reserved_gib": round(peak, 2)}
