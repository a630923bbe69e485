"""The choices of optimizations: one type for each, used from the flag to the weights. What they do is in `opt/`.
Imports no torch.

A value comes from its flag, else from the profile's table for the requested quality, else it is the plain model's. It
is parsed here, once; the choices are then part of the settings, and `opt` uses them as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

import msgspec

from fastgen.errors import SettingsError

BECAUSE = "to fit: "
"""How the reasons of choices begin that were made for lack of memory (`config/fit`), also in run.json."""
PROFILE_ONLY = ("fuse_qkv", "norm_rope")
QUALITIES = ("exact", "high", "fast")
"""Each includes the choices of the one before it, unless its own table sets them."""


def _dashed(flag: str) -> str:
    """As on the command line. What only a profile can choose is written as there."""
    return flag if flag in PROFILE_ONLY else f"--{flag.replace('_', '-')}"


class Optimization(msgspec.Struct, frozen=True):
    """What all have in common. Without arguments, each is that of the plain model."""

    flag: ClassVar[str]
    """The name by which it is chosen: a key of a profile, and `--flag` if the command line has it."""
    always: ClassVar[bool] = False
    """Applied to the plain model too."""
    by_profile: ClassVar[bool] = True
    """Whether a profile can choose it."""
    is_new: ClassVar[bool] = False
    """Came after 0.1.0: run.json names it only if it was chosen, as run folders of that version have it."""

    @classmethod
    def parse(cls, word: str | bool) -> Self:
        """Parse the value of its flag. Raises ValueError that lists the valid values."""
        raise NotImplementedError

    def word(self) -> str | bool:
        """The value that chooses this."""
        return getattr(self, self.__struct_fields__[0])

    def words(self) -> dict[str, str | bool]:
        """The choice for run.json, with the names used there."""
        return {self.flag: self.word()}

    def changes_pictures(self) -> dict[str, str | bool]:
        """The part of the fingerprint of a run folder: the `words` that change images by more than rounding. It must
        stay empty for the plain model, or run folders of earlier versions can no longer resume."""
        return {}

    def as_flag(self) -> str:
        """As written on the command line."""
        flag = _dashed(self.flag)
        return flag if self.word() is True else f"{flag} {self.word()}"

    @property
    def is_plain(self) -> bool:
        return self == type(self)()

    @property
    def is_settled(self) -> bool:
        """Whether it is known that it is used; else it is left out where it would be in the way."""
        return True


class Layout(Optimization, frozen=True):
    flag: ClassVar[str] = "fuse_qkv"
    always: ClassVar[bool] = True
    fuse_qkv: bool = False
    """One matrix product instead of three in every attention."""

    @classmethod
    def parse(cls, word: str | bool) -> Self:
        return cls(bool(word))


class Quantize(Optimization, frozen=True):
    flag: ClassVar[str] = "quantize"
    kinds: ClassVar[tuple[str, ...]] = ("8bit", "4bit", "fp8", "int8", "mxfp8", "nvfp4")
    transformer: str = "none"
    """none or one of `kinds`."""
    text: str = "none"
    """For T5, the larger text encoder: the same kinds."""

    @classmethod
    def parse(cls, word: str | bool) -> Self:
        """ "fp8,text:8bit" -> Quantize("fp8", "8bit")."""
        found = {"transformer": "none", "text": "none"}
        for part in filter(None, (part.strip().lower() for part in str(word).split(","))):
            model, colon, kind = part.rpartition(":")
            if colon and model not in found:
                raise ValueError("KIND, text:KIND or both with a comma, such as 8bit,text:8bit")
            if kind not in ("none", *cls.kinds):
                raise ValueError(f"one of none, {', '.join(cls.kinds)}, and the same for T5 as text:{cls.kinds[0]}")
            found[model or "transformer"] = kind
        return cls(**found)

    def word(self) -> str:
        parts = (self.transformer, f"text:{self.text}")
        return ",".join(part for part in parts if not part.endswith("none")) or "none"

    def words(self) -> dict[str, str | bool]:
        return {"quantize": self.transformer, "quantize_text": self.text}

    def changes_pictures(self) -> dict[str, str | bool]:
        return self.words()  # also for the plain model: run folders have always had these keys


class Shard(Optimization, frozen=True):
    """How the devices of a replica work together."""

    flag: ClassVar[str] = "parallel"
    by_profile: ClassVar[bool] = False
    is_new: ClassVar[bool] = True
    kind: str = "none"
    """none: a replica has one device. shard: each has some of the blocks, and different images go through them at the
    same time. context: each has some of the tokens of the same images."""
    spare_gib: tuple[float, float, float] = (3.0, 1.5, 1.5)
    """Memory that is kept free of weights: on the first device, on each other one, and where the text encoders are. The
    planner sets it."""

    @classmethod
    def parse(cls, word: str | bool) -> Self:
        if word not in ("shard", "context"):
            raise ValueError("one of shard, context")
        return cls(str(word))

    @property
    def divides_weights(self) -> bool:
        """Whether each device has some of the weights only."""
        return self.kind == "shard"


class Offload(Optimization, frozen=True):
    flag: ClassVar[str] = "offload"
    always: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("none", "text", "model", "group")
    kind: str = "none"

    @classmethod
    def parse(cls, word: str | bool) -> Self:
        if word not in cls.kinds:
            raise ValueError(f"one of {', '.join(cls.kinds)}")
        return cls(str(word))


class Attention(Optimization, frozen=True):
    flag: ClassVar[str] = "attention"
    kernels: ClassVar[tuple[str, ...]] = (
        "native",
        "math",
        "efficient",
        "cudnn",
        "flex",
        "flash",
        "flash3",
        "flash3_hub",
        "flash4",
        "sage",
        "xformers",
    )
    kernel: str = "auto"
    """auto (PyTorch's own choice), best (the first of `opt.attention.BEST` that works here) or one of `kernels`."""

    @classmethod
    def parse(cls, word: str | bool) -> Self:
        if word not in ("auto", "best", *cls.kernels):
            raise ValueError(f"one of auto, best, {', '.join(cls.kernels)}")
        return cls(str(word))

    def changes_pictures(self) -> dict[str, str | bool]:
        return self.words() if self.kernel.startswith("sage") else {}


class Compile(Optimization, frozen=True):
    flag: ClassVar[str] = "compile"
    on: bool = False
    backend: str = "inductor"
    """The backend of torch.compile; "eager" traces without generating code, for tests."""
    if_it_pays: bool = False
    """Off again if the run is too short for it (`config.payback`)."""

    @classmethod
    def parse(cls, word: str | bool) -> Self:
        """ "auto": if it pays back."""
        if word not in (True, False, "auto"):
            raise ValueError("true, false or auto")
        return cls(bool(word), if_it_pays=word == "auto")

    def word(self) -> str | bool:
        return "auto" if self.if_it_pays else self.on

    @property
    def is_settled(self) -> bool:
        return not self.if_it_pays


class NormRope(Optimization, frozen=True):
    flag: ClassVar[str] = "norm_rope"
    is_new: ClassVar[bool] = True
    on: bool = False
    """One kernel for the norm and the rotation of queries and keys."""

    @classmethod
    def parse(cls, word: str | bool) -> Self:
        return cls(bool(word))


class CudaGraphs(Optimization, frozen=True):
    flag: ClassVar[str] = "cuda_graphs"
    is_new: ClassVar[bool] = True
    on: bool = False
    """A step of the loop is recorded once per shape and then repeated."""

    @classmethod
    def parse(cls, word: str | bool) -> Self:
        return cls(bool(word))


class StepCache(Optimization, frozen=True):
    flag: ClassVar[str] = "cache"
    thresholds: ClassVar[dict[str, float]] = {"first-block": 0.1, "taylorseer": 0.1}
    """The threshold of a kind that is given without one."""
    kind: str = "none"
    """none, first-block or taylorseer."""
    threshold: float = 0.0
    """The largest relative distance (L1) at which earlier work is reused."""
    most_skips: int = 3
    """Maximum number of steps left out in a row; the next step is computed in any case."""
    asked_as: str = ""
    """The value as it was given, which is stored in run folders."""

    @classmethod
    def parse(cls, word: str | bool) -> Self:
        """ "taylorseer:0.2", or without a threshold."""
        kind, colon, number = str(word).partition(":")
        if word == "none":
            return cls()
        if kind not in cls.thresholds:
            raise ValueError(f"one of none, {', '.join(cls.thresholds)}, with or without a threshold (first-block:0.1)")
        try:
            threshold = float(number) if colon else cls.thresholds[kind]
        except ValueError:
            threshold = 0.0
        if not 0 < threshold <= 2:
            raise ValueError("the threshold after ':' is a number above 0, up to 2")
        return cls(kind, threshold, asked_as=str(word))

    @property
    def order(self) -> int:
        """How many steps before the last computed one are used."""
        return {"first-block": 0, "taylorseer": 1}[self.kind]

    def word(self) -> str:
        return self.asked_as or ("none" if self.kind == "none" else f"{self.kind}:{self.threshold:g}")

    def changes_pictures(self) -> dict[str, str | bool]:
        return self.words()  # as for `Quantize`


class Progressive(Optimization, frozen=True):
    flag: ClassVar[str] = "progressive"
    is_new: ClassVar[bool] = True
    usual_share: ClassVar[float] = 0.25
    """The share of the steps if it is not given."""
    scale: float = 1.0
    """The sides of the small image, as a share of the full ones. 1: none, all steps are at the full size."""
    share: float = 0.0
    """The share of an image's steps that are taken at the small size, its first ones."""

    @classmethod
    def parse(cls, word: str | bool) -> Self:
        """ "0.5:0.25", or without the share of the steps."""
        if word == "none":
            return cls()
        scale, colon, share = str(word).partition(":")
        try:
            found = cls(float(scale), float(share) if colon else cls.usual_share)
        except ValueError:
            found = cls()
        if not (0.25 <= found.scale < 1 and 0 < found.share <= 0.75):
            raise ValueError(
                "none, or SCALE:SHARE such as 0.5:0.25: the sides of the small image as a share of the full ones (0.25 "
                "to below 1), and the share of the steps that it takes (above 0, up to 0.75)"
            )
        return found

    def word(self) -> str:
        return "none" if self.is_plain else f"{self.scale:g}:{self.share:g}"

    def changes_pictures(self) -> dict[str, str | bool]:
        return {} if self.is_plain else self.words()

    def steps(self, steps: int) -> int:
        """How many of so many steps are taken at the small size. The last one never is."""
        return min(int(steps * self.share + 1e-9), steps - 1)


class Optimizations(msgspec.Struct, frozen=True):
    """The choices of a run. Each of the first fields is a file of that name in `opt/`, and they are applied in this
    order: weights are joined before they are quantized, and both happen before they move to the device, where the rest
    needs them.
    """

    layout: Layout = Layout()
    quantize: Quantize = Quantize()
    shard: Shard = Shard()
    offload: Offload = Offload()
    attention: Attention = Attention()
    norm_rope: NormRope = NormRope()
    compile: Compile = Compile()
    cuda_graphs: CudaGraphs = CudaGraphs()
    stepcache: StepCache = StepCache()
    progressive: Progressive = Progressive()
    quality: str = "exact"
    why: dict[str, str] = {}
    """Name in run.json -> where the choice comes from."""

    def each(self) -> Iterator[tuple[str, Optimization]]:
        """Every choice with its name, in the order in which they are applied."""
        return ((name, getattr(self, name)) for name in BY_NAME)

    def words(self) -> dict[str, str | bool]:
        """Name in run.json -> the choice as text."""
        return {"quality": self.quality} | {name: word for _, one in self.each() for name, word in one.words().items()}

    def changes_pictures(self) -> dict[str, str | bool]:
        """The part of the fingerprint: everything that changes images by more than rounding."""
        return {name: word for _, one in self.each() for name, word in one.changes_pictures().items()}

    def as_table(self) -> dict[str, dict]:
        """For run.json: each choice with its reason."""
        words = self.words()
        left_out = {one.flag for _, one in self.each() if one.is_new and self.why.get(one.flag) == "the default"}
        return {name: {"is": words[name], "why": why} for name, why in self.why.items() if name not in left_out}

    def notes(self, on_gpu: bool) -> list[str]:
        """Notes for the user before the run."""
        notes = []
        own = [why for name, why in self.why.items() if name != "quality" and why.endswith(("high", "fast"))]
        if self.quality != "exact" and not own:
            notes.append(f"--quality {self.quality}: the profile has nothing for it, so it is the same as exact")
        if not on_gpu and not self.quantize.is_plain:
            notes.append("--quantize on a CPU saves memory, not time (docs/optimizations.md)")
        return notes

    def explain(self) -> list[str]:
        """One line per choice that differs from the plain model, or that a flag set."""
        words: dict[str, str | bool] = {}
        if self.quality != "exact" or self.why.get("quality", "").startswith("--"):
            words["quality"] = self.quality
        for _, one in self.each():
            plain, why = type(one)().words(), self.why.get(one.flag, "")
            asked = one.is_plain and why.startswith(("--", BECAUSE))
            words |= {name: word for name, word in one.words().items() if asked or word != plain[name]}
        said = {True: "on", False: "off"}
        lines = {name: said[word] if isinstance(word, bool) else word for name, word in words.items()}
        return [f"{name.replace('_', ' ')} {word} ({self.why[name]})" for name, word in lines.items()]


BY_NAME: dict[str, type[Optimization]] = {
    field.name: type(field.default)
    for field in msgspec.structs.fields(Optimizations)
    if isinstance(field.default, Optimization)
}
"""All optimizations, by name."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A table [opt.exact], [opt.high] or [opt.fast] of a profile: flag -> value of the optimization. What is left out
    comes from the quality before it."""

    attention: str = ""
    compile: bool | Literal["auto"] | None = None
    """"auto": only in runs that are long enough to pay it back."""
    fuse_qkv: bool | None = None
    norm_rope: bool | None = None
    cuda_graphs: bool | None = None
    quantize: str = ""
    cache: str = ""
    progressive: str = ""
    offload: str = ""


class Sets(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """[opt] of a profile."""

    exact: Options = Options()
    """Differs from the plain model only by rounding."""
    high: Options = Options()
    fast: Options = Options()


def resolve(quality: str, sets: Sets, profile: str, flags: dict[str, Any]) -> Optimizations:
    """The choices for a local engine.

    Args:
        quality: one of QUALITIES, or "" if none was requested.
        sets: the profile's tables.
        profile: its name in messages.
        flags: by name; those in `Options` are "" or None if not given.
    Raises:
        SettingsError: a value is not valid.
    """
    asked = quality or "exact"
    levels = QUALITIES[QUALITIES.index(asked) :: -1]
    chosen: dict[str, Any] = {}
    why = {"quality": f"--quality {quality}" if quality else "the default"}
    for name, kind in BY_NAME.items():
        word, reason = flags.get(kind.flag), _dashed(kind.flag)
        if word is False:
            reason = f"--no-{kind.flag.replace('_', '-')}"
        elif word in ("", None) and not kind.by_profile:
            word, reason = None, "the default"
        elif word in ("", None):
            level = next((one for one in levels if getattr(getattr(sets, one), kind.flag) not in ("", None)), None)
            word = getattr(getattr(sets, level), kind.flag) if level else None
            reason = f"{profile}, quality {level}" if level else "the default"
        try:
            chosen[name] = kind() if word is None else kind.parse(word)
        except ValueError as error:
            raise SettingsError(f"{_dashed(kind.flag)} {word}: {error}{source(reason)}") from None
        why |= dict.fromkeys(chosen[name].words(), reason)
    return Optimizations(**chosen, quality=asked, why=why)


def source(reason: str) -> str:
    """Where a refused choice comes from, if it was not the user's own flag."""
    return "" if reason.startswith("--") or reason in ("", "the default") else f" (chosen by {reason})"
