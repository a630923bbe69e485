"""Finds the folder of a model name, checks that it is complete, and reads its defaults. Loads nothing; imports no
torch.

`families.py` says what a folder of each family has, and what its defaults are.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from fastgen.config import downloads, stamps
from fastgen.config.backends import BackendSpec
from fastgen.config.families import PARTS, PIPELINES, REFUSED, Defaults, usual
from fastgen.config.short_names import AUTO, SHORT_NAMES
from fastgen.errors import ModelError
from fastgen.types import Task, warm

TINY = Path(__file__).parents[1] / "embedded" / "tiny-flux"
"""The embedded model."""
TINY_VLM = TINY.with_name("tiny-vlm")
"""The embedded captioner."""
AUTO_ON_GPU = {"t2i": "black-forest-labs/FLUX.1-dev", "edit": "black-forest-labs/FLUX.1-Kontext-dev"}
SCHEDULER = "FlowMatchEulerDiscreteScheduler"
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")
_WEIGHT_INDEXES = ("diffusion_pytorch_model.safetensors.index.json", "model.safetensors.index.json")


class ModelCard(msgspec.Struct, frozen=True):
    name: str
    path: str
    family: str
    fingerprint: str
    """Changes with the content of its files; see `stamps.of_folder`."""
    defaults: Defaults
    grid: int = 16
    """Sizes are multiples of this many pixels: VAE downsampling times the transformer's patch."""
    pipeline: str = ""
    """Its class in diffusers, by `model_index.json`."""
    synthetic: bool = False
    """The folder has no weights: the engine uses random ones, to measure speed (`fastgen bench --synthetic`)."""


warm(Defaults, ModelCard)


def locate(
    spec: BackendSpec, task: Task, model: str, on_gpu: bool, base_url: str | None, command: str | None
) -> tuple[ModelCard, None, list[str]]:
    """A model of the local engine: its card, no endpoint, and notes for the user. Raises ModelError."""
    card, notes = resolve_model(model, task)
    return card, None, notes


def locate_fake(
    spec: BackendSpec, task: Task, model: str, on_gpu: bool, base_url: str | None, command: str | None
) -> tuple[ModelCard, None, list[str]]:
    """Stands in for a model if there is none."""
    defaults = Defaults(steps=4, guidance=0.0, width=64, height=64, pixels=64 * 64, edits=True)
    (family,) = spec.engines
    return ModelCard(spec.name, "", family, spec.name, defaults), None, []


def resolve_model(name: str, task: Task) -> tuple[ModelCard, list[str]]:
    """The card for a hub id, a local folder, "tiny" or "auto", and notes for the user. "auto" is for a machine without
    a GPU; see `auto_on_gpu`.

    Raises:
        ModelError: unknown name, incomplete folder or unsupported family; the message says how to fix it.
    """
    notes = []
    if name == "auto":
        name = "tiny"
        notes.append(
            "no CUDA GPU here, so --model auto is 'tiny', the embedded model: it knows scenes of flat shapes such as "
            "'a red circle on a blue background', and nothing else (with a GPU it is "
            f"{' or '.join(short for _, short in AUTO[task])})"
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
    else:
        if known := SHORT_NAMES.get(name):
            notes.append(f"--model {name} is {known.hub_id}: {known.licence}; {known.weights_gib:.0f} GiB of weights")
            name = known.hub_id
        found = _from_hub(name)
        if found is None:
            return _not_here(name, task), [*notes, f"it would download {downloads.of(name)}"]
        folder = found
    card = read_card(name, folder)
    if card.synthetic:
        notes.append(f"--model {name} has random weights, to measure speed: its images are noise")
    if task == "edit" and not card.defaults.max_references:
        raise ModelError(
            f"--model {name}: makes images from text only; to edit, use a model such as {AUTO_ON_GPU['edit']}"
        )
    if task == "t2i" and not card.defaults.text_to_image:
        raise ModelError(
            f"--model {name}: edits images and makes none from text alone; for that, use a model such as "
            f"{AUTO_ON_GPU['t2i']}"
        )
    if task == "edit" and not card.defaults.edits:
        notes.append(f"--model {name} is a text-to-image model, not Kontext: its edits may ignore the input image")
    return card, notes


def auto_on_gpu(task: Task, least_gib: float) -> str:
    """What --model auto is on GPUs: the model of earlier versions if it is on this machine, since runs began with it;
    else by memory, among models that are free for any use.

    Args:
        least_gib: the memory of the smallest GPU of the run.
    """
    if is_cached(AUTO_ON_GPU[task]):
        return AUTO_ON_GPU[task]
    return next(short for gib, short in AUTO[task] if least_gib >= gib)


def is_cached(name: str) -> bool:
    """Whether a model of the hub is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "model_index.json"), str)


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
                "a model folder in diffusers format has it. Download the model again or use another folder"
            ) from None
        except (ValueError, OSError, RecursionError) as error:
            raise ModelError(f"--model {name}: cannot read {path}: {error}. Download the model again") from None

    index = read(folder / "model_index.json")
    pipeline = _pipeline(name, index)
    parts = PARTS[PIPELINES[pipeline].family]
    configs = {part: read(folder / part / "config.json") for part in parts.modules}
    for part in parts.folders:
        if not (folder / part).is_dir() or not any((folder / part).iterdir()):
            raise ModelError(f"--model {name}: the folder {part}/ is missing in {folder}. Download the model again")
    scheduler = read(folder / "scheduler" / "scheduler_config.json").get("_class_name", SCHEDULER)
    if scheduler != SCHEDULER:
        raise ModelError(f"--model {name}: its scheduler is {scheduler}; this model is sampled with {SCHEDULER}")
    own = read(folder / "fastgen.json") if (folder / "fastgen.json").exists() else {}
    synthetic = own.pop("synthetic", False) is True
    for part in () if synthetic else parts.modules:
        _check_weights(name, folder / part, read)
    for part in parts.tokenizers:
        read(folder / part / "tokenizer_config.json")
        if not any((folder / part / file).exists() for file in _VOCABULARIES):
            raise ModelError(
                f"--model {name}: no vocabulary in {folder / part} ({' or '.join(_VOCABULARIES)}). Download the "
                "model again"
            )
    try:
        defaults = msgspec.convert(
            {**msgspec.to_builtins(usual(pipeline, configs["transformer"], index)), **own}, Defaults
        )
    except msgspec.ValidationError as error:
        raise ModelError(f"--model {name}: {folder / 'fastgen.json'}: {error}") from None
    _check_channels(name, configs["vae"])
    grid = _grid(configs["vae"])
    if not grid:
        raise ModelError(f"--model {name}: vae/config.json names no block_out_channels. Download the model again")
    return ModelCard(
        name,
        str(folder),
        PIPELINES[pipeline].family,
        stamps.of_folder(folder, stamps.ends if synthetic else None),  # random weights need not be read
        defaults,
        grid,
        pipeline,
        synthetic,
    )


def _grid(vae: dict) -> int:
    """Pixels of a token's side: what the VAE shrinks, times the transformer's patch of 2; 0 if the config does not
    say."""
    channels, halved = vae.get("block_out_channels"), vae.get("temperal_downsample")
    if isinstance(halved, list):  # Qwen-Image's VAE, for videos
        return 2 * 2 ** len(halved)
    return 2 * 2 ** (len(channels) - 1) if isinstance(channels, list) and channels else 0


def _pipeline(name: str, index: dict) -> str:
    found = index.get("_class_name")
    if found in PIPELINES:
        return str(found)
    why = f", {REFUSED[str(found)]}" if found in REFUSED else ""
    raise ModelError(f"--model {name}: its pipeline is {found}{why}; supported are {', '.join(PIPELINES)}")


def _check_channels(name: str, vae: dict) -> None:
    channels = vae.get("input_channels", vae.get("out_channels", 3))  # the first is Qwen-Image's
    if channels != 3:
        raise ModelError(
            f"--model {name}: its VAE has {channels} channels, such as those of images with an alpha channel; fastgen "
            "makes RGB images. Use a model whose VAE has 3"
        )


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
    """Stands in for a model that only a plan needs: with the defaults of its family, and no folder. A model that is not
    known here counts as FLUX.1."""
    known = next((known for known in SHORT_NAMES.values() if known.hub_id == name), None)
    kontext, schnell = "kontext" in name.lower(), "schnell" in name.lower()
    pipeline = "FluxKontextPipeline" if kontext or (task == "edit" and not schnell) else "FluxPipeline"
    pipeline = known.pipeline if known else pipeline
    defaults = usual(pipeline, {"guidance_embeds": not schnell}, {"is_distilled": True})
    return ModelCard(name, "", PIPELINES[pipeline].family, "not here", defaults)


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

    mend = f"give a local folder, a hub id (owner/name), 'tiny', 'auto', or one of {', '.join(SHORT_NAMES)}"
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"--model {name[:200]}: no such folder; {mend}")
    # Only the diffusers layout: FLUX.1 repositories also carry the same weights as one 24 GB file.
    folders = dict.fromkeys(folder for parts in PARTS.values() for folder in parts.folders)
    patterns = ["model_index.json", "fastgen.json", *(f"{folder}/*" for folder in folders)]
    try:
        with suppress(LocalEntryNotFoundError):
            folder = Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
            if _is_whole(folder):
                return folder
        if not downloads.wanted():
            return None
        downloads.check()
        downloads.announce(name, patterns)
        return Path(snapshot_download(name, allow_patterns=patterns))
    except HFValidationError:
        raise ModelError(f"--model {name}: no such folder and not a hub id; {mend}") from None
    except GatedRepoError:
        then = (
            "the token of this machine belongs to an account that has not accepted it, or may not read gated models"
            if downloads.has_token()
            else "then run 'hf auth login' with the same account (or set HF_TOKEN); there is no token on this machine"
        )
        raise ModelError(
            f"--model {name}: accept its licence first: open {downloads.page(name)} and accept the licence; {then}"
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
