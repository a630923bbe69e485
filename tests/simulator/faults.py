"""Which request fails, and how it is named. What a fault looks like on the wire is in openai_side and gemini_side.

A prompt that contains `fault:NAME` fails so each time, `fault:NAME:once` only the first time that prompt is seen, and
`fault:NAME:3` the first three times. `Faults(share=0.2)` lets a share of all requests fail by lot. The lot depends on
the seed and on the prompt and its attempt (or the request's number), so that it does not depend on timing.

Billed as a full answer: hang, disconnect and cut_json (a service that falls silent after its work bills it). Not
billed: the early ones, html_200, and moderation in the OpenAI format. All others by the usage block that they show.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from tests.simulator.drawing import digest

# Refused before any work is done: these come without the latency and cost nothing.
EARLY = frozenset(
    ["rate_limit", "rate_limit_after", "per_day_quota", "insufficient_quota", "error_500", "unauthorized", "overloaded"]
)
_ALL = EARLY | frozenset(["moderation", "html_200", "data_null", "cut_json", "hang", "disconnect"])
_TEXT = frozenset(["empty_choices", "refusal_text", "length", "content_filter", "empty_text"])
_PICTURE = frozenset(["wrong_size", "jpeg_for_png", "no_image", "image_safety"])
# What each operation can show; a fault that it cannot is no fault.
APPLIES: dict[str, frozenset[str]] = {
    "generate": _ALL | _PICTURE | {"empty_choices"},
    "edit": _ALL | _PICTURE | {"empty_choices"},
    "chat": _ALL | _TEXT | {"refusal_field"},
    "gemini picture": _ALL | _TEXT | _PICTURE,
    "gemini text": _ALL | _TEXT | {"refusal_field"},
}
NAMES: tuple[str, ...] = tuple(sorted(frozenset().union(*APPLIES.values())))
WORD = re.compile(r"fault:([a-z0-9_]+)(?::(once|\d+))?")


@dataclass
class Faults:
    """share: of all requests; names: the faults to draw from (all that apply); storm: seconds t0 to t1, all 429;
    in_200: the storm's errors come with status 200, as from a gateway."""

    share: float = 0.0
    names: tuple[str, ...] | list[str] = ()
    seed: int = 0
    by: Literal["attempt", "prompt", "number"] = "attempt"
    storm: tuple[float, float] | None = None
    in_200: bool = False
    seen: Counter = field(default_factory=Counter, repr=False)

    def __post_init__(self):
        unknown = set(self.names) - set(NAMES)
        if unknown:
            raise ValueError(f"no such fault: {sorted(unknown)}")

    def stormy(self, seconds: float) -> bool:
        return self.storm is not None and self.storm[0] <= seconds < self.storm[1]

    def choose(self, kind: str, prompt: str, number: int) -> str:
        """The fault's name, or "". kind: a key of APPLIES. One caller at a time."""
        self.seen[kind, prompt] += 1
        attempt = self.seen[kind, prompt]
        for name, times in WORD.findall(prompt):
            if name not in NAMES:
                raise ValueError(f"the prompt asks for a fault that there is not: {name}")
            limit = 1 if times == "once" else int(times or 0)
            if name in APPLIES[kind] and (not limit or attempt <= limit):
                return name
        if not self.share:
            return ""
        what = {"attempt": (prompt, attempt), "prompt": (prompt,), "number": (number,)}[self.by]
        lot = digest("lot", self.seed, kind, *what)
        if int.from_bytes(lot[:4], "big") >= self.share * 2**32:
            return ""
        able = sorted(APPLIES[kind].intersection(self.names or NAMES))
        return able[int.from_bytes(lot[4:8], "big") % len(able)] if able else ""
