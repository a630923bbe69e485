"""The command as a user meets it: exit codes, what is said where, Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time

import psutil
import pytest

FAKE = ("--backend", "fake", "--gpus", "cpu")
PATIENCE_S = 60


def events(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def wait_for(process, wanted: str) -> list[dict]:
    """Events up to the first of that name."""
    seen = []
    for line in process.stdout:
        seen.append(json.loads(line))
        if seen[-1]["event"] == wanted:
            return seen
    raise AssertionError(f"{wanted} never came: {seen} {process.stderr.read()}")


def test_exit_codes(cli, rows_file):
    good = rows_file([{"prompt": "a"}])
    assert cli("t2i", good, "-o", "a", *FAKE).returncode == 0
    assert cli("t2i", rows_file([{"prompt": "a"}, {}], "bad.jsonl"), "-o", "b", *FAKE).returncode == 3
    disk = cli("t2i", rows_file([{"prompt": "disk"}], "disk.jsonl"), "-o", "c", *FAKE)
    assert disk.returncode == 1 and "No space left" in disk.stderr and "Traceback" not in disk.stderr
    for wrong in (["t2i", good, "--steps", "0"], ["t2i", good, "--no-such-flag"], ["paint"], ["t2i", "none.jsonl"]):
        result = cli(*wrong)
        assert result.returncode == 2 and result.stderr and "Traceback" not in result.stderr


def test_an_engine_that_cannot_start(cli, rows_file):
    result = cli("t2i", rows_file([{"prompt": "a"}]), *FAKE, FASTGEN_FAKE_CANNOT_START="the model is made of cheese")
    assert result.returncode == 2 and "error: the model is made of cheese" in result.stderr
    assert "Traceback" not in result.stderr


def test_what_a_person_sees(cli, rows_file, tmp_path):
    result = cli("t2i", rows_file([{"prompt": "a"}, {"prompt": ""}]), *FAKE)
    assert result.stdout == ""
    for words in (
        "model fake on cpu",
        "profile 'default'",
        "failed: row 2, field prompt",
        "1 done, 1 failed",
        f"{tmp_path}/fastgen-runs/t2i/results.jsonl",
        "failures.jsonl",
    ):
        assert words in result.stderr


def test_quiet_is_quiet(cli, rows_file):
    result = cli("t2i", rows_file([{"prompt": "a"}, {"prompt": ""}]), *FAKE, "--quiet")
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.startswith("failed: row 2, field prompt: ") and result.stderr.count("\n") == 1
    assert "error: " in cli("t2i", "none.jsonl", "-q").stderr


def test_json_events(cli, rows_file):
    rows = [{"id": "a", "prompt": "é 🍵"}, {"id": "b", "prompt": ""}, {"id": "c", "prompt": "crash:once"}]
    result = cli("t2i", rows_file(rows), *FAKE, "--json")
    seen = events(result.stdout)
    assert result.stderr == "" and seen[0]["event"] == "start" and seen[0]["settings"]["steps"] == 4
    by_name = {name: [e for e in seen if e["event"] == name] for name in ("row_done", "row_failed", "lane_died")}
    assert {e["id"] for e in by_name["row_done"]} == {"a", "c"} and all(e["paths"] for e in by_name["row_done"])
    [failed] = by_name["row_failed"]
    assert (failed["id"], failed["kind"], failed["field"]) == ("b", "input", "prompt")
    assert len(by_name["lane_died"]) == 1
    last = seen[-1]
    assert (last["event"], last["state"], last["exit_code"]) == ("summary", "finished", 3) and result.returncode == 3
    assert last["counts"] | {"rows": 3, "done": 2, "failed": 1} == last["counts"]


def test_json_tells_the_error_too(cli, rows_file):
    seen = events(cli("t2i", rows_file([{"prompt": "disk"}]), *FAKE, "--json").stdout)
    assert seen[-1]["event"] == "summary" and seen[-1]["exit_code"] == 1 and "No space left" in seen[-1]["message"]


def test_dry_run_tells_the_plan_and_touches_nothing(cli, rows_file, tmp_path):
    rows = [{"prompt": "a"}, {"prompt": "b", "size": "96x64", "n": 3}, {"prompt": "c", "images": ["x"]}, {"prompt": ""}]
    rows += [{"prompt": f"{i}"} for i in range(9)]
    path = rows_file(rows)
    result = cli("t2i", path, "-o", "out", *FAKE, "--dry-run")
    assert result.returncode == 3 and not (tmp_path / "out").exists(), "a row is bad"
    for words in (
        "13 rows: ",
        "1 kept (already filled), 1 bad",
        "row 4, field prompt",
        "t2i 64x64: 10 rows",
        "t2i 96x64: 1 row, 3 images",
        "profile 'default'",
        " batches",
    ):
        assert words in result.stdout
    [plan] = events(cli("t2i", path, *FAKE, "--dry-run", "--json", "--batch-size", "5").stdout)
    assert (plan["event"], plan["rows"], plan["kept"], len(plan["bad"])) == ("plan", 13, 1, 1)
    found = {b["bucket"]: (b["requests"], b["samples"], b["batch_size"]) for b in plan["buckets"]}
    assert found == {"t2i 64x64": (10, 10, 5), "t2i 96x64": (1, 3, 5)}
    # The last rows are spread over what computes side by side, so the exact number depends on the cores.
    assert all(b["samples"] / b["batch_size"] <= b["batches"] <= b["requests"] for b in plan["buckets"])


@pytest.mark.parametrize("task", ["t2i", "edit"])
def test_bundled_examples(cli, tmp_path, table, task):
    result = cli(task, *FAKE)
    assert result.returncode == 0, result.stderr
    rows = table(tmp_path / "fastgen-runs" / task / "results.jsonl")
    assert len(rows) == 5 and all(row["fastgen"]["status"] == "done" for row in rows)


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_finishes_what_is_under_way_and_the_same_command_goes_on(
    cli, cli_process, rows_file, tmp_path, table, name
):
    command = (
        "t2i",
        rows_file([{"prompt": f"slow:0.3 {i}"} for i in range(12)]),
        "-o",
        "out",
        "--batch-size",
        "1",
        *FAKE,
    )
    process = cli_process(*command, "--json")
    wait_for(process, "row_done")
    process.send_signal(name)
    rest, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, errors
    last = events(rest)[-1]
    assert (last["event"], last["state"], last["exit_code"]) == ("summary", "interrupted", 130)
    done = [line["rec"]["id"] for line in table(tmp_path / "out/journal.jsonl")]
    assert 1 <= len(done) == last["counts"]["done"] < 12
    rows = table(tmp_path / "out/results.jsonl")
    assert [row["fastgen"]["status"] for row in rows].count("done") == len(done) and len(rows) == 12
    assert all(row.keys() == {"prompt", "fastgen"} for row in rows if row["fastgen"]["status"] == "pending")
    assert json.loads((tmp_path / "out/run.json").read_text())["state"] == "interrupted"
    assert cli(*command).returncode == 0
    made = [line["rec"]["id"] for line in table(tmp_path / "out/journal.jsonl")]
    assert made[: len(done)] == done and len(set(made)) == len(made) == 12
    assert len(table(tmp_path / "out/results.jsonl")) == 12


def test_ctrl_c_twice_is_immediate(cli_process, rows_file, tmp_path, table):
    rows = rows_file([{"id": "a", "prompt": "a"}, {"id": "b", "prompt": "slow:600"}])
    process = cli_process("t2i", rows, "-o", "out", "--batch-size", "1", *FAKE, "--json")
    wait_for(process, "row_done")
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGINT)
    wait_for(process, "warning")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE_S) == 130
    assert not psutil.wait_procs(children, timeout=PATIENCE_S)[1]
    assert [line["rec"]["id"] for line in table(tmp_path / "out/journal.jsonl")] == ["a"]


def test_a_second_process_in_the_same_folder_is_refused(cli, cli_process, rows_file):
    rows = rows_file([{"prompt": "a"}, {"prompt": "slow:600"}])
    process = cli_process("t2i", rows, "-o", "out", "--batch-size", "1", *FAKE, "--json")
    wait_for(process, "row_done")
    for extra in ([], ["--fresh"]):
        second = cli("t2i", rows, "-o", "out", *FAKE, *extra)
        assert second.returncode == 2 and f"another fastgen (process {process.pid})" in second.stderr
    os.kill(process.pid, signal.SIGKILL)


def test_changed_settings_exit_2_with_the_difference(cli, rows_file):
    rows = rows_file([{"prompt": "a"}])
    assert cli("t2i", rows, "-o", "out", *FAKE).returncode == 0
    result = cli("t2i", rows, "-o", "out", *FAKE, "--steps", "9")
    assert result.returncode == 2 and "steps: 4 before, 9 now" in result.stderr and "--fresh" in result.stderr


def test_other_settings_without_o_have_a_folder_of_their_own(cli, rows_file, tmp_path):
    rows = rows_file([{"prompt": "a"}])
    assert cli("t2i", rows, *FAKE).returncode == 0
    runs = tmp_path / "fastgen-runs"
    for expected in ("1 image made", "0 images made"):  # the same command finds its folder again
        result = cli("t2i", rows, *FAKE, "--steps", "9")
        assert result.returncode == 0 and expected in result.stderr, result.stderr
        assert f"{runs}/t2i has a run with other settings (steps: 4 before, 9 now)" in result.stderr
    assert sorted(path.name for path in runs.iterdir()) == ["t2i", "t2i-2"]
    assert cli("t2i", rows, "-o", runs / "t2i", *FAKE, "--steps", "9").returncode == 2


def state_of(out) -> str:
    return json.loads((out / "run.json").read_text())["state"]


def test_a_lost_terminal_reaches_all_processes_and_ends_the_run_in_good_order(rows_file, tmp_path, table):
    """As when SSH breaks off: SIGHUP to the whole group, and nobody reads what is said."""
    rows = rows_file([{"prompt": f"slow:0.2 {i}"} for i in range(30)])
    command = [sys.executable, "-m", "fastgen", "t2i", str(rows), "-o", "out", "--batch-size", "1", *FAKE]
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        command, stdout=inside, stderr=inside, stdin=inside, cwd=tmp_path, start_new_session=True
    )
    os.close(inside)
    journal = tmp_path / "out/journal.jsonl"
    until(lambda: journal.exists() and journal.stat().st_size)
    os.close(terminal)
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(timeout=PATIENCE_S) == 130
    assert state_of(tmp_path / "out") == "interrupted" and 1 <= len(table(journal)) < 30


def test_under_nohup_a_run_goes_on(rows_file, tmp_path):
    rows = rows_file([{"prompt": f"slow:0.1 {i}"} for i in range(8)])
    command = ["nohup", sys.executable, "-m", "fastgen", "t2i", str(rows), "-o", "out", "--batch-size", "1", *FAKE]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "out/journal.jsonl"
    until(lambda: journal.exists() and journal.stat().st_size)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=PATIENCE_S) == 0 and state_of(tmp_path / "out") == "finished"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_whoever_stops_reading_ends_the_run(rows_file, tmp_path, stream):
    """fastgen ... --json | head -1"""
    rows = rows_file([{"prompt": f"slow:0.2 {i}"} for i in range(30)])
    flags = ("--json",) if stream == "stdout" else ()
    command = [sys.executable, "-m", "fastgen", "t2i", str(rows), "-o", "out", "--batch-size", "1", *FAKE, *flags]
    with (tmp_path / "said").open("w") as said:
        pipes = {"stdout": said, "stderr": said, stream: subprocess.PIPE}
        process = subprocess.Popen(command, cwd=tmp_path, **pipes)
    reader = getattr(process, stream)
    assert reader.readline()
    reader.close()
    assert process.wait(timeout=PATIENCE_S) == 130 and state_of(tmp_path / "out") == "interrupted"
    said = (tmp_path / "said").read_text()
    assert "Traceback" not in said and ("stdout accepts no more events" in said or stream == "stderr")


def until(happened) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_while_the_command_itself_is_loaded_is_no_traceback(tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, "-m", "fastgen", "t2i"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert (ended.returncode, ended.stderr) == (130, "interrupted before anything was done\n")
