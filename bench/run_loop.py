"""What the run loop costs without any model: rows per second, memory, a rerun of a finished folder.

    python -m bench.run_loop [--rows 100000 1000000] [--out FOLDER]

Rows go through intake, batching, four worker processes of the fake backend (which writes one small PNG per row,
fsynced), journal and tables. Memory is the resident set: the peak of the main process, and of all processes together.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil


def run(rows: Path, out: Path) -> dict:
    """One run of the command line, observed from outside."""
    command = [
        sys.executable,
        "-m",
        "fastgen",
        "t2i",
        str(rows),
        "--backend",
        "fake",
        "--gpus",
        "cpu:4",
        "-o",
        str(out),
        "-q",
    ]
    started = time.monotonic()
    process = subprocess.Popen(command)
    main_peak = all_peak = 0
    while process.poll() is None:
        try:
            parent = psutil.Process(process.pid)
            sizes = [p.memory_info().rss for p in (parent, *parent.children(recursive=True))]
            main_peak, all_peak = max(main_peak, sizes[0]), max(all_peak, sum(sizes))
        except psutil.Error:
            pass
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return {
        "seconds": round(time.monotonic() - started, 2),
        "main_peak_mb": round(main_peak / 1e6, 1),
        "all_peak_mb": round(all_peak / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--out", type=Path, help="folder for run_loop.json")
    args = parser.parse_args()
    results = []
    for count in args.rows:
        with tempfile.TemporaryDirectory() as scratch:
            rows = Path(scratch, "rows.jsonl")
            with rows.open("w") as file:
                for i in range(count):
                    file.write(
                        json.dumps({"prompt": f"prompt number {i} of many", "meta": {"source": "bench", "i": i}}) + "\n"
                    )
            first = run(rows, Path(scratch, "run"))
            again = run(rows, Path(scratch, "run"))
            with Path(scratch, "run", "results.jsonl").open("rb") as file:
                lines = sum(1 for _ in file)
            assert lines == count, f"{lines} results for {count} rows"
        results.append({"rows": count, "run": first, "rerun": again})
        print(json.dumps(results[-1]), flush=True)
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "command": "python -m bench.run_loop " + " ".join(sys.argv[1:]),
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "python": platform.python_version(),
        "results": results,
    }
    if len(results) > 1:
        low, high = results[0], results[-1]
        grown = (high["run"]["main_peak_mb"] - low["run"]["main_peak_mb"]) * 1e6 / (high["rows"] - low["rows"])
        report["main_process_bytes_per_row"] = round(grown, 1)
        print(f"main process: {grown:.0f} bytes per row")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "run_loop.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
