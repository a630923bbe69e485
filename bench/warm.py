"""Compares another checkout of fastgen with this one, with engines that stay open: what a row costs once the model is
loaded.

    python -m bench.warm --other CHECKOUT [--rows 48] [--rounds 9] [--only NAME] [--flag KEY=VALUE]

Commands: t2i (128x128, 6 to 8 steps), mixed (t2i with 4 to 50 steps) and edit, with the embedded model on the CPU. Each
version has a process with a `fastgen.Session`. In each round both do the same rows, one after the other, in changing
order. CPU is that of the process and all its workers, which a busy machine changes little; the rest is the whole time
of a run and its rate. The first round warms up. Prints the median of the ratios of the rounds, and from where to where
the middle half of them goes; and, of the rounds in which each version took least, their ratio: what others do on the
machine only ever adds to a round. KEY=VALUE are arguments of `fastgen.resolve` for both.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from statistics import median, quantiles

import numpy as np
from PIL import Image

from bench.versions import HERE, results, write_rows

PLAYER = """
import json, os, sys, time
from pathlib import Path
import fastgen

def ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    own = int(fields[11]) + int(fields[12])
    for task in Path(f"/proc/{pid}/task").iterdir():
        own += sum(map(ticks, (task / "children").read_text().split()))
    return own

with fastgen.Session() as session:
    for line in sys.stdin:
        order = json.loads(line)
        rows = [json.loads(row) for row in Path(order["rows"]).read_text().splitlines()]
        settings = fastgen.resolve(order["task"], out=order["out"], model="tiny", gpus="cpu", **order["more"])
        started, used = time.monotonic(), ticks(os.getpid())
        made = list(session.generate(settings, rows, emit=lambda event, **facts: None))
        seconds = time.monotonic() - started
        cpu = (ticks(os.getpid()) - used) / os.sysconf("SC_CLK_TCK")
        print(json.dumps({"seconds": seconds, "CPU": cpu, "results": len(made)}), flush=True)
"""
FIGURES = ("CPU", "seconds")


def rows_of(folder: Path, count: int) -> dict[str, Path]:
    """Rows by command; edits name their images by whole paths."""
    tables = write_rows(folder, count)
    pictures = HERE / "fastgen" / "examples" / "small" / "pictures"
    edits = [json.loads(line) for line in tables["edit"].read_text().splitlines()]
    tables["edit"].write_text(
        "".join(json.dumps(row | {"image": str(pictures / row["image"])}) + "\n" for row in edits)
    )
    tables["mixed"] = folder / "mixed.jsonl"
    steps = [4 + 46 * (i * 37 % count) // max(1, count - 1) for i in range(count)]
    mixed = [{"prompt": "a red circle on a blue background", "seed": i, "steps": n} for i, n in enumerate(steps)]
    tables["mixed"].write_text("".join(json.dumps(row) + "\n" for row in mixed))
    return tables


class Version:
    """A process of one checkout."""

    def __init__(self, checkout: Path):
        environment = os.environ | {"PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", PLAYER],
            env=environment,
            cwd=checkout,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def play(self, name: str, rows: Path, out: Path, more: dict) -> dict:
        """One run."""
        assert self._process.stdin is not None and self._process.stdout is not None
        shutil.rmtree(out, ignore_errors=True)
        task = "edit" if name == "edit" else "t2i"
        self._process.stdin.write(json.dumps({"task": task, "rows": str(rows), "out": str(out), "more": more}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{name}: a version ended; run it by hand with --rounds 1 to see why")
        found: dict = json.loads(answer)
        return found | {"results": results(out)}

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def spread(values: list[float]) -> str:
    low, _, high = quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return f"{median(values):.3f} ({low:.3f} to {high:.3f})"


def apart(these: list, others: list) -> int:
    """How far apart the images of two versions are, of 255."""
    most = 0
    for (_, some), (_, same) in zip(these, others, strict=True):
        for one, other in zip(some, same, strict=True):
            if one != other:
                pair = (np.asarray(Image.open(BytesIO(data))).astype(int) for data in (one, other))
                most = max(most, int(abs(next(pair) - next(pair)).max()))
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", required=True, type=Path)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", action="append", metavar="NAME")
    parser.add_argument("--flag", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    more = dict(flag.split("=", 1) for flag in arguments.flag)
    checkouts = {"this": HERE, "other": arguments.other.resolve()}
    versions = {name: Version(checkout) for name, checkout in checkouts.items()}
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {arguments.rows} rows, {arguments.rounds} rounds")
    print("| command | images differ by | CPU this / other | seconds this / other | least CPU | least CPU s | load |")
    print("|---" * 7 + "|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tables = rows_of(folder, arguments.rows)
        for name in arguments.only or ["t2i", "mixed", "edit"]:
            ratios: dict[str, list[float]] = {figure: [] for figure in FIGURES}
            cpu: dict[str, list[float]] = {one: [] for one in versions}
            off = 0
            for turn in range(arguments.rounds + 1):
                order = list(versions) if turn % 2 else list(versions)[::-1]
                found = {one: versions[one].play(name, tables[name], folder / one, more) for one in order}
                off = max(off, apart(found["this"]["results"], found["other"]["results"]))
                if turn:
                    for one, values in cpu.items():
                        values.append(found[one]["CPU"])
                    for figure, values in ratios.items():
                        values.append(found["this"][figure] / found["other"][figure])
            cells = [spread(values) for values in ratios.values()]
            least = {one: min(values) for one, values in cpu.items()}
            cells += [f"{least['this'] / least['other']:.3f}", f"{least['this']:.2f}", f"{os.getloadavg()[0]:.1f}"]
            print(f"| {name} | {off} of 255 | {' | '.join(cells)} |", flush=True)
    for version in versions.values():
        version.close()


if __name__ == "__main__":
    main()
