"""`fastgen check` as a person and as a program meets it."""

from __future__ import annotations

import json

import pytest

FAKE = ("--backend", "fake", "--gpus", "cpu")


@pytest.fixture
def out(cli, rows_file, tmp_path):
    assert cli("t2i", rows_file([{"id": f"{i}", "prompt": "p"} for i in range(3)]), *FAKE, "-o", "out").returncode == 0
    return tmp_path / "out"


def test_what_a_person_sees(cli, out):
    result = cli("check", "out")
    assert result.returncode == 0 and result.stdout == "3 done rows with 3 files checked: all is well\n"
    (out / "images/1_0.png").unlink()
    result = cli("check", "out")
    assert result.returncode == 3 and "row 1: images/1_0.png is missing" in result.stdout.splitlines()
    assert "1 problem." in result.stdout and "run the same command again" in result.stdout
    assert cli("t2i", "rows.jsonl", *FAKE, "-o", "out").returncode == 0 and cli("check", "out").returncode == 0


def test_what_a_program_sees(cli, out):
    (out / "images/1_0.png").write_bytes(b"")
    result = cli("check", "out", "--json")
    damaged, summary = (json.loads(line) for line in result.stdout.splitlines())
    assert damaged == {"event": "damaged", "id": "1", "path": "images/1_0.png", "problem": "is empty"}
    assert summary == {
        "event": "summary",
        "state": "checked",
        "exit_code": 3,
        "out": "out",
        "rows": 3,
        "files": 3,
        "damaged": 1,
        "without_hash": 0,
    }
    assert result.returncode == 3


def test_what_is_no_run_folder(cli, tmp_path):
    result = cli("check", tmp_path)
    assert result.returncode == 2 and "give the folder of a run" in result.stderr
    result = cli("check", tmp_path, "--json")
    assert json.loads(result.stdout)["state"] == "refused" and result.returncode == 2


def test_table_and_export_write_what_a_run_has_made(cli, rows_file, tmp_path):
    rows = rows_file([{"id": "a", "prompt": "a fox"}, {"prompt": "refuse"}])
    assert cli("t2i", rows, "-o", "run", "--backend", "fake", "--gpus", "cpu").returncode == 3
    (tmp_path / "run/results.jsonl").unlink()
    done = cli("table", "run", "--to", "csv")
    assert (done.returncode, done.stdout.strip()) == (0, "run/results.csv: 1 done, 1 failed")
    done = cli("export", "run", "--to", "imagefolder")
    assert (done.returncode, done.stdout.strip()) == (0, f"{tmp_path}/run-imagefolder: 1 record")
    assert (tmp_path / "run-imagefolder/00000/a_0.png").is_file()
    for command in (("table", "."), ("export", ".", "--to", "hf"), ("export", "run", "--to", "xml")):
        refused = cli(*command)
        assert refused.returncode == 2 and refused.stderr.startswith("error: ")
