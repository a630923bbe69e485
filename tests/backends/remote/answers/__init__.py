"""Labelled texts that came as captions, grammars that give more of them, and how many are judged right.

A heading `== KIND LANGUAGE` says what the lines after it are: good, refusal, error, nothing; or bad, for any that is
not good. In a line, "\\n" is a line break; in a grammar, `{a|b}` is one of several. The classifier is trained on all of
them but `unseen-*.txt` (bench/answers.py).
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fastgen.backends.remote.answer_text import text_of
from fastgen.backends.remote.responses import ProviderError

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.txt"))
TRAINED = [path for path in FILES if not path.stem.startswith("unseen")]
UNSEEN = [path for path in FILES if path.stem.startswith("unseen")]
GRAMMARS = sorted((HERE / "grammar").glob("*.txt"))
_KINDS = {"refused": "refusal", "transient": "error", "empty": "nothing"}
_CHOICE = re.compile(r"\{([^{}]*)\}")


def digest() -> str:
    """Of the texts that the classifier is trained on."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in [*GRAMMARS, *TRAINED])).hexdigest()


def lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """(label, language, line) of each line."""
    label, language = "", ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("== "):
            label, language = line.split()[1:]
        elif line.strip() and label:
            yield label, language, line


def read(path: Path) -> Iterator[tuple[str, str, str]]:
    """(label, language, text) of each labelled text."""
    for label, language, line in lines(path):
        yield label, language, line.replace("\\n", "\n")


def expand(line: str, rng: random.Random) -> str:
    """One of the texts that a line of a grammar stands for."""
    return _CHOICE.sub(lambda found: rng.choice(found[1].split("|")), line)


def kind_of(text: str) -> str:
    """What a text is taken for: good, refusal, error, nothing."""
    try:
        text_of(text, "stop", None)
    except ProviderError as error:
        return _KINDS.get(error.kind, error.kind)
    return "good"


@dataclass
class Judged:
    """A set of labelled texts, and what is wrong."""

    counts: tuple[int, int] = (0, 0)
    """How many are good, and how many are bad."""
    lost: list[str] = field(default_factory=list)
    """Good texts that are not kept."""
    passed: list[str] = field(default_factory=list)
    """Bad texts that are kept."""
    right_kind: int = 0
    """Bad texts that are taken for what they are."""


def judge(path: Path) -> Judged:
    judged, good, bad = Judged(), 0, 0
    for label, language, text in read(path):
        found = kind_of(text)
        good, bad = good + (label == "good"), bad + (label != "good")
        judged.right_kind += label != "good" and (found in (label, "nothing") or (label == "bad" and found != "good"))
        if (found == "good") != (label == "good"):
            (judged.lost if label == "good" else judged.passed).append(f"{language}: {text} ({found})")
    judged.counts = good, bad
    return judged
