"""Train the embedded models from scratch: python -m fastgen.embedded.train {vae,flux,vlm}.

Several processes can share the work: torchrun --nproc-per-node 2 -m fastgen.embedded.train flux --threads 1.
You can kill it at any time; the same command continues from its last checkpoint, at most a minute earlier.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
Folder = Annotated[Path, typer.Option(help="Folder for checkpoints, samples and, at the end, the models.")]
Seed = Annotated[int, typer.Option(help="Determines all data and initial weights.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0: all.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda if there is one.")]


def _begin(threads: int, device: str) -> str:
    import os

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    if threads:
        torch.set_num_threads(threads)
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


@app.command()
def vae(
    folder: Folder = Path("fastgen-train"),
    steps: int = 2600,
    seed: Seed = 1,
    threads: Threads = 0,
    device: Device = "auto",
) -> None:
    """FLUX's VAE -> FOLDER/vae/model."""
    device = _begin(threads, device)
    from fastgen.embedded.train import vae

    vae.train(folder / "vae", folder / "vae" / "model", steps, seed, device)


Start = Annotated[
    Path | None, typer.Option(help="A trained folder, such as the shipped one, to start from instead of from scratch.")
]


@app.command()
def flux(
    folder: Folder = Path("fastgen-train"),
    steps: int = 6500,
    seed: Seed = 1,
    threads: Threads = 0,
    device: Device = "auto",
    pairs: Annotated[int, typer.Option(help="Number of pairs of a scene and its edit to learn from.")] = 12_000,
    start: Start = None,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="torch.compile; needs a C++ compiler.")
    ] = True,
) -> None:
    """Text encoders and transformer, on the VAE that `vae` trained -> FOLDER/tiny-flux."""
    device = _begin(threads, device)
    from fastgen.embedded.train import flux

    trained = folder / "vae" / "model"
    if start is None and not (trained / "config.json").exists():
        raise SystemExit(f"error: {trained} is missing: train the VAE first (python -m fastgen.embedded.train vae)")
    flux.train(
        folder / "flux",
        trained,
        folder / "tiny-flux",
        steps,
        seed,
        pairs=pairs,
        compiled=compiled,
        device=device,
        start=start,
    )


@app.command()
def vlm(
    folder: Folder = Path("fastgen-train"),
    steps: int = 6500,
    seed: Seed = 1,
    threads: Threads = 0,
    device: Device = "auto",
    start: Start = None,
) -> None:
    """The captioner -> FOLDER/tiny-vlm."""
    device = _begin(threads, device)
    from fastgen.embedded.train import vlm

    vlm.train(folder / "vlm", folder / "tiny-vlm", steps, seed, device, start=start)


if __name__ == "__main__":
    app()
