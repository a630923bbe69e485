"""Prints how many labelled texts are judged right, and which are not."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.backends.remote import answers

for path in [Path(name) for name in sys.argv[1:]] or answers.FILES:
    wrong, counts = answers.judge(path)
    for text in wrong[True] + wrong[False]:
        print(f"  {text}")
    good, bad = (1 - len(wrong[label]) / max(1, counts[label]) for label in (True, False))
    print(f"{path.name}: {good:.1%} of {counts[True]} good texts kept, {bad:.1%} of {counts[False]} bad texts named")
