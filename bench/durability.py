"""What it costs that a picture is safe on disk before the journal says that it is done.

    python -m bench.durability [--pictures 200] [--rounds 7] [--folder FOLDER]

Pictures of a megapixel (1.5 MB) and tiny ones (70 bytes) are written as a run writes them: temporary file, fsync,
rename, and for every four of them an fsync of the folder. Each step is left out once, in turns within a round. The
least of all rounds counts, since other programs only add to it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fastgen.config import stamps
from fastgen.output import artifacts

BATCH = 4
SIZES = {"1.5 MB": 1_500_000, "70 B": 70}


def plain(out: Path, name: str, data: bytes) -> None:
    temporary = out / artifacts.PARTIAL / name
    temporary.write_bytes(data)
    os.rename(temporary, out / artifacts.IMAGES / name)


def synced(out: Path, name: str, data: bytes) -> None:
    with artifacts.atomic(out, f"{artifacts.IMAGES}/{name}") as file:
        file.write(data)


def hashed(out: Path, name: str, data: bytes) -> None:
    artifacts.write(out, f"{artifacts.IMAGES}/{name}", data)


WAYS: dict[str, tuple[Callable[[Path, str, bytes], object], bool]] = {
    "neither": (plain, False),
    "files synced": (synced, False),
    "files and folder synced": (synced, True),
    "both, and hashed": (hashed, True),
}


def seconds(out: Path, data: bytes, count: int, write: Callable[[Path, str, bytes], object], folder: bool) -> float:
    started = time.perf_counter()
    for number in range(count):
        write(out, f"{number}.png", data)
        if folder and number % BATCH == BATCH - 1:
            artifacts.sync_folder(out / artifacts.IMAGES)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    args = parser.parse_args()
    for title, size in SIZES.items():
        data = os.urandom(size)
        least: dict[str, float] = {}
        for _ in range(args.rounds):
            for name, (write, folder) in WAYS.items():
                with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
                    artifacts.clear_partial(Path(scratch))
                    artifacts.prepare(Path(scratch))
                    os.sync()  # what others wrote is not counted here
                    took = seconds(Path(scratch), data, args.pictures, write, folder)
                least[name] = min(took, least.get(name, took))
        for name, took in least.items():
            print(f"{title:>7}  {name:<24} {1000 * took / args.pictures:7.3f} ms per picture")
    started = time.perf_counter()
    for _ in range(20):
        stamps.digest(bytes(1_500_000))
    print(f"hash of 1.5 MB: {(time.perf_counter() - started) * 50:.2f} ms")


if __name__ == "__main__":
    main()
