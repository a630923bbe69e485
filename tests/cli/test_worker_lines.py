"""What a person reads about the workers at the end of a run."""

from __future__ import annotations

from fastgen.cli import worker_lines


def about(rows: int, busy: float, restarts: int = 0, **lost: int) -> dict:
    return {"rows": rows, "busy": busy, "restarts": restarts, **({"lost_rows": lost} if lost else {})}


def test_the_end_of_a_run_names_what_was_lost():
    assert worker_lines.lines({"cpu": about(9, 0.9)}) == []
    assert worker_lines.lines({"cpu:0": about(9, 0.9), "cpu:1": about(3, 0.45, 1, killed=4)}) == [
        "cpu:0: 9 rows, busy for 90% of the time after loading",
        "cpu:1: 3 rows, busy for 45% of the time after loading; started again 1 time; 4 rows came back and ran again "
        "(killed)",
    ]
    many = {f"cpu:{i}": about(10, 0.5 if i else 0.4, int(i == 7)) for i in range(20)}
    assert worker_lines.lines(many) == [
        "20 workers were busy for 50% of the time after loading, cpu:0 least (40%)",
        "cpu:7: 10 rows, busy for 50% of the time after loading; started again 1 time",
    ]
