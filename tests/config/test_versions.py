"""Which versions of libraries are refused, and that the numbers are those of pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from fastgen.config import versions

ROOT = Path(__file__).parents[2]


def test_the_bounds_are_those_that_pip_reads():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    bounds = {name: least for text in wanted for name, least in re.findall(r"^([\w-]+)>=([\d.]+)", text)}
    assert {name: bounds[name] for name in versions.LOWEST} == versions.LOWEST


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-lowest.txt", "constraints-newest.txt"])
def test_every_tested_set_is_within_the_bounds(file, monkeypatch):
    pinned = dict(line.split("==") for line in (ROOT / file).read_text().splitlines() if "==" in line)
    monkeypatch.setattr(versions, "version", pinned.__getitem__)
    assert [reason for name in versions.LOWEST if (reason := versions.unfit(name))] == []


def test_the_lowest_set_is_at_the_bounds():
    pinned = dict(re.findall(r"^(\w+)==([\d.]+)$", (ROOT / "constraints-lowest.txt").read_text(), re.MULTILINE))
    assert all(pinned[name].startswith(least) for name, least in versions.LOWEST.items())


@pytest.mark.parametrize(
    ("found", "fits"),
    [
        ("2.11.0+cu130", True),
        ("2.11", True),
        ("2.14.1", True),
        ("2.13.0a0+git1234", True),
        ("2.10.0", False),
        ("2.9.1+cpu", False),
    ],
)
def test_versions_are_compared_by_number(found, fits, monkeypatch):
    monkeypatch.setattr(versions, "version", lambda name: found)
    assert (versions.unfit("torch") == "") == fits
    if not fits:
        assert versions.unfit("torch") == (
            f"torch {found} is too old: 2.11 or newer is needed; pip install 'torch>=2.11'"
        )


def test_a_run_is_refused_before_anything_is_written(monkeypatch, tmp_path):
    import fastgen
    from fastgen.scheduler.run import Run

    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a"}\n')
    settings = fastgen.resolve("t2i", rows, out=tmp_path / "out", model="tiny", gpus="cpu")
    monkeypatch.setattr(versions, "version", lambda name: "2.9.1" if name == "torch" else "99")
    with pytest.raises(fastgen.SettingsError, match=r"torch 2\.9\.1 is too old"):
        Run(settings)
    assert not (tmp_path / "out").exists()
