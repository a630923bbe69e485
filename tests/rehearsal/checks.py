"""What must hold for every batch. Each check returns what is wrong, in words; [] if nothing is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod

from fastgen.backends.diffusion.families.qwen_image import seen
from fastgen.config.families import FLUX1, PARTS
from fastgen.config.fit.memory import Need, Work
from fastgen.config.fit.memory import need as memory_need
from fastgen.resolver import sizes
from tests.rehearsal.cases import MIXED, MIXED_SIZE, SIZE, Outcome
from tests.rehearsal.expected import step_flops, step_flops_by_layers

MORE_FLOPS = 0.01
"""Share by which a step may do more than the config accounts for."""
REFERENCE = 1024 // 16
GIB = 2**30


@dataclass(frozen=True)
class Wait:
    """A place at which the thread that computes may wait for the device."""

    place: str
    """File and function."""
    each_step: int
    each_batch: int
    """Outside of steps."""
    only: str = ""
    """The choice (`offload group`) or state without which it is not allowed."""


ALLOWED = (
    # One decision for all samples.
    Wait("backends/diffusion/cached_blocks.py through_cache", 1, 0, "cache"),
    # While a place in the group is free: the step before the last one, so that who comes soon can still join. The
    # device has the last one to do meanwhile.
    Wait("backends/diffusion/clock.py wait", 1, 0, "a free place"),
    # Prompts are kept in main memory where the text encoders must make way: two tensors for new ones.
    *(Wait("backends/diffusion/transfer.py wait", 0, 2, f"offload {kind}") for kind in ("text", "model", "group")),
)
"""The short list. Everything else makes a step or a batch slower than it must be."""


def problems(outcome: Outcome) -> list[str]:
    return [*failures(outcome), *memory(outcome), *syncs(outcome), *flops(outcome)]


def failures(outcome: Outcome) -> list[str]:
    """Wrong devices, dtypes and shapes end a row; so does too little memory."""
    found = [f"row failed: {error}" for error in outcome.ran.errors]
    if outcome.opened.rehearsal.meter.refused:
        found.append(f"out of memory {outcome.opened.rehearsal.meter.refused} times, and retried with less")
    return found


def memory(outcome: Outcome) -> list[str]:
    peak = max(outcome.opened.open_peak_bytes, outcome.ran.peak_bytes)
    return [
        f"{peak / GIB:.2f} GiB do not fit into the {card.gib} GiB of {card.name}"
        for card in outcome.setup.cards
        if peak > card.memory_bytes
    ] + planned(outcome, peak)


def planned(outcome: Outcome, peak: int) -> list[str]:
    """A plan that is lower than what was used would choose what does not fit."""
    need = reckoned(outcome)
    if peak <= need.gib * GIB:
        return []
    return [f"{peak / GIB:.2f} GiB, but config/fit reckoned {need.gib:.2f} {need.explain()}"]


def reckoned(outcome: Outcome) -> Need:
    """What `config/fit` reckons for this batch. The plan of a run is for one image of the default size; where rows of
    another size make a larger batch, it is what the same function says of them."""
    settings = outcome.setup.settings
    need: Need = settings.fit.need
    if outcome.task.endswith("mixed"):
        width, height = map(int, MIXED_SIZE.split("x"))
        tokens, text = width * height // 256, settings.engine.max_sequence_length
        reference = 0 if outcome.task.startswith("t2i") else REFERENCE**2
        kept = reference if PARTS[settings.model.family].keeps_references else 0
        work = Work(_rows(outcome), tokens, reference, text, 256 * max(tokens, reference), kept)
        own = memory_need(sizes.read(settings.model), work, settings.optimizations, 2)
        need = max(need, own, key=lambda one: one.gib)
    return need


def syncs(outcome: Outcome) -> list[str]:
    """Waits of the thread that computes that are not on the short list, with their lines."""
    ran, words = outcome.ran, outcome.setup.words
    chosen = {name for name, word in words.items() if word not in ("none", False)} | {f"offload {words['offload']}"}
    if outcome.task.endswith("mixed"):  # the others fill their group
        chosen.add("a free place")
    found = []
    for kind, counts in (("step", ran.step.syncs), ("batch", ran.outside.syncs)):
        used: Counter[str] = Counter()
        for what, count in sorted(counts.items()):
            if what.endswith("elsewhere"):
                continue
            place = _place(what)
            used[place] += count
            allowed = sum(
                wait.each_step if kind == "step" else wait.each_batch + wait.each_step * ran.steps
                for wait in ALLOWED
                if wait.place == place and (not wait.only or wait.only in chosen)
            )
            if used[place] > allowed:
                found.append(f"{count} waits in each {kind} of {outcome.task}: {what}")
    return found


def _place(what: str) -> str:
    """ "item backends/diffusion/denoise.py:221 _blocks" -> "backends/diffusion/denoise.py _blocks"."""
    file, function = what.split(" ")[-2:]
    return f"{file.partition(':')[0]} {function}"


def flops(outcome: Outcome) -> list[str]:
    """Work that the config does not account for, and matrix products in float32."""
    step = outcome.ran.step
    if outcome.cache == "reused" or outcome.task.endswith("mixed"):
        return []
    wanted = expected(outcome)
    found = []
    if step.flops > wanted * (1 + MORE_FLOPS):
        found.append(f"{step.flops / 1e12:.2f} TFLOP per step; the config accounts for {wanted / 1e12:.2f}")
    if step.flops < wanted * (1 - MORE_FLOPS):
        found.append(
            f"only {step.flops / 1e12:.2f} TFLOP per step; the config has {wanted / 1e12:.2f}: not all is seen"
        )
    if step.float32_flops > MORE_FLOPS * wanted:
        found.append(f"{step.float32_flops / 1e12:.2f} TFLOP per step are float32, which is many times slower")
    return found


def expected(outcome: Outcome) -> int:
    """Operations of a step of this task, if it is computed in full."""
    width, height = map(int, (MIXED_SIZE if outcome.task.endswith("mixed") else SIZE).split("x"))
    reference = 0 if outcome.task.startswith("t2i") else REFERENCE**2
    settings, modules = outcome.setup.settings, outcome.opened.backend.modules
    length, image, count = settings.engine.max_sequence_length, (width // 16) * (height // 16), len(outcome.ran.results)
    if modules.parts is FLUX1:
        return step_flops(modules.transformer.config, count, length, image, reference)
    if modules.parts.processor:
        length += _beside_the_text(outcome)
    rows = _rows(outcome)
    if modules.parts.keeps_references:  # others attend to them, and that is all
        own = sizes.read(settings.model)
        attention = 4 * (length + image) * reference * own.width * rows * len(own.transformer.by_block)
        return attention + step_flops_by_layers(modules.transformer, modules.parts, rows, length, image, 0)
    return step_flops_by_layers(modules.transformer, modules.parts, rows, length, image, reference)


def _beside_the_text(outcome: Outcome) -> int:
    """Tokens that a text encoder which sees the input image has of it, and of the words around it."""
    family, modules = outcome.opened.backend.family, outcome.opened.backend.modules
    side = 14 * modules.processor.merge_size
    image = prod(round(length / side) for length in family.condition_size((1024, 1024)))
    words = [seen.BEFORE, seen.PLACE.replace(seen.IMAGE, ""), "Picture 1: " if family.numbered else "", seen.AFTER]
    return image + sum(len(modules.tokenizer(text).input_ids) for text in words) - seen.LEFT_OUT


def _rows(outcome: Outcome) -> int:
    """Rows of a forward pass with all samples of the batch: two for each whose guidance takes a second one."""
    settings = outcome.setup.settings
    own = MIXED if outcome.task.endswith("mixed") else ({},) * len(outcome.ran.results)
    twice = PARTS[settings.model.family].contrasts and settings.model.defaults.true_cfg
    guidance = [row.get("guidance", settings.image.guidance) for row in own]
    return sum(2 if twice and one > 1 else 1 for one in guidance)
