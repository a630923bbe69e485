"""Where does the time go? A profiler's trace of one batch, by kernel, and what the host does meanwhile."""

from __future__ import annotations

import time
from typing import Any

from bench.gpu import models
from bench.gpu.state import State

TOP = 25


def trace(state: State, device: str) -> None:
    for quality in ("exact", "fast"):
        state.cell("trace", quality, lambda quality=quality: _trace(state, device, quality))


def _trace(state: State, device: str, quality: str) -> dict[str, Any]:
    import torch
    from torch._C._profiler import _ExperimentalConfig
    from torch.profiler import ProfilerActivity, profile

    size, steps = ("64x64", 2) if device == "cpu" else ("1024x1024", 4)
    path = models.folder(state.folder, "flux-dev", device)
    settings = models.resolve(state.folder, "t2i", path, device, steps=steps, size=size, quality=quality, batch_size=1)
    batch = models.batch(settings, models.rows_file(state.folder, "t2i", 1, size, steps))
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device != "cpu")
    with models.engine(settings) as (backend, _):
        backend.run(batch)
        started = time.monotonic()
        backend.run(batch)
        seconds = time.monotonic() - started
        # The engine computes in threads of its own. Kernels of a GPU are seen from any thread anyway.
        every_thread = _ExperimentalConfig(profile_all_threads=device == "cpu")
        with profile(activities=activities, experimental_config=every_thread) as found:
            results = backend.run(batch)
            if device != "cpu":
                torch.cuda.synchronize()
    file = state.folder / f"trace-{quality}.json.gz"
    found.export_chrome_trace(str(file))
    averages = found.key_averages()
    by_device = device != "cpu"

    def own(event: Any) -> float:
        return float(event.self_device_time_total if by_device else event.self_cpu_time_total) / 1e6

    kernels = sorted(averages, key=own, reverse=True)
    busy = sum(own(event) for event in kernels)
    return {
        "size": size,
        "steps": steps,
        "seconds": round(seconds, 4),
        "busy_s": round(busy, 4),
        "idle_share": round(max(0.0, 1 - busy / seconds), 3) if by_device else None,
        "kernels": [{"name": e.key[:120], "s": round(own(e), 5), "calls": e.count} for e in kernels[:TOP]],
        "stages_s": dict(getattr(results[0], "stages", {})),
        "file": file.name,
    }
