"""docs/bad_input.md: every bad input with its message, as the code says it. What differs between machines and versions
of libraries is left out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import fastgen
from tests.scenarios.bad_inputs.told import Room, Told

PATH = Path(fastgen.__file__).parents[1] / "docs" / "bad_input.md"
COMMAND = "python -m tests.scenarios.bad_inputs"
HEAD = f"""# Bad input and what fastgen says

A bad row fails alone: the other rows of its run are done, and the message is in the row's `fastgen.error`, in
`failures.jsonl` and on the terminal. A flag, file or setting that cannot be used ends the command before any work, with
exit code 2.

`tests/scenarios/test_bad_input_table.py` sends every input below and compares what is said with this page;
`{COMMAND}` writes it. In the messages, N is the number of the row, FOLDER the current folder, and
REASON what a library or the system says. Long values are shortened further than in the messages themselves.
"""
REASONS = (
    r"(?<=is damaged: ).*(?=; save it again)",
    r"(?<=cut short: ).*(?=; save it again)",
    r"(?<=cannot be read: )(?!its|not).*(?=; (load|save) it again)",
    r"(?<=not valid JSON: )(?!it ).*?(?= at column|; )",
    r"(?<=cannot be read as JSON: )(?!it |not UTF-8).*(?=; fix)",
    r"(?<=not a JSON schema: )(?!it |\$ref).*(?=; fix)",
    r"(?<=Invalid value for '--[a-z-]{1,20}': ).*",
    r"(?<=\.toml: )(Invalid|Expected|Object).*(?=; see)",
    r"(?<=[a-z]: )(Object|Expected).*(?=; see)",
    r"(?<=download )failed: .*",
)
"""What libraries say in their own words."""


def text(rooms: Iterable[Room], folder: Path) -> str:
    lines = [HEAD]
    for room in rooms:
        lines += [f"\n## {room.title}\n", "| input | where | message |", "|---|---|---|"]
        lines += [_line(one, folder) for one in room.told]
    return "\n".join(lines) + "\n"


def plain(message: str, folder: Path) -> str:
    """The message as it is on every machine."""
    for place, word in ((str(folder.resolve()), "FOLDER"), (str(folder), "FOLDER"), (str(PATH.parents[1]), "FASTGEN")):
        message = message.replace(place, word)
    message = re.sub(r"127\.0\.0\.1:\d{4,5}", "127.0.0.1:PORT", message)
    message = re.sub(r"as of \d{4}-\d\d-\d\d", "as of DATE", message)
    message = re.sub(r"^row \d+", "row N", message)
    for pattern in REASONS:
        message = _replaced(pattern, message)
    return re.sub(r"(.)\1{15,}|((?:\.\./){5})(?:\.\./)+", lambda found: f"{(found[1] or '') * 5 or found[2]}…", message)


def _replaced(pattern: str, message: str) -> str:
    if "{1,20}" in pattern:  # a look-behind has one width
        return re.sub(r"(Invalid value for '[^']+'(?: / '[^']+')?: ).*", r"\1REASON", message)
    return re.sub(pattern, "REASON", message)


def _line(told: Told, folder: Path) -> str:
    message = plain(told.message, folder).replace("|", "\\|") or "(none: the row is done)"
    return f"| {told.kind.replace('|', chr(92) + '|')} | {told.where} | {message} |"
