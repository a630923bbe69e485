"""Rows that a service refuses in the same words before it has done any: then the settings are at fault, not the rows.
Such rows are held back until that is known. Pure: does not know workers or the clock.
"""

from __future__ import annotations

import re
from collections import Counter

from fastgen.scheduler.routing import Group
from fastgen.types import Failed, Request

MOST = 10
"""So many rows that are refused alike, and none done, close a backend."""
MOST_HELD = 200
"""With so many rows that are refused differently, the rows are at fault."""
_BY_SERVICE = re.compile(r"4\d\d\b")
"""How messages begin that quote a service."""
_ABOUT_ROW = re.compile(
    r"at most \d+ (image|picture|audio|video)|too (long|large|many|big|small)|exceed|context length|"
    r"maximum (length|number|size)|"
    r"decode|corrupt|cannot identify image|image (data|file|size|dimension)|not a valid image|base64|characters",
    re.IGNORECASE,
)
"""Complaints about one row, though many rows may have the same fault."""
_FIXES = (
    (r"\bsystem\b|\broles?\b", "--system '' sends no system prompt"),
    (r"response_format|json_schema|structured|guided|grammar|\bschema\b", "leave --schema out, or simplify it"),
    (r"chat_template_kwargs|enable_thinking|reasoning_effort", "leave --thinking out"),
    (r"max_(completion_)?tokens", "give another --max-tokens"),
    (r"temperature", "give another --temperature"),
    (r"\bsize\b|resolution|width|height", "give another --size, or leave it out"),
    (r"quality", "leave --quality out"),
    (r"background", "leave --background out"),
    (r"aspect.?ratio", "leave --aspect-ratio out"),
    (r"output_format|\bformat\b", "give another --format"),
    (r"image|vision|multimodal|image_url|modalit", "choose a model that reads images with --model"),
)


class Alike:
    """Of one run."""

    def __init__(self) -> None:
        self._held: dict[int, list[tuple[Request, Failed]]] = {}
        """Position of a backend -> rows that it refused, and why."""
        self._settled: set[int] = set()
        """Backends that have done a row."""

    def hold(self, request: Request, failed: Failed, group: Group) -> bool:
        """Whether a failed row is held back, also one that was on its way when its backend was closed."""
        if group.position in self._settled or failed.kind != "input":
            return False
        if not _BY_SERVICE.match(failed.message) or _ABOUT_ROW.search(failed.message):
            return False
        self._held.setdefault(group.position, []).append((request, failed))
        return True

    def done(self, group: Group) -> list[tuple[Request, Failed]]:
        """A backend has done a row. Returns the rows that it refused: they are at fault."""
        self._settled.add(group.position)
        return self._held.pop(group.position, [])

    def verdict(self, group: Group) -> str:
        """Why a backend gets no more rows; "" if that is not known."""
        held = self._held.get(group.position, [])
        counts = Counter(_same(failed.message) for _, failed in held)
        if not counts or (most := counts.most_common(1)[0])[1] < MOST:
            return ""
        said = next(failed.message for _, failed in held if _same(failed.message) == most[0])
        fix = next((fix for words, fix in _FIXES if re.search(words, said, re.IGNORECASE)), "check the flags")
        return f"the first {most[1]} rows are refused alike, so the settings are at fault: {said}. To fix it, {fix}"

    def overflow(self, group: Group) -> bool:
        """Whether too many rows are held."""
        return len(self._held.get(group.position, ())) >= MOST_HELD

    def take_back(self, group: Group) -> list[Request]:
        """The held rows of a backend that takes no more rows."""
        return [request for request, _ in self._held.pop(group.position, [])]

    def close(self) -> list[tuple[Request, Failed]]:
        """Nothing else is left to run. Returns the rows that are held."""
        held = [entry for entries in self._held.values() for entry in entries]
        self._held.clear()
        return held


def _same(message: str) -> str:
    """A message without what differs from row to row."""
    return re.sub(r"\d+|'[^']*'|\"[^\"]*\"|[0-9a-f-]{16,}", "_", message)
