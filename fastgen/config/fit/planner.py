"""Which placement and precision a model gets on a card: quality first, then speed.

Precision is lowered only where no placement fits. Among placements the fastest that fits is taken: everything on the
GPU; text encoders that only visit; parts that take turns; layers that are streamed. What a flag sets stays. Reckons
with `memory.need`; reads no hardware.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from fastgen.config.fit import memory, sharded
from fastgen.config.fit.card import Card
from fastgen.config.fit.memory import Need, Sizes, Work, need
from fastgen.config.fit.stages import Cut
from fastgen.config.optimizations import BECAUSE, BY_NAME, Compile, CudaGraphs, Offload, Optimizations, Quantize, Shard
from fastgen.errors import SettingsError

LOWER = ("none", "text:8bit", "8bit", "8bit,text:8bit", "4bit", "4bit,text:4bit")
"""Precisions after the one that was asked for, from the best down. T5 in 8 bits changes images least (66 dB PSNR on the
embedded model), then the transformer in 8 bits (53 to 56 dB), then in 4 (29 to 37 dB)."""
PROCESS_GIB = 3.0
"""Main memory of an engine besides the weights that it holds there."""


class Model(msgspec.Struct, frozen=True):
    """What is to be fitted."""

    name: str
    sizes: Sizes
    work: Work
    dtype: str
    dtype_bytes: int


class Refused(msgspec.Struct, frozen=True):
    """A choice that was not taken. `gib` is what it needs of the GPU (or of main memory, if `host`), 0.0 if it cannot
    be used for another reason, `why`."""

    precision: str
    placement: str
    gib: float = 0.0
    host: bool = False
    why: str = ""

    def explain(self) -> str:
        return f"{self.precision} {self.placement} {self.amount()}"

    def amount(self) -> str:
        """Such as "needs 34.9 GiB"."""
        return "cannot be combined" if self.why else f"needs {self.gib:.1f} GiB{' of main memory' if self.host else ''}"


class Plan(msgspec.Struct, frozen=True):
    """How a model fits into a card's memory. Reckoned, not measured."""

    card: Card
    words: str
    need: Need
    refused: tuple[Refused, ...] = ()
    warning: str = ""
    proposal: str = ""
    """What several GPUs together would do better."""

    def explain(self) -> list[str]:
        """Lines for the user."""
        lines = [
            f"{self.words} needs {self.need.gib:.1f} of the {self.card.free_gib:.1f} GiB that are free on "
            f"{self.card.name} (calculated, {self.need.explain()})"
        ]
        if self.need.host_gib:
            each = " for each GPU" if self.card.engines > 1 else ""
            lines[0] += f", and {self.need.host_gib:.1f} GiB of main memory{each}"
        if self.refused and (others := self.card.others):
            lines.append(others)
        for precision in dict.fromkeys(one.precision for one in self.refused):
            own = [f"{one.placement} {one.amount()}" for one in self.refused if one.precision == precision]
            lines.append(f"not chosen: {precision} " + ", ".join(own))
        return lines + [self.proposal] * bool(self.proposal)

    def as_table(self) -> dict:
        """For run.json and events, in GiB."""
        return {
            "card": self.card.name,
            "free_gib": self.card.free_gib,
            "chosen": self.words,
            "needs_gib": round(self.need.gib, 1),
            "phase": self.need.phase,
            "terms_gib": {name: round(gib, 2) for name, gib in self.need.terms.items()},
            "main_memory_gib": round(self.need.host_gib, 1),
            "not_chosen": [one.explain() for one in self.refused],
        }


class Planner:
    """Args:
    model, card: what is to be fitted, and where.
    refuse: why choices cannot be used on these GPUs, "" if they can; knows nothing of memory.
    fixed: what must not be changed: name of an optimization (`quantize`, `offload`, `compile`) -> what set it, for
        messages.
    """

    def __init__(self, model: Model, card: Card, refuse: Callable[[Optimizations], str], fixed: Mapping[str, str]):
        self.model = model
        self.card = card
        self.refuse = refuse
        self.fixed = fixed

    def plan(self, asked: Optimizations) -> tuple[Optimizations, Plan]:
        """The choices, with the planner's reasons, and the plan.

        Raises:
            SettingsError: nothing fits; the message says what is needed and what would fit.
        """
        refused: list[Refused] = []
        return self._search(asked, refused) or self._stretched(asked, refused)

    def _search(self, asked: Optimizations, refused: list[Refused]) -> tuple[Optimizations, Plan] | None:
        """The best that fits. `refused` gets the ones before it."""
        for candidate in self._candidates(asked):
            found, reason = self._judge(candidate)
            if reason is None:
                words = " ".join(self._words(candidate))
                card, candidate = self._placed(candidate)
                return self._chosen(asked, candidate, refused), Plan(card, words, found, tuple(refused))
            refused.append(reason)
        return None

    def _candidates(self, asked: Optimizations) -> Iterator[Optimizations]:
        """From the best to the worst; each at most once."""
        precisions, placements = [asked.quantize], [asked.offload]
        if asked.shard.divides_weights:
            yield asked
            return
        if "quantize" not in self.fixed:
            precisions += map(Quantize.parse, LOWER)
        if "offload" not in self.fixed:
            slower = Offload.kinds[Offload.kinds.index(asked.offload.kind) + 1 :]
            placements += map(Offload, slower)
        for quantize in dict.fromkeys(precisions):
            for offload in placements:
                candidate = replace(asked, quantize=quantize, offload=offload)
                plain = replace(candidate, compile=Compile())
                streamed = offload.kind == "group" and "compile" not in self.fixed
                yield plain if streamed and not self.refuse(plain) else candidate

    def _judge(self, candidate: Optimizations) -> tuple[Need, Refused | None]:
        """What it needs, and why it cannot be taken."""
        card, refusal = self.card, Refused(*self._words(candidate))
        if candidate.shard.divides_weights:
            return self._judge_sharded(candidate, refusal)
        found = need(*self._what(candidate))
        if why := self.refuse(candidate):
            return found, replace(refusal, why=why)
        if found.gib > card.free_gib:
            return found, replace(refusal, gib=found.gib)
        host = card.engines * (found.host_gib + PROCESS_GIB)
        if found.host_gib and card.host_gib and host > card.host_gib:
            return found, replace(refusal, gib=host, host=True)
        return found, None

    def _judge_sharded(self, candidate: Optimizations, refusal: Refused) -> tuple[Need, Refused | None]:
        if why := self.refuse(candidate):
            return Need("", {"margin": 0.0}, 0.0), replace(refusal, why=why)
        divided = self._divided(candidate, self.card.rooms_gib)
        if divided is None:
            gib = sharded.least_gib(*self._what(candidate), len(self.card.rooms_gib))
            return Need(sharded.PHASE, {"weights": gib, "margin": 0.0}, 0.0), replace(refusal, gib=gib)
        return divided[1], None

    def _placed(self, candidate: Optimizations) -> tuple[Card, Optimizations]:
        """The card that a plan is about, and the choices with what they keep free."""
        divided = self._divided(candidate, self.card.rooms_gib) if candidate.shard.divides_weights else None
        if divided is None:
            return self.card, candidate
        spare = memory.spare_gib(*self._what(candidate))
        card = replace(self.card, free_gib=self.card.rooms_gib[divided[2]])
        return card, replace(candidate, shard=replace(candidate.shard, spare_gib=spare))

    def _divided(self, choices: Optimizations, rooms_gib: Sequence[float]) -> tuple[Cut, Need, int] | None:
        return sharded.divide(*self._what(choices), rooms_gib)

    def _what(self, choices: Optimizations) -> tuple[Sizes, Work, Optimizations, int]:
        work = self.model.work
        if choices.shard.kind == "context":  # each GPU has all weights and some of the tokens
            image, reference = (-(-n // len(self.card.rooms_gib)) for n in (work.image_tokens, work.reference_tokens))
            work = replace(work, image_tokens=image, reference_tokens=reference)
        return self.model.sizes, work, choices, self.model.dtype_bytes

    def proposal(self, asked: Optimizations, gpus: int) -> str:
        """With how many of a run's equal GPUs the model would fit as it was asked for, if each had a part of it; "" if
        that is not so. They have as much room as this card."""
        plain = replace(asked, shard=Shard("shard"), offload=Offload(), cuda_graphs=CudaGraphs())
        for size in range(2, gpus + 1):
            if gpus % size == 0 and not self.refuse(plain) and self._divided(plain, [self.card.free_gib] * size):
                precision = _precision(asked.quantize, self.model.dtype)
                return f"split over {size} GPUs the model would fit as {precision}: --gpus-per-replica {size}"
        return ""

    def _stretched(self, asked: Optimizations, refused: list[Refused]) -> tuple[Optimizations, Plan]:
        """What the user's own flags choose, if it may fit without the margin; else the reason why nothing does."""
        if self.fixed.keys() >= {"quantize", "offload"} and not asked.shard.divides_weights:
            [candidate] = self._candidates(asked)
            found, _ = self._judge(candidate)
            if not refused[0].why and not refused[0].host and found.least_gib <= self.card.free_gib:
                words = " ".join(self._words(candidate))
                warning = f"{words} leaves no margin on {self.card.name}: it may run out of memory"
                return self._chosen(asked, candidate, []), Plan(self.card, words, found, warning=warning)
        if all(one.why for one in refused):
            raise SettingsError(refused[0].why)
        raise SettingsError(self._nothing_fits(asked, refused))

    def _nothing_fits(self, asked: Optimizations, refused: list[Refused]) -> str:
        card = self.card
        first, *others = sorted((one for one in refused if not one.why), key=lambda one: (one.host, one.gib))
        text = (
            f"--model {self.model.name}: does not fit on {card.name}, which has {card.free_gib:.1f} GiB free: "
            f"{first.explain()}"
        )
        if others:
            text += f", which is the least; {others[-1].explain()}"
        if any(one.host for one in refused):
            text += f"; {card.host_gib:.1f} GiB of main memory are free"
        if card.others:
            text += f"; {card.others}, so end them"
        advice = "Use a GPU with more memory, a smaller --size or --batch-size, or a smaller model"
        return f"{text}. {self._without_flags(asked) or advice}"

    def _without_flags(self, asked: Optimizations) -> str:
        """What would fit if the user left more of the choice to the planner; "" if nothing would."""
        if asked.shard.divides_weights:
            return ""
        for names in (("offload",), ("quantize",), ("quantize", "offload")):
            said = [self.fixed[name] for name in names if name in self.fixed]
            rest = {name: flag for name, flag in self.fixed.items() if name not in names}
            freed = replace(asked, **{name: BY_NAME[name]() for name in names})
            found = Planner(self.model, self.card, self.refuse, rest)._search(freed, []) if said else None
            if found:
                return f"Without {' and '.join(said)}, {found[1].words} fits (it needs {found[1].need.gib:.1f} GiB)"
        return ""

    def _chosen(self, asked: Optimizations, candidate: Optimizations, refused: list[Refused]) -> Optimizations:
        """The candidate, with a reason for everything that differs from what was asked."""
        why = dict(asked.why)
        if candidate.offload != asked.offload:
            why["offload"] = BECAUSE + self._before(refused, candidate.quantize)
        if candidate.quantize != asked.quantize:
            why |= dict.fromkeys(candidate.quantize.words(), BECAUSE + self._before(refused, asked.quantize))
        if candidate.compile != asked.compile:
            why["compile"] = f"{BECAUSE}layers that are streamed cannot be compiled"
        return replace(candidate, why=why)

    def _before(self, refused: list[Refused], quantize: Quantize) -> str:
        """Why the best of the slower choices in this precision was not taken."""
        own = [one for one in refused if one.precision == _precision(quantize, self.model.dtype)]
        return next((one for one in reversed(own) if not one.why), own[-1]).explain()

    def _words(self, choices: Optimizations) -> tuple[str, str]:
        """Precision and placement."""
        kind = choices.offload.kind
        where = "the GPU" if choices.shard.is_plain else "each GPU"
        placement = f"with everything on {where}" if kind == "none" else f"with --offload {kind}"
        if choices.shard.divides_weights:
            placement = f"split over {len(self.card.rooms_gib)} GPUs"
        return _precision(choices.quantize, self.model.dtype), placement


def _precision(quantize: Quantize, dtype: str) -> str:
    return dtype if quantize.is_plain else f"--quantize {quantize.word()}"
