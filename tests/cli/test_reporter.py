"""What the terminal says about the end of a run."""

from __future__ import annotations

import pytest

from fastgen.cli.reporter import Report, plural
from fastgen.resolver import resolve


@pytest.mark.parametrize(
    ("kinds", "advice"),
    [
        (["quota"], "(run the same command to try them again)"),
        (["rate_limited", "unavailable"], "(run the same command to try them again)"),
        (["input"], "(fix them and run this file with another -o, or use --retry-failed here)"),
        (["quota", "oom"], "(fix them and run this file with another -o, or use --retry-failed here)"),
        ([], "(fix them and run this file with another -o, or use --retry-failed here)"),
    ],
)
def test_the_advice_for_failed_rows_fits_the_reason(tmp_path, capsys, kinds, advice):
    report = Report("human", resolve("t2i", out=tmp_path, model="tiny", gpus="cpu"))
    for kind in kinds:
        report.emit("row_failed", id="a", kind=kind, message="row 1: it failed")
    report.end("finished", 3, {"counts": {"done": 1, "failed": 1, "kept": 2, "images": 1}})
    said = capsys.readouterr().err
    assert f"failed rows: {tmp_path}/failures.jsonl {advice}\n" in said
    assert "1 done, 1 failed, 2 kept (already filled); 1 image made in " in said


def test_plural():
    assert [plural(n, "row") for n in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
    assert plural(1, "batch", "es") == "1 batch" and plural(2, "batch", "es") == "2 batches"
