"""How fast at what loss: the choices of --quality and of the flags beside it, as words. What the words do is in `opt/`.

A choice comes from its flag, else from the profile's table for the quality asked for, else it is the plain one.
"""

from __future__ import annotations

import msgspec

from fastgen.errors import SettingsError

QUALITIES = ("exact", "high", "fast")
"""Each takes over what the one before says, where its own table says nothing."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A table [opt.exact], [opt.high] or [opt.fast] of a profile. What is left out is left to the quality before."""

    attention: str = ""
    """auto, or one of `opt.attention.NAMES`."""
    compile: bool | None = None
    fuse_qkv: bool | None = None
    """One product instead of three in every attention."""
    quantize: str = ""
    """none, or a kind for the transformer and one for T5: "fp8", "fp8,text:8bit"."""
    cache: str = ""
    """none, or first-block or taylorseer, with or without ":" and a threshold."""
    offload: str = ""
    """none, text, model or group."""


class Sets(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """[opt] of a profile."""

    exact: Options = Options()
    """Differs from the plain model by rounding alone."""
    high: Options = Options()
    fast: Options = Options()


class Speed(msgspec.Struct, frozen=True):
    """The choices, resolved."""

    quality: str = "exact"
    attention: str = "auto"
    compile: bool = False
    fuse_qkv: bool = False
    quantize: str = "none"
    """The kind for the transformer."""
    quantize_text: str = "none"
    """The kind for T5."""
    cache: str = "none"
    offload: str = "none"
    why: dict[str, str] = {}
    """Where each choice comes from, by its field."""

    def changes_pictures(self) -> dict[str, str]:
        """What belongs into the fingerprint: all that changes pictures by more than rounding."""
        attention = {"attention": self.attention} if self.attention.startswith("sage") else {}
        return {"quantize": self.quantize, "quantize_text": self.quantize_text, "cache": self.cache, **attention}

    def as_table(self) -> dict[str, dict]:
        """For run.json: each choice with its reason."""
        return {name: {"is": getattr(self, name), "why": why} for name, why in self.why.items()}

    def notes(self, on_gpu: bool) -> list[str]:
        """What the user should be told beforehand."""
        notes = []
        own = [
            why
            for name, why in self.why.items()
            if name != "quality" and why.endswith(("quality high", "quality fast"))
        ]
        if self.quality != "exact" and not own:
            notes.append(f"--quality {self.quality}: the profile has nothing for it, so it is the same as exact")
        if not on_gpu and {self.quantize, self.quantize_text} != {"none"}:
            notes.append("--quantize on a CPU saves memory, not time (docs/optimizations.md)")
        return notes

    def explain(self) -> list[str]:
        """A line a choice that is not the plain one, or that somebody asked for."""
        plain, lines = Speed(), []
        for name, why in self.why.items():
            value = getattr(self, name)
            if value != getattr(plain, name) or why.startswith("--"):
                word = {True: "on", False: "off"}.get(value, value)
                lines.append(f"{name.replace('_', ' ')} {word} ({why})")
        return lines


def resolve(quality: str, sets: Sets, profile: str, flags: dict[str, str | bool | None]) -> Speed:
    """The choices for a local engine.

    Args:
        quality: one of QUALITIES, or "" where none was asked for.
        sets: the profile's tables.
        profile: how to call it.
        flags: those of `Options`, "" or None where not given.
    Raises:
        SettingsError: a word that cannot be read.
    """
    asked = quality or "exact"
    levels = QUALITIES[QUALITIES.index(asked) :: -1]
    chosen: dict[str, object] = {"quality": asked}
    why = {"quality": f"--quality {quality}" if quality else "the default"}
    for name in Options.__struct_fields__:
        flag = flags.get(name)
        level = next((one for one in levels if getattr(getattr(sets, one), name) not in ("", None)), None)
        if flag not in ("", None):
            value, reason = flag, "--no-compile" if flag is False else f"--{name}"
        elif level:
            value, reason = getattr(getattr(sets, level), name), f"{profile}, quality {level}"
        else:
            value, reason = getattr(Speed(), name), "the default"
        if name == "quantize":
            value, text = _parts(str(value))
            chosen["quantize_text"], why["quantize_text"] = text, reason
        chosen[name], why[name] = value, reason
    return Speed(**chosen, why=why)


def _parts(text: str) -> tuple[str, str]:
    """ "fp8,text:8bit" -> ("fp8", "8bit")."""
    found = {"transformer": "none", "text": "none"}
    for part in filter(None, (part.strip().lower() for part in text.split(","))):
        place, colon, kind = part.rpartition(":")
        if colon and place not in found:
            raise SettingsError(f"--quantize {text}: KIND, text:KIND or both with a comma, such as 8bit,text:8bit")
        found[place or "transformer"] = kind
    return found["transformer"], found["text"]
