"""What helps when the memory of a device is full, in the order in which to try it. Pure; does not know the error."""

from __future__ import annotations

from fastgen.config.settings import Settings


def advice(settings: Settings, on_gpu: bool, one_sample: bool) -> str:
    """What the user can change, by what the settings leave open.

    Args:
        one_sample: whether the model fits, and not even one sample besides.
    """
    chosen = settings.optimizations
    kinds = (chosen.quantize.transformer, chosen.quantize.text)
    ways = []
    if one_sample:
        ways.append("a smaller size")
    if settings.engine.dtype == "float32":
        ways.append("--dtype bfloat16")
    if kinds == ("none", "none"):
        ways.append("--quantize 8bit,text:8bit (half of the weights), then 4bit,text:4bit")
    elif "none" in kinds:
        transformer, text = (kind if kind != "none" else "8bit" for kind in kinds)
        ways.append(f"--quantize {transformer},text:{text}")
    elif "4bit" not in kinds:
        ways.append("--quantize 4bit,text:4bit")
    if on_gpu:
        ways += _less_at_once(settings)
    fast = settings.placement.profile.opt.fast.quantize
    if fast and kinds[0] == "none" and chosen.quality != "fast":
        ways.append(f"--quality fast (it has --quantize {fast})")
    ways.append("a GPU with more memory" if on_gpu else "a machine with more memory")
    if not one_sample:
        ways.append("a smaller model")
    return f"try, in this order: {'; '.join(ways)}"


def _less_at_once(settings: Settings) -> list[str]:
    """The kinds of --offload that keep less on the GPU than the one in use."""
    quantized = not settings.optimizations.quantize.is_plain
    steps = ["none", "text", "model"] if quantized else ["none", "text", "model", "group"]
    kind = settings.optimizations.offload.kind
    left = steps[steps.index(kind) + 1 :] if kind in steps else []
    return [f"--offload {', then '.join(left)}"] if left else []
