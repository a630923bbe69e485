"""The table in docs/gpus.md is what the planner says.

python -m tests.resolver.test_gpus_page     writes the table anew
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from fastgen.config.settings import Settings
from tests.resolver.gpus import (
    A100_40,
    A100_80,
    B200,
    H100,
    H200,
    HOST_GIB,
    L40S,
    MODELS,
    RTX_3060,
    RTX_3090,
    RTX_4080,
    RTX_4090,
    RTX_5090,
    gpu,
    resolved,
)

PAGE = Path(__file__).parents[2] / "docs" / "gpus.md"
BEGIN, END = "<!-- gpus -->\n", "<!-- /gpus -->\n"
CLASSES = {
    "12 GB, Ampere (RTX 3060)": RTX_3060,
    "12 GB, Ada (RTX 4070)": gpu("RTX 4070", 12.0, "8.9"),
    "16 GB, Ada (RTX 4080)": RTX_4080,
    "16 GB, Blackwell (RTX 5080)": gpu("RTX 5080", 15.9, "12.0"),
    "24 GB, Ampere (RTX 3090, A10)": RTX_3090,
    "24 GB, Ada (RTX 4090, L4)": RTX_4090,
    "32 GB, Blackwell (RTX 5090)": RTX_5090,
    "40 GB, Ampere (A100)": A100_40,
    "48 GB, Ampere (A6000, A40)": gpu("A40", 45.0, "8.6"),
    "48 GB, Ada (L40S)": L40S,
    "80 GB, Ampere (A100)": A100_80,
    "80 GB, Hopper (H100)": H100,
    "96 GB, Blackwell (RTX PRO 6000)": gpu("RTX PRO 6000", 95.6, "12.0"),
    "141 GB, Hopper (H200)": H200,
    "180 GB, Blackwell (B200)": B200,
}
SMALL_HOST_GIB = 24.0
"""Free main memory where 32 GB are built in, other programs run, and layers cannot be streamed."""


def says(settings: Settings) -> str:
    chosen = settings.optimizations
    precision = settings.engine.dtype if chosen.quantize.is_plain else chosen.quantize.word()
    placed = "" if chosen.offload.is_plain else f", offload {chosen.offload.kind}"
    return f"{precision}{placed}: {settings.fit.need.gib:.1f} GiB"


def table(folder: Path) -> str:
    lines = []
    for model in MODELS:
        lines += [f"**{model}**", ""]
        lines += [
            f"| GPU | `exact` and `high` | `fast` | `exact` with {SMALL_HOST_GIB:.0f} GiB of main memory | speed |"
        ]
        lines += ["|---|---|---|---|---|"]
        for name, card in CLASSES.items():
            exact, high, fast = (resolved(folder, model, card, quality=one) for one in ("exact", "high", "fast"))
            assert says(exact).partition(":")[0] == says(high).partition(":")[0]  # the cache needs a little more
            low = resolved(folder, model, card, host_gib=SMALL_HOST_GIB)
            lines.append(f"| {name} | {says(exact)} | {says(fast)} | {says(low)} | not measured |")
        lines.append("")
    return "\n".join(lines)


def test_the_table_is_what_is_in_the_docs(tmp_path):
    text = PAGE.read_text("utf-8")
    shown = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    assert shown == table(tmp_path), "python -m tests.resolver.test_gpus_page writes it"


def test_the_page_reckons_with_the_same_main_memory():
    assert f"{HOST_GIB:.0f} GiB of free main memory" in PAGE.read_text("utf-8").replace("\n", " ")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        page = PAGE.read_text("utf-8")
        page = page[: page.index(BEGIN) + len(BEGIN)] + table(Path(folder)) + page[page.index(END) :]
        PAGE.write_text(page, "utf-8")
