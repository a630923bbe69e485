"""All errors that fastgen raises on purpose, as a tree. Does not know how they are shown.

FastgenError               exit code 1
├── SettingsError          exit code 2: wrong usage or settings, found before any work
│   ├── ModelError         the model is unknown, incomplete or not of a supported family
│   └── RunFolderError     the run folder is in use, read-only, or was made with other settings
├── InputError             one row is bad: names the field and the fix; never ends a run
├── EngineError            no worker can continue: an engine cannot start or keeps dying, a service takes no more
├── BudgetError            --max-cost is reached; what is done is safe
├── DiskError              the output disk refuses writes; what is done is safe
└── StorageError           object storage does not answer, or refuses; what is done is safe
"""

from __future__ import annotations

import re

MOST_QUOTED = 200
"""At most this many characters of a user's value go into a message; an image in base64 has millions."""
_WORD = re.compile(rf"\S{{{MOST_QUOTED + 1},}}")


def quoted(value: object, most: int = MOST_QUOTED) -> str:
    """A user's value for a message: one line of at most `most` characters, with start and end of a longer value.

    What a terminal should not get (line breaks, escape sequences, lone surrogates) is written as an escape.
    """
    try:
        text = value if isinstance(value, str) else str(value)
    except ValueError:  # an integer with more digits than Python writes
        text = f"a value of type {type(value).__name__}"
    long = len(text) > most
    if long:
        text = f"{text[: most * 3 // 5]}...{text[-most * 3 // 10 :]}"
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


class FastgenError(Exception):
    """Base class of these errors. The text is meant for the user, and no word in it is longer than `MOST_QUOTED`.

    >>> import fastgen
    >>> try:
    ...     fastgen.resolve("t2i", model="no-such-model", gpus="cpu")
    ... except fastgen.FastgenError as error:
    ...     print(type(error).__name__, error.exit_code)
    ModelError 2
    """

    exit_code = 1
    most = 10_000
    """Characters of the longest message."""

    def __init__(self, message: str = ""):
        message = _WORD.sub(lambda found: quoted(found.group()), str(message))
        super().__init__(message if len(message) <= self.most else f"{message[: self.most - 3]}...")


class SettingsError(FastgenError):
    """The user asked for something that cannot be done; nothing has been started.

    >>> import fastgen
    >>> try:
    ...     fastgen.resolve("t2i", model="tiny", gpus="cpu", steps=0)
    ... except fastgen.SettingsError as error:
    ...     print(error)
    --steps 0: must be a whole number from 1 to 1000
    """

    exit_code = 2


class ModelError(SettingsError):
    """The model cannot be used: unknown name, missing or damaged file, unsupported family.

    >>> import fastgen
    >>> try:
    ...     fastgen.resolve("t2i", model="./no-such-folder", gpus="cpu")
    ... except fastgen.ModelError as error:
    ...     print(str(error)[:24])
    --model ./no-such-folder
    """


class RunFolderError(SettingsError):
    """The run folder cannot be used: locked, read-only, or made with other settings.

    >>> import fastgen
    >>> settings = fastgen.resolve("t2i", out="run", model="tiny", gpus="cpu", size="128x128", steps=5)
    >>> try:
    ...     list(fastgen.generate(settings, rows=[{"prompt": "a fox"}]))
    ... except fastgen.RunFolderError as error:
    ...     print("steps: 4 before, 5 now" in str(error))
    True
    """


class InputError(FastgenError):
    """One row is bad. A run never raises it: the row has a `Failed` of the kind "input", with the same message.

    >>> import fastgen
    >>> error = fastgen.InputError("row 3, field size: is not a size; write 1024x768", "size")
    >>> error.field
    'size'

    Args:
        message: what is wrong and how to fix it.
        field: the field of the user's row that is at fault, or "" if the row as a whole is.
    """

    most = 1000

    def __init__(self, message: str, field: str = ""):
        super().__init__(message)
        self.field = field


class EngineError(FastgenError):
    """The engines cannot continue; the message says why and where their log is.

    >>> import fastgen
    >>> fastgen.EngineError.exit_code, issubclass(fastgen.EngineError, fastgen.FastgenError)
    (1, True)
    """


class BudgetError(FastgenError):
    """The next request could cost more than --max-cost has left. Run the same command with a higher one to continue.

    >>> import fastgen
    >>> fastgen.BudgetError.exit_code, issubclass(fastgen.BudgetError, fastgen.FastgenError)
    (1, True)
    """


class DiskError(FastgenError):
    """The output disk refuses writes. Free some space and run the same command again.

    >>> import fastgen
    >>> fastgen.DiskError.exit_code, issubclass(fastgen.DiskError, fastgen.FastgenError)
    (1, True)
    """


class StorageError(FastgenError):
    """Object storage (s3:// and the like) does not answer or refuses. What is done is safe; run the same command again.

    >>> import fastgen
    >>> fastgen.StorageError.exit_code, issubclass(fastgen.StorageError, fastgen.FastgenError)
    (1, True)
    """
