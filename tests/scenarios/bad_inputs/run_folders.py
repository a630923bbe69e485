"""Run folders that another run, another program or an accident left."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.scenarios.bad_inputs.case import Command

RUN = ("t2i", "rows.jsonl", "--backend", "fake", "--gpus", "cpu", "-o")
Change = Callable[[Path], object]


def _settings(value: object) -> Change:
    def change(folder: Path) -> None:
        about = json.loads((folder / "run.json").read_text())
        about["settings"] = value
        (folder / "run.json").write_text(json.dumps(about))

    return change


def _text(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text)


def _instead(name: str, make: Change) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def _table_only(folder: Path) -> None:
    for path in list(folder.iterdir()):
        if path.name != "results.jsonl":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


CHANGES: dict[str, tuple[str, tuple[str, ...], Change, str]] = {
    "other settings": ("settings", ("--steps", "9"), lambda folder: None, "steps: 4 before, 9 now"),
    "another task": ("task", (), _settings({"task": "caption"}), "task: 'caption' before"),
    "the journal is missing": ("no-journal", (), lambda folder: (folder / "journal.jsonl").unlink(), "is missing"),
    "the journal is empty": ("empty-journal", (), _text("journal.jsonl", ""), "is empty"),
    "the journal is a folder": ("journal-folder", (), _instead("journal.jsonl", Path.mkdir), "journal.jsonl"),
    "the journal is a pipe": ("journal-pipe", (), _instead("journal.jsonl", os.mkfifo), "journal.jsonl"),
    "run.json is missing": ("no-run", (), lambda folder: (folder / "run.json").unlink(), "missing or damaged"),
    "run.json is empty": ("empty-run", (), _text("run.json", ""), "missing or damaged"),
    "run.json is another program's": ("foreign-run", (), _text("run.json", '{"name": "x"}'), "missing or damaged"),
    "run.json is a list": ("list-run", (), _text("run.json", "[1]"), "missing or damaged"),
    "run.json has 100,000 brackets": ("deep-run", (), _text("run.json", "[" * 100_000), "missing or damaged"),
    "run.json has settings of another type": ("list-settings", (), _settings([1]), "missing or damaged"),
    "run.json is a folder": ("run-folder", (), _instead("run.json", Path.mkdir), "run.json"),
    "a table that is no run's": ("table", (), _table_only, "was not made by fastgen"),
    "images is a file": (
        "images-file",
        (),
        lambda folder: (shutil.rmtree(folder / "images"), (folder / "images").touch()),
        "images",
    ),
    "the lock is a folder": ("lock-folder", (), _instead(".lock", Path.mkdir), "cannot write there"),
}
COMMANDS = [
    Command(f"-o: {kind}", (*RUN, folder, *flags), "-o", words) for kind, (folder, flags, _, words) in CHANGES.items()
]
COMMANDS += [
    Command(
        "INPUT is the table of its own run", ("t2i", "whole/results.jsonl", *RUN[2:], "whole"), "-o", "use another"
    ),
    Command(
        "`--fresh` would move INPUT",
        ("t2i", "whole/images/rows.jsonl", *RUN[2:], "whole", "--fresh"),
        "-o",
        "would move",
    ),
    Command("check: a journal that is a folder", ("check", "journal-folder"), "journal-folder", "journal.jsonl"),
    Command("check: a journal that is a pipe", ("check", "journal-pipe"), "journal-pipe", "journal.jsonl"),
]


def make_folders(folder: Path) -> None:
    """`whole`, a finished run of rows.jsonl, and its damaged copies."""
    import fastgen

    settings = fastgen.resolve("t2i", folder / "rows.jsonl", out=folder / "whole", backend="fake", gpus="cpu")
    assert [type(result) for result in fastgen.generate(settings)] == [fastgen.Done]
    for name, _, change, _ in CHANGES.values():
        shutil.copytree(folder / "whole", folder / name)
        change(folder / name)
    shutil.copy(folder / "rows.jsonl", folder / "whole" / "images" / "rows.jsonl")
