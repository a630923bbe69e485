"""The part of the matrix that runs with the tests: each model, each placement, each quality once. Blocks that are alike
are computed once; that nothing is missed in this way, test_replay.py shows."""

from __future__ import annotations

import pytest

from fastgen.config.fit.memory import PROMPTS_TOGETHER
from tests.rehearsal import cases, checks
from tests.rehearsal.cards import BY_GB

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow]
PART = (
    ("flux-dev", 80, "exact", ("t2i", "t2i mixed")),
    ("flux-dev", 12, "exact", ("t2i",)),
    ("flux-dev", 32, "high", ("t2i",)),
    ("flux-kontext", 24, "exact", ("mask",)),
    ("flux-kontext", 80, "fast", ("edit",)),
)
LATER = (
    ("klein edit", 12, ("edit",)),
    ("z-image", 24, ("t2i",)),
    ("qwen-image", 80, ("t2i",)),
    ("qwen-edit", 24, ("edit",)),
)
"""The families after FLUX.1."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rehearsal")


@pytest.mark.parametrize(("model", "gb", "quality", "tasks"), PART)
def test_it_fits_does_not_wait_and_computes_what_it_must(folder, model, gb, quality, tasks):
    (setup,) = cases.setups(folder, [BY_GB[gb]], [model], [quality])
    answers = ("computed",) if quality == "fast" else tuple(cases.ANSWERS)
    outcomes = list(cases.rehearse(setup, folder, tasks, answers, is_quick=True))
    assert [problem for outcome in outcomes for problem in checks.problems(outcome)] == []
    assert all(outcome.ran.steps >= cases.STEPS for outcome in outcomes)
    whole = [outcome for outcome in outcomes if outcome.cache != "reused" and "mixed" not in outcome.task]
    assert whole and all(outcome.ran.step.flops for outcome in whole)


@pytest.mark.parametrize(("model", "gb", "tasks"), LATER)
def test_the_families_after_flux1(folder, model, gb, tasks):
    (setup,) = cases.setups(folder, [BY_GB[gb]], [model], ["exact"])
    (outcome,) = cases.rehearse(setup, folder, tasks, is_quick=True)
    assert checks.problems(outcome) == [] and outcome.ran.steps >= cases.STEPS


def test_quantized_parts_that_take_turns_never_meet_on_the_card(folder):
    """Not while the engine opens either: transformer and text encoder together would be more than was planned."""
    card = BY_GB[12]
    settings = cases.chosen(folder, "klein", "exact", card, quantize="4bit,text:4bit", offload="model")
    setup = cases.Setup("klein", "exact", settings, [card])
    (outcome,) = cases.rehearse(setup, folder, ["t2i"], is_quick=True)
    assert checks.problems(outcome) == []
    assert outcome.opened.open_peak_bytes < settings.fit.need.gib * checks.GIB


def test_prompts_that_are_encoded_together_take_what_was_planned(folder):
    """On this card the text encoder beside everything else is the most. Of its hidden states only some are kept."""
    card = BY_GB[16]
    settings = cases.chosen(folder, "klein", "exact", card)
    prompts = [f"{n}, {cases.PROMPT}" for n in range(PROMPTS_TOGETHER)]
    with cases.installed(card, folder / "bin"), cases.opened(settings, card, is_quick=True) as engine:

        def encode():
            yield engine.backend.family.text_parts
            engine.rehearsal.meter.forget_peaks()
            engine.backend.prompts.encode(prompts)

        engine.backend._engine.submit(encode()).result()
        need = settings.fit.need
        assert need.phase == "encoding prompts" and engine.rehearsal.meter.peak < need.gib * checks.GIB
