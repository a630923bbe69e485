"""The fake card notices what it is there for."""

from __future__ import annotations

import gc

import pytest
import torch

from fastgen.bench.synthetic import TRANSFORMER
from tests.rehearsal.cards import BY_GB
from tests.rehearsal.expected import step_flops
from tests.rehearsal.fake_cuda import rehearsed

pytestmark = pytest.mark.rehearsal
CUDA = torch.device("cuda:0")


@pytest.fixture
def card():
    with rehearsed(BY_GB[12]) as rehearsal:
        yield rehearsal.meter


def test_tensors_of_the_card_and_of_main_memory_do_not_mix(card):
    with pytest.raises(RuntimeError, match=r"same device|two different devices"):
        torch.ones(4, 4, device=CUDA) @ torch.ones(4, 4)


def test_types_and_shapes_do_not_mix(card):
    weight = torch.empty(8, 4, device=CUDA, dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match="dtype"):
        torch.nn.functional.linear(torch.empty(2, 4, device=CUDA), weight)
    with pytest.raises(RuntimeError, match=r"shape|size|reduction dim"):
        torch.nn.functional.linear(torch.empty(2, 5, device=CUDA, dtype=torch.bfloat16), weight)


def test_memory_is_counted_once_and_given_back(card):
    before = card.live
    first = torch.empty(1 << 20, device=CUDA)
    view = first.view(1024, 1024)[3:]
    assert card.live - before == 4 << 20
    del first
    assert card.live - before == 4 << 20
    del view
    gc.collect()
    assert card.live == before and card.peak == before + (4 << 20)


def test_a_card_can_be_full(card):
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        torch.empty(12 << 30, dtype=torch.uint8, device=CUDA)
    assert card.refused == 1


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x[x > 0],
        lambda x: torch.cuda.synchronize(),
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: torch.ones(3).to(x.device, non_blocking=True),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: torch.cuda.Event().synchronize(),
    ],
)
def test_waits_of_the_host_are_counted(card, wait):
    x = torch.ones(4, device=CUDA)
    card.work.syncs.clear()
    wait(x)
    assert sum(card.work.syncs.values()) >= 1
    assert "test_meter.py" in next(iter(card.work.syncs))


def test_copies_through_pinned_memory_and_arithmetic_do_not_wait(card):
    card.work.syncs.clear()
    x = torch.ones(4, 4).pin_memory().to(CUDA, non_blocking=True)
    host = torch.empty(4, 4, pin_memory=True)
    host.copy_(x @ x + 1, non_blocking=True)
    assert not card.work.syncs
    assert (card.work.to_device_bytes, card.work.to_host_bytes) == (64, 64)


def test_operations_and_launches_are_counted(card):
    a, b = torch.empty(8, 16, device=CUDA), torch.empty(16, 4, device=CUDA)
    before = card.work.copy()
    (a @ b).relu()
    done = card.work - before
    assert (done.flops, done.float32_flops, done.launches) == (2 * 8 * 16 * 4, 2 * 8 * 16 * 4, 2)
    assert done.moved_bytes == 4 * (8 * 16 + 16 * 4 + 8 * 4) + 4 * (8 * 4 * 2)


def test_a_module_moves_and_its_weights_may_be_exchanged(card):
    linear = torch.nn.Linear(8, 8).to(CUDA)
    assert linear.weight.device == CUDA
    assert linear(torch.ones(1, 8).to(CUDA)).device == CUDA


def test_what_the_config_of_flux_has_to_compute():
    """Counted once with torch's own counter on the full-size transformer."""
    assert step_flops(TRANSFORMER, 1, 512, 4096) == 74_371_768_516_608
    assert step_flops(TRANSFORMER, 1, 512, 4096, 4096) == 165_442_255_060_992
