"""Train the embedded models from nothing: python -m fastgen.embedded.train {vae,flux,vlm}.

Kill it at any time; the same command goes on from its last checkpoint, at most a minute back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
Folder = Annotated[Path, typer.Option(help="Checkpoints, samples and, at the end, the models.")]
Seed = Annotated[int, typer.Option(help="All data and initial weights follow from it.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 is all of them.")]


def _begin(threads: int) -> None:
    import os

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    if threads:
        torch.set_num_threads(threads)


@app.command()
def vae(
    folder: Folder = Path("fastgen-train"), steps: int = 2600, seed: Seed = 1, threads: Threads = 0
) -> None:
    """FLUX's VAE -> FOLDER/vae/model."""
    _begin(threads)
    from fastgen.embedded.train import vae

    vae.train(folder / "vae", folder / "vae" / "model", steps, seed)


@app.command()
def flux(
    folder: Folder = Path("fastgen-train"), steps: int = 14_000, seed: Seed = 1, threads: Threads = 0,
    pairs: Annotated[int, typer.Option(help="Pairs of a scene and its edit to learn from.")] = 20_000,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="torch.compile; needs a C++ compiler.")] = True,
) -> None:  # fmt: skip
    """Text encoders and transformer, on the VAE that `vae` trained -> FOLDER/tiny-flux."""
    _begin(threads)
    from fastgen.embedded.train import flux

    trained = folder / "vae" / "model"
    if not (trained / "config.json").exists():
        raise SystemExit(f"error: {trained} is missing: train the VAE first (python -m fastgen.embedded.train vae)")
    flux.train(folder / "flux", trained, folder / "tiny-flux", steps, seed, pairs=pairs, compiled=compiled)


@app.command()
def vlm(
    folder: Folder = Path("fastgen-train"), steps: int = 6500, seed: Seed = 1, threads: Threads = 0
) -> None:
    """The captioner -> FOLDER/tiny-vlm."""
    _begin(threads)
    from fastgen.embedded.train import vlm

    vlm.train(folder / "vlm", folder / "tiny-vlm", steps, seed)


if __name__ == "__main__":
    app()
