"""Pictures of a run as a terminal shows it, 60 and 120 columns wide, for the documentation.

    python -m bench.terminal_pictures [--out docs/pictures]

A run of the embedded model on two CPU processes, in the middle; one of its rows is bad. Takes half a minute.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

import fastgen
from fastgen.cli.reporter import Report
from fastgen.config.settings import Settings
from fastgen.view.live import Live

WIDTHS = (60, 120)
ROWS = 96
MIDDLE = 0.4
"""Share of the rows that have a result when the picture is taken."""


def rows() -> list[dict]:
    """Scenes that the embedded model draws, in two sizes."""
    colors, shapes = ("red", "green", "yellow", "purple"), ("circle", "square", "star")
    made: list[dict] = [
        {
            "prompt": f"a {colors[i % 4]} {shapes[i % 3]} on a blue background",
            "size": ("128x128", "192x128")[i % 2],
            "seed": i,
        }
        for i in range(ROWS)
    ]
    made[3] = {"prompt": ""}
    return made


def told(settings: Settings) -> tuple[str, dict[str, Any]]:
    """Run it. Returns what is said at its start, and the facts of its middle, once every worker has a rate."""
    facts: dict[str, Any] = {}

    def emit(event: str, **told: Any) -> None:
        if event != "progress" or facts or told["rows"] < MIDDLE * told["total"]:
            return
        if told["workers"] and all(worker["images_per_second"] for worker in told["workers"]):
            facts.update(told)

    with redirect_stderr(io.StringIO()) as said:
        Report("human", settings).begin()
    for _ in fastgen.generate(settings, emit=emit):
        pass
    return said.getvalue(), facts


def draw(command: str, said: str, facts: dict[str, Any], widths: Iterable[int], folder: Path) -> None:
    """Write terminal-WIDTH.svg for each width."""
    for width in widths:
        console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
        console.print(f"$ {command}", style="bold", highlight=False)
        console.print(said, end="", markup=False, highlight=False)
        live = Live(console, clock=lambda: 0.0)
        live.take(facts)
        console.print(live.drawn())
        picture = console.export_svg(title=f"fastgen, {width} columns", unique_id=f"terminal-{width}")
        picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)  # nothing is loaded from elsewhere
        (folder / f"terminal-{width}.svg").write_text(picture, "utf-8")


def make(folder: Path, scratch: Path, **flags: Any) -> None:
    """The pictures of a run with these flags. Raises ValueError if it was over too soon."""
    given = scratch / "prompts.jsonl"
    given.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    settings = fastgen.resolve("t2i", given, out=scratch / "run", **flags)
    said, facts = told(settings)
    if not facts:
        raise ValueError("the run was over before every worker had a rate")
    command = "fastgen t2i prompts.jsonl -o run " + " ".join(f"--{name} {value}" for name, value in flags.items())
    said = said.replace(str(scratch) + "/", "")
    draw(command, said, facts, WIDTHS, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "pictures")
    args = parser.parse_args()
    with TemporaryDirectory() as scratch:
        make(args.out, Path(scratch), model="tiny", gpus="cpu:2")
    print(f"wrote {', '.join(f'terminal-{width}.svg' for width in WIDTHS)} to {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
