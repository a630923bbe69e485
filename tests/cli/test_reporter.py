"""What is said during a run, in three voices: to a person, to a program, and almost nothing."""

from __future__ import annotations

import io
import json

import pytest
from msgspec.structs import replace
from rich.console import Console

from fastgen.cli import reporter
from fastgen.cli.reporter import MOST_FAILURES_SHOWN, Report, plural, say_plan
from fastgen.config.profile import Measured
from fastgen.types import Done, Failed, ImageParams, TextParams
from fastgen.view import live

SUMMARY = {"counts": {"done": 2, "failed": 1, "kept": 3, "images": 2}, "images_per_second": 1.5}


def made(*paths: str) -> Done:
    return Done("a", "fake", "fake", paths, ImageParams(64, 64, 4, 0.0, 7, 1), 0.5)


@pytest.fixture
def report(settings):
    """report(voice, task="t2i", **flags)."""
    return lambda voice, task="t2i", **flags: Report(voice, settings(task, **flags))


def events(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def fail(report: Report, kind: str, count: int = 1) -> None:
    for number in range(count):
        report.emit("row_failed", id=f"r{number}", kind=kind, field="", message=f"row {number}: broken")


def test_a_program_reads_one_event_per_line(report, capsys):
    voice = report("json")
    voice.begin()
    voice.emit("lane_ready", lane="cpu", load_seconds=1.5)
    voice.result(made("images/a.png"), {"done": 1, "images": 1})
    fail(voice, "input")
    voice.end("finished", 3, SUMMARY)
    said = capsys.readouterr()
    assert said.err == ""
    start, ready, done, failed, last = events(said.out)
    assert (start["event"], start["task"], start["model"], start["devices"]) == ("start", "t2i", "fake", ["cpu"])
    assert start["settings"] == json.loads(json.dumps(voice.settings.fingerprint())) and "profile" in start
    assert ready == {"event": "lane_ready", "lane": "cpu", "load_seconds": 1.5}
    assert (done["event"], done["id"], done["paths"], done["seed"]) == ("row_done", "a", ["images/a.png"], 7)
    assert failed == {"event": "row_failed", "id": "r0", "kind": "input", "field": "", "message": "row 0: broken"}
    assert (last["event"], last["state"], last["exit_code"], last["counts"]) == (
        "summary",
        "finished",
        3,
        SUMMARY["counts"],
    )


def test_a_caption_is_told_under_its_field(report, capsys):
    voice = report("json", "caption", output_key="said")
    voice.result(
        Done("a", "fake", "fake", (), TextParams(100, 0.0, 0), 0.5, text="a red circle"), {"done": 1, "captions": 1}
    )
    [done] = events(capsys.readouterr().out)
    assert done["said"] == "a red circle" and "paths" not in done


def test_a_failed_row_is_no_row_done(report, capsys):
    voice = report("json")
    voice.result(Failed("a", "input", "broken"), {"failed": 1})
    assert capsys.readouterr().out == "" and voice.rows == 1


def test_a_person_is_told_where_and_with_what(report, capsys, tmp_path):
    report("human", "edit").begin()
    said = capsys.readouterr()
    assert said.out == ""
    for words in ("edit", "model fake", "cpu", "profile 'default'", str(tmp_path / "out"), "relative"):
        assert words in said.err


def test_notes_come_first(settings, capsys):
    resolved = settings("t2i", backend="local", model="auto")
    Report("human", resolved).begin()
    assert resolved.run.notes and capsys.readouterr().err.startswith(f"note: {resolved.run.notes[0]}")


def test_a_few_failures_are_shown_and_all_are_counted(report, capsys):
    voice = report("human")
    fail(voice, "input", MOST_FAILURES_SHOWN + 30)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == MOST_FAILURES_SHOWN + 1 and "failures.jsonl" in lines[-1]
    assert "row 0: broken" in lines[0] and "input" in lines[0] and "r0" in lines[0]
    assert voice.failures == MOST_FAILURES_SHOWN + 30


@pytest.mark.parametrize("event", ["lane_died", "lane_restarted"])
def test_a_death_is_one_line(report, capsys, event):
    report("human").emit(event, lane="cpu:1", reason="killed by signal 9\nits last words\nmany of them")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cpu:1" in said and "killed by signal 9; restarting it" in said
    report("human").emit(event, lane="cpu:1", reason="CUDA error: unknown", restarting=False)
    assert capsys.readouterr().err == "cpu:1: CUDA error: unknown\n"


def test_an_engine_that_is_ready_says_what_it_noticed(report, capsys):
    report("human").emit("lane_ready", lane="cpu", load_seconds=2.5, notes=["the VAE works in tiles"])
    said = capsys.readouterr().err
    assert "2.5 s" in said and "cpu: the VAE works in tiles" in said


WORKER = {"lane": "cpu", "state": "working", "bucket": "t2i 64x64", "images_per_second": 2.0, "memory_mib": 900}
PROGRESS = {"rows": 4, "total": 10, "done": 2, "failed": 1, "kept": 1, "images": 2, "images_per_second": 2.0}
PROGRESS |= {
    "eta_seconds": 3.0,
    "cost_usd": 0.0,
    "workers": [WORKER | {"restarts": 0, "batches": 1, "backend": "fake"}],
}


def test_progress_without_a_terminal_is_a_line_now_and_then(report, capsys, monkeypatch):
    voice = report("human")
    voice.emit("progress", **PROGRESS)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(reporter, "PLAIN_EVERY_S", -1)
    for _ in range(2):
        voice.emit("progress", **PROGRESS)
    assert capsys.readouterr().err == "4 of 10 rows (40%), 2.00 images/s, 3 s left, 1 failed\n", (
        "and not twice the same"
    )


def test_a_program_is_told_the_progress_now_and_then(report, capsys, monkeypatch):
    voice = report("json")
    voice.emit("progress", **PROGRESS)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(reporter, "PLAIN_EVERY_S", -1)
    voice.emit("progress", **PROGRESS)
    assert events(capsys.readouterr().out) == [{"event": "progress", **PROGRESS}]


def test_on_a_terminal_the_progress_stays_below_what_is_said(report, monkeypatch):
    shown = io.StringIO()
    screen = live.Live(Console(file=shown, force_terminal=True, width=100))
    monkeypatch.setattr(live, "display", lambda: screen)
    voice = report("human")
    voice.begin()
    voice.emit("progress", **PROGRESS)
    voice.result(made("a.png"), {"done": 3, "failed": 1, "kept": 1})
    fail(voice, "input")
    assert "row 0: broken" in shown.getvalue()
    screen._live.refresh()
    assert "5 of 10 rows  50%" in shown.getvalue() and "t2i 64x64" in shown.getvalue()
    voice.end("finished", 0, SUMMARY)
    assert screen._live is None


@pytest.mark.parametrize(
    ("kinds", "advice"),
    [
        (["rate_limited"], "the same command tries them again"),
        (["input"], "fix them and run the same command"),
        (["rate_limited", "input"], "1: the same command tries them again; 1: fix them"),
        (["refused"], "--fallback-on-refusal"),
    ],
    ids=str,
)
def test_the_advice_fits_the_failures(report, capsys, kinds, advice):
    voice = report("human")
    for kind in kinds:
        fail(voice, kind)
    voice.end("finished", 3, SUMMARY)
    said = capsys.readouterr().err
    assert advice in said and "--retry-failed" not in said


def test_the_end_counts(report, capsys, tmp_path):
    voice = report("human")
    more = {"served_by": {"openai": 1, "gemini": 1}, "cost_usd": 0.25, "mean_group": 7.96, "work": {"joins": 56}}
    voice.end("finished", 0, SUMMARY | more)
    said = capsys.readouterr().err
    for words in ("2 done", "1 failed", "3 kept", "2 images", "1.50", "openai: 1", "gemini: 1", "0.2500 USD"):
        assert words in said
    assert "8.0 samples per forward pass, 56 joined" in said
    assert f"{tmp_path}/out/results.jsonl" in said and "failures.jsonl" in said


def test_an_interrupted_run_says_how_to_go_on(report, capsys):
    report("human").end("interrupted", 130, {"counts": {"done": 1}})
    said = capsys.readouterr().err
    assert "same command" in said and "results.jsonl" not in said


def test_quiet_says_what_failed_why_it_ended_and_nothing_else(report, capsys):
    voice = report("quiet")
    voice.begin()
    fail(voice, "input")
    voice.result(made("a.png"), {"done": 1, "images": 1})
    voice.end("failed", 1, {}, message="error: the disk is full")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "failed: row 0: broken [input, id r0]\nerror: the disk is full\n")


def test_plural():
    assert [plural(number, "row") for number in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
    assert plural(2, "batch", "es") == "2 batches"


def test_the_plan_of_many_bad_rows_stays_short(settings, capsys):
    bad = [Failed(f"r{number}", "input", f"row {number}: broken") for number in range(MOST_FAILURES_SHOWN + 5)]
    plan = {"rows": 30, "done": 0, "failed": 0, "kept": 0, "bad": bad, "buckets": [], "warnings": [], "unread": []}
    say_plan(plan, settings("t2i"), "human")
    said = capsys.readouterr().out
    assert said.count("bad: ") == MOST_FAILURES_SHOWN and "5 more" in said
    say_plan(plan, settings("t2i"), "json")
    [event] = events(capsys.readouterr().out)
    assert event["event"] == "plan" and len(event["bad"]) == len(bad)


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("run", "time: about 2 min, at the rate of the last run in this folder\n"),
        ("profile", "time: about 2 min, at the rate of profile 'default', measured on a card, without loading\n"),
    ],
)
def test_the_plan_says_whose_rate_its_time_is_from(settings, capsys, by, said):
    own = settings("t2i")
    profile = replace(own.placement.profile, measured=Measured("measured", hardware="a card"))
    own = replace(own, placement=replace(own.placement, profile=profile))
    counts = {"rows": 30, "done": 0, "failed": 0, "kept": 0}
    plan = {**counts, "bad": [], "buckets": [], "warnings": [], "unread": [], "seconds": 120.0, "seconds_by": by}
    say_plan(plan, own, "human")
    assert said in capsys.readouterr().out
