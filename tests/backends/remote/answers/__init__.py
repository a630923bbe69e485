"""Labelled texts that came as captions, and how many of them are judged right.

python -m tests.backends.remote.answers [FILE ...]      without FILE, those of the package
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fastgen.backends.remote import no_answers
from fastgen.backends.remote.answer_text import text_of
from fastgen.backends.remote.responses import ProviderError

FILES = sorted(Path(__file__).parent.glob("*.txt"))


def read(path: Path) -> Iterator[tuple[bool, str, str]]:
    """(is good, language, text) of each line."""
    label, language = "", ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("== "):
            label, language = line.split()[1:]
        elif line.strip() and label:
            yield label == "good", language, line.replace("\\n", "\n")


def is_kept(text: str) -> bool:
    """Whether a text would be stored as a caption."""
    try:
        text_of(text, "stop", None)
    except ProviderError:
        return False
    return True


def judge(path: Path) -> tuple[dict[bool, list[str]], dict[bool, int]]:
    """(is good -> texts that are judged wrong, is good -> number of texts)."""
    wrong: dict[bool, list[str]] = {True: [], False: []}
    counts = {True: 0, False: 0}
    for is_good, language, text in read(path):
        counts[is_good] += 1
        if is_kept(text) != is_good:
            wrong[is_good].append(f"{language} {no_answers.kind_of(text) or 'kept'}: {text}")
    return wrong, counts
