"""What the page says about a run as a whole: its settings, its state, how far it is."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastgen.view.run_rows import RunRows

_NOT_SHOWN = ("output_key", "image_root", "prompt_key", "image_key", "mask_key", "id_key")


def about_run(run: RunRows) -> dict[str, Any]:
    """For the page, as JSON."""
    said = run.about
    settings = {name: value for name, value in said["settings"].items() if name not in _NOT_SHOWN and _is_short(value)}
    made = "captions" if run.task == "caption" else "images"
    counts = Counter(row.status for row in list(run.rows))
    return {
        "name": run.path.name,
        "path": str(run.path),
        "task": run.task,
        "state": run.state,
        "generation": run.generation,
        "is_read": run.is_read,
        "problem": run.problem,
        "started": str(said.get("started", "")),
        "rows": len(run.rows),
        "counts": dict(counts),
        "cost_usd": round(sum(row.cost_usd for row in list(run.rows)), 6),
        "rate": said.get(f"{made}_per_second"),
        "made": made,
        "settings": settings,
    }


def _is_short(value: object) -> bool:
    return isinstance(value, str | int | float | bool) and len(str(value)) < 120 and value != ""
