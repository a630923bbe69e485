"""Blocks that are replayed cost what they cost when they are computed."""

from __future__ import annotations

import pytest

from tests.rehearsal import cases
from tests.rehearsal.cards import BY_GB

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow]


@pytest.mark.parametrize("gb", [12, 80])
def test_a_quick_rehearsal_finds_what_a_whole_one_finds(tmp_path, gb):
    """With streamed blocks, and with all on the card."""
    (setup,) = cases.setups(tmp_path, [BY_GB[gb]], ["flux-dev"], ["high"])
    whole, quick = (
        next(iter(cases.rehearse(setup, tmp_path, ["t2i"], ["computed"], is_quick=is_quick)))
        for is_quick in (False, True)
    )
    for name in ("flops", "float32_flops", "launches", "moved_bytes", "to_device_bytes", "syncs"):
        assert getattr(quick.ran.step, name) == getattr(whole.ran.step, name), name
    assert quick.ran.batch.syncs == whole.ran.batch.syncs
    assert quick.opened.weights_bytes == whole.opened.weights_bytes
    assert quick.ran.peak_bytes == pytest.approx(whole.ran.peak_bytes, rel=0.01)
