"""What a shell offers for the values of flags when TAB is pressed. Every word comes from where it is defined."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import typer

Completer = Callable[[typer.Context, str], list[str]]


def _from(words: Callable[[str], Iterable[str]]) -> Completer:
    """Args: words: task -> what may be written there."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        return [word for word in words(ctx.info_name or "") if word.startswith(incomplete)]

    return complete


def _backends(task: str) -> Iterable[str]:
    from fastgen.config.backends import names

    return names(task)  # type: ignore[arg-type]


def _models(task: str) -> Iterable[str]:
    from fastgen.config.short_names import SHORT_NAMES

    return ("auto", "tiny", *(SHORT_NAMES if task != "caption" else ()))


def _formats(task: str) -> Iterable[str]:
    from fastgen.config.checks import FORMATS

    return (*FORMATS, "jpeg:90", "webp:80", "webp:lossless")


def _tables(task: str) -> Iterable[str]:
    from fastgen.output import export
    from fastgen.output.writers import table_formats

    return export.FORMATS if task == "export" else table_formats.FORMATS


def _kernels(task: str) -> Iterable[str]:
    from fastgen.config.optimizations import Attention

    return Attention.kernels


def _qualities(task: str) -> Iterable[str]:
    from fastgen.config.optimizations import QUALITIES

    return QUALITIES


def _quantizations(task: str) -> Iterable[str]:
    from fastgen.config.optimizations import Quantize

    return ("none", *Quantize.kinds)


def _gpus(task: str) -> Iterable[str]:
    return "all", "cpu", "0", "0,1", "0+1"


backends = _from(_backends)
models = _from(_models)
formats = _from(_formats)
tables = _from(_tables)
kernels = _from(_kernels)
gpus = _from(_gpus)
qualities = _from(_qualities)
quantizations = _from(_quantizations)
dtypes = _from(lambda task: ("auto", "bfloat16", "float16", "float32"))
offloads = _from(lambda task: ("none", "text", "model", "group"))
clusters = _from(lambda task: ("slurm", "ray", "kuberay"))
caches = _from(lambda task: ("none", "first-block", "taylorseer"))
progressives = _from(lambda task: ("none", "0.5:0.25"))
