"""A large table in Parquet through the fake backend into Parquet and a WebDataset, killed again and again.

    python -m bench.formats [--rows 1000000] [--kills 20] [--late 5] [--place FOLDER] [--out FOLDER]

Each kill is a SIGKILL of the command and of its workers at a random moment; the last ones come while tables and shards
are written.
At the end every row is once in the journal, in results.parquet and in the shards. Memory is the peak of the resident
set of the main process, and of all processes together.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import psutil
import pyarrow
import pyarrow.parquet

CHUNK = 50_000
"""Rows of one row group."""
TABLES = ("results.jsonl", "results.parquet")


def make_rows(path: Path, count: int) -> None:
    schema = pyarrow.schema([("prompt", pyarrow.string()), ("source", pyarrow.string()), ("number", pyarrow.int64())])
    with pyarrow.parquet.ParquetWriter(path, schema) as table:
        for start in range(0, count, CHUNK):
            numbers = range(start, min(start + CHUNK, count))
            rows = [{"prompt": f"prompt number {i} of many", "source": "bench", "number": i} for i in numbers]
            table.write_table(pyarrow.Table.from_pylist(rows, schema))


class Watched:
    """The command, observed from outside. `peaks`: phase -> highest bytes of the main process, and of all together."""

    def __init__(self, rows: Path, out: Path, peaks: dict[str, tuple[int, int]]):
        self.out, self.peaks = out, peaks
        self.began = time.time()
        command = [sys.executable, "-m", "fastgen", "t2i", rows, "-o", out, "--backend", "fake", "--gpus", "cpu:4"]
        command += ["--size", "16x16", "--table", "parquet", "--webdataset", "-q"]
        self.process = subprocess.Popen(list(map(str, command)), start_new_session=True)

    @property
    def phase(self) -> str:
        """What it is writing now, or about to write."""
        if (self.out / ".partial" / f"{self.process.pid}-{TABLES[0]}").exists():
            return TABLES[0]
        if self._is_ours(TABLES[1]):
            return "shards"
        return TABLES[1] if self._is_ours(TABLES[0]) else "images"

    def _is_ours(self, name: str) -> bool:
        """Whether this start of the command has written that table."""
        try:
            return (self.out / name).stat().st_mtime >= self.began
        except FileNotFoundError:
            return False

    def wait(self, seconds: float, late: bool = False) -> bool:
        """Wait for its end. Returns whether it came within that time, which with `late` begins with the tables."""
        until = math.inf if late else time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < until:
            phase = self.phase
            if until == math.inf and phase != "images":
                until = time.monotonic() + seconds
            try:
                parent = psutil.Process(self.process.pid)
                sizes = [p.memory_info().rss for p in (parent, *parent.children(recursive=True))]
                main, everything = self.peaks.get(phase, (0, 0))
                self.peaks[phase] = max(main, sizes[0]), max(everything, sum(sizes))
            except psutil.Error:
                pass
            time.sleep(0.05)
        return self.process.poll() is not None

    def kill(self) -> str:
        """End it and its workers without a word. Returns its phase."""
        phase = self.phase
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return phase


def run(place: Path, count: int, kills: int, late: int, longest_s: float, seed: int = 0) -> dict:
    """Make the rows, run and kill, and check what is there. Raises AssertionError if a row is lost or made twice.

    Args:
        late: so many of the kills come after a table was begun.
        longest_s: between a start, or the begin of the tables, and a kill; the moment is chosen between zero and this.
    """
    rng, rows, out = random.Random(seed), place / "rows.parquet", place / "run"
    make_rows(rows, count)
    started, peaks = time.monotonic(), dict[str, tuple[int, int]]()
    where: list[str] = []
    finished = False
    while True:
        command, left = Watched(rows, out, peaks), kills - len(where)
        ended = command.wait(rng.uniform(0, longest_s) if left else math.inf, late=0 < left <= late and not finished)
        if ended:
            assert command.process.returncode == 0, f"it ended with {command.process.returncode}"
            if not left:
                break
            finished = True  # started again it reads all rows, and writes what is not there
            continue
        where.append(command.kill())
        print(f"{time.monotonic() - started:.0f} s: kill {len(where)}, {where[-1]}", file=sys.stderr, flush=True)
    seconds = round(time.monotonic() - started, 1)
    check(out, count)
    return {
        "rows": count,
        "kills": len(where),
        "killed_while_writing": {phase: where.count(phase) for phase in sorted(set(where))},
        "seconds": seconds,
        "main_peak_mb": round(max(main for main, _ in peaks.values()) / 1e6, 1),
        "all_peak_mb": round(max(everything for _, everything in peaks.values()) / 1e6, 1),
        "peaks_mb": {phase: [round(size / 1e6, 1) for size in both] for phase, both in peaks.items()},
    }


def check(out: Path, count: int) -> None:
    """Raises AssertionError unless each row is there once, in all three places."""
    made = set()
    with (out / "journal.jsonl").open("rb") as file:
        for line in file:
            record = json.loads(line)["rec"]
            assert record["id"] not in made, f"row {record['id']} was made twice"
            made.add(record["id"])
    assert len(made) == count, f"{len(made)} rows in the journal"
    numbers = set()
    for batch in pyarrow.parquet.ParquetFile(out / "results.parquet").iter_batches(columns=["number", "fastgen"]):
        for row in batch.to_pylist():
            assert row["number"] not in numbers and row["fastgen"]["status"] == "done"
            numbers.add(row["number"])
    assert numbers == set(range(count)), f"{len(numbers)} rows in the table"
    members: set[str] = set()
    pictures = 0
    for path in sorted((out / "webdataset").glob("*.tar")):
        with tarfile.open(path, "r|") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
                assert member.name not in members, f"{member.name} is in the shards twice"
                members.add(member.name)
                pictures += member.name.endswith(".png")
    assert pictures == count and len(members) == 3 * count, f"{pictures} pictures in the shards"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--late", type=int, default=5, help="kills that come while tables and shards are written")
    parser.add_argument(
        "--longest", type=float, default=60, help="seconds from a start, or from the tables, to a kill, at most"
    )
    parser.add_argument("--place", type=Path, help="where the rows and the run folder are made")
    parser.add_argument("--out", type=Path, help="folder for formats.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.place) as scratch:
        found = run(Path(scratch), args.rows, args.kills, args.late, args.longest)
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "command": "python -m bench.formats " + " ".join(sys.argv[1:]),
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "python": platform.python_version(),
        **found,
    }
    print(json.dumps(report, indent=1))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "formats.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
