"""The pipeline on paper."""

from __future__ import annotations

import pytest

from fastgen.bench.pipeline import Model, border_bytes, equal, flux, main, order, simulate


def test_one_group_uses_one_gpu_at_a_time():
    use = simulate(order(2, 1, 10), Model((1.0, 1.0)))
    assert use.seconds == 20 and use.busy == (0.5, 0.5)


@pytest.mark.parametrize("stages", [2, 4])
@pytest.mark.parametrize("more", [0, 1])
def test_as_many_groups_as_stages_fill_it(stages, more):
    groups = stages + more
    use = simulate(order(stages, groups, 28), Model((1.0,) * stages))
    assert use.seconds == 28 * groups + stages - 1 and use.waits == 0
    assert use.busy == pytest.approx([28 * groups / use.seconds] * stages) and min(use.busy) > 0.95


def test_the_group_more_hides_the_borders():
    model = Model((1.0, 1.0), border_s=0.1, back_s=0.05)
    assert simulate(order(2, 2, 28), model).waits > 0
    assert simulate(order(2, 3, 28), model).waits == 0
    assert min(simulate(order(2, 3, 28), model).busy) > 0.95


def test_it_is_as_fast_as_its_slowest_stage():
    use = simulate(order(2, 3, 100), Model((1.0, 2.0)))
    assert use.busy[1] > 0.99 and use.busy[0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_flux_at_1024_uses_each_gpu_for_nine_tenths(stages):
    use = simulate(order(stages, stages + 1, 28), flux(equal(stages)))
    assert sum(equal(stages)) == 57 and min(use.busy) >= 0.9


def test_the_tokens_of_an_image_of_1024():
    assert round(border_bytes() / 1e6, 1) == 28.3


def test_it_prints_the_use_of_each_gpu(capsys):
    main(["--stages", "2"])
    printed = capsys.readouterr().out
    assert printed.startswith("2 stages, 3 groups, 28 steps: GPU 0 9") and "not measured" in printed
