"""Run folders as runs leave them, made without a run."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from fastgen.output.journal import with_checksum

COLORS = ("red", "green", "blue", "orange")


def image(path: Path, color: str = "red", size: tuple[int, int] = (48, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def done(id: str, images: list[str], **more) -> dict:
    """The results of a row, as its line of the table has them."""
    about = {"id": id, "status": "done", "backend": "fake", "model": "m", "seed": 7, "width": 48, "height": 48}
    return {"images": images, "fastgen": about | {"steps": 4, "guidance": 3.5, "seconds": 0.5, "attempts": 1} | more}


def failed(id: str, kind: str, message: str) -> dict:
    error = {"kind": kind, "message": message}
    return {"fastgen": {"id": id, "status": "failed", "attempts": 1, "error": error}}


def folder(
    path: Path, rows: list[dict], task: str = "t2i", input: str = "", state: str = "finished", **settings
) -> Path:
    """A run folder with this table; `rows` are its lines."""
    path.mkdir(parents=True, exist_ok=True)
    key = {"t2i": "images", "edit": "edited_images", "caption": "caption"}[task]
    about = {"fastgen": "0.2.0", "state": state, "started": "2026-01-01T00:00:00Z", "input": input}
    about["settings"] = {"task": task, "output_key": key, "model": "m", "image_root": str(path.parent), **settings}
    (path / "run.json").write_text(json.dumps(about))
    (path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scenes(path: Path, count: int = 8, **settings) -> Path:
    """A run of t2i: rows with images in four colors; the third row failed, the fourth has two images."""
    for color in COLORS:
        image(path / f"images/{color}.png", color)
    rows = []
    for k in range(count):
        prompt = {"id": f"row-{k}", "prompt": f"a {COLORS[k % 4]} fox number {k}"}
        names = [f"images/{COLORS[k % 4]}.png"] * (2 if k == 3 else 1)
        result = failed(f"row-{k}", "refused", "declined by the model") if k == 2 else done(f"row-{k}", names)
        rows.append(prompt | result)
    return folder(path, rows, **settings)


def journal_line(id: str, paths: list[str], content: str) -> bytes:
    params = {"type": "image", "width": 48, "height": 48, "steps": 4, "guidance": 3.5, "seed": 7, "n": 1}
    result = {"status": "done", "id": id, "backend": "fake", "model": "m", "paths": paths, "params": params}
    return with_checksum(json.dumps(result | {"seconds": 0.5, "content": content}).encode())


def everything(path: Path) -> dict[str, tuple]:
    """What is in a folder, to see that nothing changed."""
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in [path, *path.rglob("*")]}
