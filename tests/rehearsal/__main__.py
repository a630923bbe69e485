"""python -m tests.rehearsal [--out docs] [--cards 12,24] [--models flux-dev] [--qualities exact]

The whole matrix, some minutes. Ends with 1 if anything is wrong. A part of it is written only where --out says.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from tests.rehearsal import cases, report
from tests.rehearsal.cards import BY_GB

DOCS = Path(__file__).parents[2] / "docs"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rehearsal", description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cards", default=",".join(map(str, BY_GB)))
    parser.add_argument("--models", default=",".join(cases.MODELS))
    parser.add_argument("--qualities", default=",".join(cases.QUALITIES))
    asked = parser.parse_args()
    whole = all(getattr(asked, name) == parser.get_default(name) for name in ("cards", "models", "qualities"))
    torch.set_num_threads(1)
    cards = [BY_GB[int(gb)] for gb in asked.cards.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        rows, refused = run(Path(folder), cards, asked.models.split(","), asked.qualities.split(","))
    if out := asked.out or (DOCS if whole else None):
        report.write(rows, refused, out, " ".join(["python -m tests.rehearsal", *sys.argv[1:]]))
    return int(any(row["problems"] for row in rows))


def run(folder: Path, cards: list, models: list[str], qualities: list[str]) -> tuple[list[dict], list[tuple]]:
    rows: list[dict] = []
    refused: list[tuple] = []
    for setup in cases.setups(folder, cards, models, qualities, refused):
        try:
            for outcome in cases.rehearse(setup, folder, is_quick=True):
                rows.append(report.row(outcome))
                say(rows[-1], outcome.seconds)
        except Exception as error:  # a rehearsal is there to find what goes wrong
            rows.append(report.failed(setup, error))
            say(rows[-1], 0.0)
    return rows, [(model, quality, card.sold_as_gb) for model, quality, card in refused]


def say(row: dict, seconds: float) -> None:
    numbers = f"peak {row.get('peak_gib', '-')} GiB, {row.get('step_tflop', '-')} TFLOP, {seconds:.0f} s"
    print(row["model"], row["quality"], row["cards_gb"], row["choices"], row["batch"], numbers, sep="; ", flush=True)
    for problem in row["problems"]:
        print("  WRONG:", problem, flush=True)


if __name__ == "__main__":
    sys.exit(main())
