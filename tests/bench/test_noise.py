"""What is said about figures that cannot be trusted."""

from __future__ import annotations

import pytest

from fastgen.bench import noise, report


def arm(name: str, least: float, most: float, rates=(1.0, 1.02)) -> dict:
    return {
        "name": name,
        "images_per_second": 1.0,
        "images_per_second_by_round": list(rates),
        "ratio": (least + most) / 2,
        "ratio_least": least,
        "ratio_most": most,
        "first_image_seconds": 1.0,
        "peak_memory_gib": {"main": 1.0, "gpu": None},
        "score": {"right": 10, "of": 12},
        "share_of_peak": 0.5,
        "psnr_db": 30.0,
        "ssim": 0.99,
        "same_text": None,
        "times_fewer_blocks": 1.5,
        "recompiles": 0,
        "refused": "",
        "same_as": "",
        "failed": "",
    }


def bench(*arms: dict, load: float = 0.1) -> dict:
    about = {"memory_gib": None, "task": "t2i", "hardware": "2 threads", "weights": "as given", "load_before": load}
    return {"about": about | {"cores": 2}, "arms": list(arms)}


def test_a_quiet_bench_has_no_warning():
    assert noise.warnings(bench(arm("diffusers", 1, 1), arm("plain", 1.1, 1.2))) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (bench(arm("diffusers", 1, 1), load=1.9), "other programs kept 1.9 of 2 processors busy"),
        (bench(arm("diffusers", 1, 1, (1.0, 2.0))), "diffusers itself made between 1 and 2 per second"),
        (bench(arm("diffusers", 1, 1), arm("a", 0.33, 14.84), arm("b", 1.1, 1.2)), "the rounds of a differ too much"),
    ],
)
def test_each_reason_is_named(found, words):
    [said] = noise.warnings(found)
    assert said.startswith(words)


def test_noise_is_marked_in_the_table():
    found = bench(arm("diffusers", 1, 1), arm("a", 0.33, 14.84), arm("b", 1.1, 1.2))
    ratios = [row[2] for row in report.table_of(found)]
    assert ratios == ["ratio", "1.00", "7.58 ?", "1.15"]


@pytest.mark.parametrize("columns", [80, 60, 170])
def test_the_table_fits_the_terminal(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    long = "compile + cache first-block:0.1"
    report.show(bench(arm("diffusers", 1, 1), arm(long, 0.33, 14.84), load=2.0))
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= columns for line in lines)
    text = "\n".join(lines)
    assert "…" not in text and text.count(long) >= (1 if columns == 170 else 2)
    for cell in ("0.33-14.84", "7.58 ?", "0.990", "10 of 12", "warning: other programs"):
        assert cell in text
