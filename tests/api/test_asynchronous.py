"""A run for asyncio."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

import fastgen


def rows(count: int) -> list[dict]:
    return [{"prompt": f"{i}", "id": f"{i}"} for i in range(count)]


def test_results_come_while_the_loop_goes_on(settings):
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.005)

    async def main():
        beside = asyncio.create_task(tick())
        found = [result async for result in fastgen.generate_async(settings("t2i"), rows(4))]
        beside.cancel()
        return found

    found = asyncio.run(main())
    assert {result.id: result.row["prompt"] for result in found} == {f"{i}": f"{i}" for i in range(4)}
    assert ticks > 3


def test_two_runs_at_once_in_one_session(settings, tmp_path):
    async def work(session, name):
        return [r.id async for r in session.generate_async(settings("t2i", out=tmp_path / name), rows(3))]

    async def main():
        with fastgen.Session() as session:
            return await asyncio.gather(work(session, "a"), work(session, "b"))

    assert [sorted(ids) for ids in asyncio.run(main())] == [["0", "1", "2"]] * 2


def test_who_leaves_the_loop_finishes_what_is_in_progress(settings, tmp_path, table):
    async def main():
        async with aclosing(fastgen.generate_async(settings("t2i", batch_size=1), rows(40))) as results:
            async for result in results:
                return result

    assert asyncio.run(main()).id
    done = len(table(tmp_path / "out/journal.jsonl"))
    assert 1 <= done < 40
    again = list(fastgen.generate(settings("t2i", batch_size=1), rows(40)))
    assert len(again) == 40 and sum(result.earlier for result in again) == done


def test_a_cancelled_task_leaves_the_folder_free(settings, tmp_path):
    async def take(started):
        async for _ in fastgen.generate_async(settings("t2i", batch_size=1), rows(40)):
            started.set()

    async def main():
        started = asyncio.Event()
        task = asyncio.create_task(take(started))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert len(list(fastgen.generate(settings("t2i", batch_size=1), rows(40)))) == 40


def test_what_cannot_run_is_raised_where_it_is_awaited(settings):
    async def main():
        return [result async for result in fastgen.generate_async(settings("t2i"))]

    with pytest.raises(fastgen.SettingsError, match="no rows"):
        asyncio.run(main())
