"""Writes docs/bad_input.md."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from tests.scenarios.bad_inputs import page
from tests.scenarios.bad_inputs.told import everything, workshop

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place, workshop(Path(place)) as folder:
        page.PATH.write_text(page.text(everything(folder), folder), "utf-8")
    print(f"{page.PATH} is written")
