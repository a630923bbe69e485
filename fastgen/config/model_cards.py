"""Finds the folder of a model name, checks that it is complete, and reads its defaults. Loads nothing; imports no
torch.

To add a family, recognise its `model_index.json` in `read_card` and give it a backend in `backends/registry.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from fastgen.config import downloads
from fastgen.config.backends import BackendSpec
from fastgen.config.stamps import ends
from fastgen.errors import ModelError
from fastgen.types import Task, warm

TINY = Path(__file__).parents[1] / "embedded" / "tiny-flux"
"""The embedded model."""
TINY_VLM = TINY.with_name("tiny-vlm")
"""The embedded captioner."""
AUTO_ON_GPU = {"t2i": "black-forest-labs/FLUX.1-dev", "edit": "black-forest-labs/FLUX.1-Kontext-dev"}
PIPELINES = {"FluxPipeline": "flux", "FluxKontextPipeline": "flux"}
COMPONENTS = ("transformer", "vae", "text_encoder", "text_encoder_2")
MODULES = (*COMPONENTS, "tokenizer", "tokenizer_2", "scheduler")
SCHEDULER = "FlowMatchEulerDiscreteScheduler"
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")
_WEIGHT_INDEXES = ("diffusion_pytorch_model.safetensors.index.json", "model.safetensors.index.json")


# What FLUX.1-Kontext was trained on (source: PREFERRED_KONTEXT_RESOLUTIONS in diffusers' pipeline_flux_kontext.py).
KONTEXT_SIZES = (
    (672, 1568),
    (688, 1504),
    (720, 1456),
    (752, 1392),
    (800, 1328),
    (832, 1248),
    (880, 1184),
    (944, 1104),
    (1024, 1024),
    (1104, 944),
    (1184, 880),
    (1248, 832),
    (1328, 800),
    (1392, 752),
    (1456, 720),
    (1504, 688),
    (1568, 672),
)


class Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The values to use if neither row nor flag sets them. A model folder may have its own in `fastgen.json`."""

    steps: int = 28
    guidance: float = 3.5
    width: int = 1024
    height: int = 1024
    pixels: int = 1024 * 1024
    """Pixel budget of an edit that sets no size."""
    preferred_sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) that the model was trained on; an edit that sets no size takes the nearest in shape."""
    max_pixels: int = 2048 * 2048
    max_sequence_length: int = 512
    """Tokens of the T5 prompt; padding counts as text in FLUX, so this changes images."""
    edits: bool = False
    """Whether the model was trained to edit images."""


class ModelCard(msgspec.Struct, frozen=True):
    name: str
    path: str
    family: str
    fingerprint: str
    """Changes if a file of the model is replaced; see `stamps.ends`."""
    defaults: Defaults
    grid: int = 16
    """Sizes are multiples of this many pixels: VAE downsampling times the transformer's patch."""
    synthetic: bool = False
    """The folder has no weights: the engine uses random ones, to measure speed (`fastgen bench --synthetic`)."""


warm(Defaults, ModelCard)


def locate(
    spec: BackendSpec, task: Task, model: str, on_gpu: bool, base_url: str | None, command: str | None
) -> tuple[ModelCard, None, list[str]]:
    """A model of the local engine: its card, no endpoint, and notes for the user. Raises ModelError."""
    card, notes = resolve_model(model, task, on_gpu)
    return card, None, notes


def locate_fake(
    spec: BackendSpec, task: Task, model: str, on_gpu: bool, base_url: str | None, command: str | None
) -> tuple[ModelCard, None, list[str]]:
    """Stands in for a model if there is none."""
    defaults = Defaults(steps=4, guidance=0.0, width=64, height=64, pixels=64 * 64, edits=True)
    (family,) = spec.engines
    return ModelCard(spec.name, "", family, spec.name, defaults), None, []


def resolve_model(name: str, task: Task, on_gpu: bool) -> tuple[ModelCard, list[str]]:
    """The card for a hub id, a local folder, "tiny" or "auto", and notes for the user.

    Raises:
        ModelError: unknown name, incomplete folder or unsupported family; the message says how to fix it.
    """
    notes = []
    if name == "auto":
        name = AUTO_ON_GPU[task] if on_gpu else "tiny"
        if name == "tiny":
            notes.append(
                "no CUDA GPU here, so --model auto is 'tiny', the embedded model: it knows scenes of flat shapes "
                "such as "
                "'a red circle on a blue background', and nothing else (with a GPU it is " + AUTO_ON_GPU[task] + ")"
            )
    local = Path(name).expanduser()
    try:
        is_folder, is_there = local.is_dir(), local.exists()
    except OSError:  # longer than any path may be
        is_folder = is_there = False
    if name == "tiny":
        folder = TINY
    elif is_folder:
        folder = local.resolve()
    elif is_there:
        raise ModelError(
            f"--model {name}: is a file, not a model folder. To use transformer weights in one safetensors file, give "
            "the folder or hub id of the whole model as --model and the file as --transformer"
        )
    elif (found := _from_hub(name)) is not None:
        folder = found
    else:
        return _not_here(name, task), [f"it would download {downloads.of(name)}"]
    card = read_card(name, folder)
    if card.synthetic:
        notes.append(f"--model {name} has random weights, to measure speed: its images are noise")
    if task == "edit" and not card.defaults.edits:
        notes.append(f"--model {name} is a text-to-image model, not Kontext: its edits may ignore the input image")
    return card, notes


def read_card(name: str, folder: Path) -> ModelCard:
    """Read and check a diffusers-format folder without loading it. Raises ModelError."""

    def read(path: Path) -> dict:
        try:
            value = json.loads(path.read_text("utf-8"))
            if not isinstance(value, dict):
                raise ValueError("it must hold a JSON object")
            return value
        except FileNotFoundError:
            raise ModelError(
                f"--model {name}: {path.relative_to(folder)} is missing in {folder}; "
                "a FLUX.1 folder in diffusers format has it. Download the model again or use another folder"
            ) from None
        except (ValueError, OSError, RecursionError) as error:
            raise ModelError(f"--model {name}: cannot read {path}: {error}. Download the model again") from None

    index = read(folder / "model_index.json")
    pipeline = index.get("_class_name")
    if pipeline not in PIPELINES:
        raise ModelError(f"--model {name}: its pipeline is {pipeline}; supported are {', '.join(PIPELINES)}")
    configs = {part: read(folder / part / "config.json") for part in COMPONENTS}
    for part in MODULES:
        if not (folder / part).is_dir() or not any((folder / part).iterdir()):
            raise ModelError(f"--model {name}: the folder {part}/ is missing in {folder}. Download the model again")
    scheduler = read(folder / "scheduler" / "scheduler_config.json").get("_class_name", SCHEDULER)
    if scheduler != SCHEDULER:
        raise ModelError(f"--model {name}: its scheduler is {scheduler}; FLUX.1 is sampled with {SCHEDULER}")
    own = read(folder / "fastgen.json") if (folder / "fastgen.json").exists() else {}
    synthetic = own.pop("synthetic", False) is True
    for part in () if synthetic else COMPONENTS:
        _check_weights(name, folder / part, read)
    for part in ("tokenizer", "tokenizer_2"):
        read(folder / part / "tokenizer_config.json")
        if not any((folder / part / file).exists() for file in _VOCABULARIES):
            raise ModelError(
                f"--model {name}: no vocabulary in {folder / part} ({' or '.join(_VOCABULARIES)}). Download the "
                "model again"
            )
    try:
        defaults = msgspec.convert({**msgspec.to_builtins(_usual(pipeline, configs["transformer"])), **own}, Defaults)
    except msgspec.ValidationError as error:
        raise ModelError(f"--model {name}: {folder / 'fastgen.json'}: {error}") from None
    channels = configs["vae"].get("block_out_channels")
    if not isinstance(channels, list) or not channels:
        raise ModelError(f"--model {name}: vae/config.json names no block_out_channels. Download the model again")
    vae_scale = 2 ** (len(channels) - 1)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".md")  # a text file changes no image
    stamps = "".join(f"{p.relative_to(folder)}:{ends(p)};" for p in files)
    return ModelCard(
        name,
        str(folder),
        PIPELINES[pipeline],
        hashlib.sha256(stamps.encode()).hexdigest()[:16],
        defaults,
        2 * vae_scale,
        synthetic,
    )


def _usual(pipeline: str, transformer: dict) -> Defaults:
    """The defaults of a published FLUX.1 model, by its pipeline and its transformer's config."""
    # FLUX.1-schnell is the one without a guidance embedding; 4 steps, text of 256: its model card.
    if not transformer.get("guidance_embeds"):
        return Defaults(steps=4, guidance=0.0, max_sequence_length=256)
    if pipeline == "FluxKontextPipeline":
        return Defaults(guidance=2.5, edits=True, preferred_sizes=KONTEXT_SIZES)
    return Defaults()


def _check_weights(name: str, part: Path, read: Callable[[Path], dict]) -> None:
    for index in _WEIGHT_INDEXES:
        if (part / index).exists():
            wanted = sorted(set(read(part / index)["weight_map"].values()))
            break
    else:
        wanted = []
        if not any(f.suffix in (".safetensors", ".bin") for f in part.iterdir()):
            raise ModelError(f"--model {name}: no weights in {part}. Download the model again")
    for file in wanted:
        if not (part / file).exists():
            raise ModelError(f"--model {name}: {part / file} is missing. Download the model again")


def _not_here(name: str, task: Task) -> ModelCard:
    """Stands in for a model that only a plan needs: with the defaults of FLUX.1, and no folder."""
    kontext, schnell = "kontext" in name.lower(), "schnell" in name.lower()
    pipeline = "FluxKontextPipeline" if kontext or (task == "edit" and not schnell) else "FluxPipeline"
    return ModelCard(name, "", "flux", "not here", _usual(pipeline, {"guidance_embeds": not schnell}))


def _is_whole(folder: Path) -> bool:
    """Whether a download of an earlier time was finished."""
    try:
        read_card(folder.name, folder)
    except ModelError:
        return False
    return True


def _from_hub(name: str) -> Path | None:
    """The folder of a model in the hub's cache, after its download. None if it is not there and no download is wanted
    (`downloads.none`)."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    mend = "give a local folder, a hub id (owner/name), 'tiny' or 'auto'"
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"--model {name[:200]}: no such folder; {mend}")
    # Only the diffusers layout: FLUX.1 repositories also carry the same weights as one 24 GB file.
    patterns = ["model_index.json", "fastgen.json", *(f"{part}/*" for part in MODULES)]
    try:
        with suppress(LocalEntryNotFoundError):
            folder = Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
            if _is_whole(folder):
                return folder
        if not downloads.wanted():
            return None
        downloads.announce(name, patterns)
        return Path(snapshot_download(name, allow_patterns=patterns))
    except HFValidationError:
        raise ModelError(f"--model {name}: no such folder and not a hub id; {mend}") from None
    except GatedRepoError:
        raise ModelError(
            f"--model {name}: accept its licence first: open https://huggingface.co/{name}, accept the licence, then "
            "run 'hf auth login' with the same account (or set HF_TOKEN)"
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"--model {name}: the hub does not know it, or it is private (then run 'hf auth login'); {mend}"
        ) from None
    except LocalEntryNotFoundError:
        raise ModelError(
            f"--model {name}: it is not in the local cache, and the hub cannot be reached. Copy the model to this "
            "machine and give its folder"
        ) from None
    except OSError as error:
        raise ModelError(f"--model {name}: download failed: {error}; {mend}") from None
