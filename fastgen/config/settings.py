"""What the user asked for, with all defaults filled in. `fastgen.resolve` makes it; everything else reads it.

Settings are composed of parts. Each part goes as a whole into the fingerprint of a run folder, into what an engine is
opened with, into both, or into neither. So the part in which a new field is put decides where it counts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from fastgen.config.backends import BackendSpec
from fastgen.config.fit.planner import Plan
from fastgen.config.hardware import Device
from fastgen.config.model_cards import ModelCard
from fastgen.config.optimizations import Optimizations
from fastgen.config.profile import Profile
from fastgen.config.prompts import MAX_PIXELS, PROMPT, SYSTEM
from fastgen.config.stamps import stamp
from fastgen.types import Task, warm

OUTPUT_KEYS = {"t2i": "images", "edit": "edited_images", "caption": "caption"}
PROMPT_FIELDS = ("prompt", "conversations", "conversation", "messages")
SYSTEM_FIELDS = ("system", "system_prompt")
IMAGE_FIELDS = ("images", "image")
PARAM_FIELDS = ("size", "width", "height", "steps", "guidance", "seed", "n")
LOCAL_FIELDS = ("negative_prompt", "true_cfg_scale", "lora")


Stamp = Callable[[Path], str]


def _without_new(part: msgspec.Struct, *names: str) -> dict[str, Any]:
    """The fields of a part, but not those that were added later and are not set: run folders made before lack them."""
    said = msgspec.structs.asdict(part)
    return {name: value for name, value in said.items() if value or name not in names}


class Rows(msgspec.Struct, frozen=True):
    """What applies to every row of the run."""

    output_key: str
    """The field for the result."""
    image_root: str
    """Where relative image paths start; "" if rows have no images."""
    seed: int
    """A row without a seed derives one from this and its id."""
    other_root: str = ""
    """Where a relative path starts that leads to nothing from `image_root`: INPUT is a table of a run, and this is
    where the rows of that run had their images."""
    prompt: str = ""
    """t2i, edit: for rows that have none."""
    prompt_key: str = ""
    """The user's column with the prompt; "" for the usual names. The same for the other keys."""
    image_key: str = ""
    mask_key: str = ""
    id_key: str = ""
    name: str = ""
    """Pattern of the names of image files, without their number; "" for the row's id."""
    extra_body: str = ""
    """More parameters for every request to a server in OpenAI's format, as a JSON object; "" for none."""
    strict: bool = False
    """Whether a field that is not read, and plainly should be, ends the run."""
    asks_text: bool = False
    """caption: whether `text` is the question of rows that have no other. It follows from the flags for prompts."""

    @property
    def output_is_input(self) -> bool:
        """Whether rows are made from what an earlier command wrote into the same field."""
        return self.output_key in (self.image_key, self.prompt_key)

    def fingerprint(self) -> dict[str, Any]:
        """What changes results. Fields that are newer than some run folders count only if they are set."""
        said = {"output_key": self.output_key, "image_root": self.image_root, "seed": self.seed}
        newer = ("prompt", "prompt_key", "image_key", "mask_key", "id_key", "extra_body")
        return said | {name: value for name in newer if (value := getattr(self, name))}


class Image(msgspec.Struct, frozen=True):
    """How images are made, for rows that do not say."""

    size: tuple[int, int] | None
    """(width, height) in pixels; None: an edit keeps its input's shape, an API decides."""
    steps: int
    guidance: float
    n: int
    """Images per prompt."""
    format: str
    """png, jpeg or webp."""
    options: dict[str, str]
    """The `backends.OPTIONS` that are set."""
    compression: str = ""
    """The quality of jpeg or webp, from 1 to 100, or "lossless"; "" for the usual one."""

    def fingerprint(self) -> dict[str, Any]:
        said = msgspec.structs.asdict(self)
        options = said.pop("options")
        if not said["compression"]:  # it is newer than some run folders
            del said["compression"]
        return said | {"size": "x".join(map(str, self.size)) if self.size else "by row"} | options


class Text(msgspec.Struct, frozen=True):
    """How texts are made, for rows that do not say."""

    prompt: str = PROMPT
    """For rows that have no text."""
    system: str = SYSTEM
    max_tokens: int = 512
    temperature: float = 0.0
    max_pixels: int = MAX_PIXELS
    schema: str = ""
    """A JSON schema as JSON text; "" for free text."""
    thinking: str = ""
    """on or off; "": off for a server of our own and for models that think unasked, else as the service has it."""

    def fingerprint(self) -> dict[str, Any]:
        return _without_new(self, "thinking")


class Engine(msgspec.Struct, frozen=True):
    """How the model is loaded on this machine."""

    dtype: str
    loras: tuple[tuple[str, float], ...]
    """(absolute path, scale) each; merged into the weights."""
    transformer: str
    """A file with the transformer's weights; "" for the model's own."""
    max_sequence_length: int
    """Prompt tokens that the model reads."""

    def fingerprint(self, told_by: Stamp | None = None) -> dict[str, Any]:
        told_by = told_by or stamp
        said = msgspec.structs.asdict(self)
        del said["loras"]

        def told(path: Path) -> str:
            beside = beside_lora(path)
            return f"({told_by(path)})" + (f", {beside.name} ({told_by(beside)})" if beside else "")

        return said | {
            "lora": [f"{path}:{scale} {told(Path(path))}" for path, scale in self.loras],
            "transformer": f"{self.transformer} ({told_by(Path(self.transformer))})" if self.transformer else "",
        }

    def stamps(self) -> list[str]:
        """Tells the files from others of the same names."""
        loras = [Path(path) for path, _ in self.loras]
        others = [beside_lora(path) for path in loras]
        files = ([Path(self.transformer)] if self.transformer else []) + loras + [other for other in others if other]
        return [stamp(path) for path in files]


PEFT_CONFIG = "adapter_config.json"
"""The file that PEFT writes beside an adapter."""


def beside_lora(path: Path) -> Path | None:
    """The file beside a LoRA that PEFT saved, which has its alphas; None if it has none."""
    config = path.with_name(PEFT_CONFIG)
    return config if path.name == "adapter_model.safetensors" and config.is_file() else None


class Placement(msgspec.Struct, frozen=True):
    """Where engines run, and the profile for this machine."""

    devices: tuple[Device, ...]
    profile: Profile
    place: str = "process"
    """The kind of worker: a name in `workers.registry.PLACES`."""
    address: str = ""
    """Of the Ray cluster; "" for the usual one."""
    least: int = 1
    """Workers without which a run on a cluster does not go on."""


class Endpoint(msgspec.Struct, frozen=True):
    """A service that is reached over HTTP."""

    base_url: str = ""
    """"": the vendor's own, or for vLLM a server of our own."""
    key_name: str = ""
    """The environment variable with the key; never the key itself."""
    max_inflight: int = 0
    """Maximum number of requests in flight."""
    rpm: int = 0
    """Maximum number of requests per minute; 0: no limit."""
    timeout_s: float = 0.0
    """Time limit for one request."""
    command: tuple[str, ...] = ()
    """The program that starts vLLM's server, without the server's arguments."""
    stream: bool = False
    """Whether chat answers are requested as a stream, since some gateways have nothing else."""
    more_urls: tuple[str, ...] = ()
    """Addresses of more servers with the same model, which share the rows."""
    batch_api: bool = False
    """Whether rows go to the service's Batch API; `max_inflight` is then a number of batches."""
    image_hosts: tuple[str, ...] = ()
    """Hosts from which images are fetched; "*": every public one."""


BATCH_ROWS = {"t2i": 128, "edit": 128, "caption": 4096}
"""Rows of one batch of a Batch API. An image in an answer may have 8 MB, and services have failed to give back
results of more than a gigabyte."""


class RunOptions(msgspec.Struct, frozen=True):
    """Which rows are run, where results go, and when to stop. None of it changes a result."""

    input: str
    """The file of rows, or a folder of images; "" if rows come from Python."""
    out: str
    """The run folder."""
    store: str = ""
    """The address in object storage where results go, as well as to the run folder; "": nowhere."""
    limit: int = 0
    """Number of input rows to run; 0: all."""
    only_rows: str = ""
    """The file that names the rows to run (--rows); "": all."""
    shard: tuple[int, int] | None = None
    """(number from 1, of how many): the part of the rows to run. `out` is then the folder of that part."""
    batch_size: int = 0
    """Samples that go through the model together; 0: the profile decides by size."""
    batch_rows: int = 0
    """Rows of one batch of a Batch API; 0: `BATCH_ROWS`."""
    fresh: bool = False
    retry_failed: bool = False
    fallback_on_refusal: bool = False
    asked: tuple[str, ...] = ()
    """Which of `seed`, `steps` and `guidance` flags set: a service is told only these."""
    accept_refusals: bool = False
    """Whether a text that looks like a refusal or an error is a result like any other."""
    pictures_repeat: bool | None = None
    """Whether rows name the same pictures again and again; None: not known. A server of our own caches by it."""
    pictures_per_row: int = 0
    """Pictures of the row that names most, as far as known. A server of our own takes that many."""
    table: str = "jsonl"
    """The format in which the table is also written."""
    webdataset: bool = False
    """Whether the results are also written as a WebDataset."""
    max_cost: float = 0.0
    """Maximum number of USD that this run folder may cost; 0: no limit."""
    notes: tuple[str, ...] = ()
    """Notes for the user before the run."""


class Settings(msgspec.Struct, frozen=True):
    """A run, resolved. Build it with `fastgen.resolve`.

    >>> import fastgen
    >>> settings = fastgen.resolve("t2i", out="run", model="tiny", gpus="cpu", size="128x128", steps=4)
    >>> isinstance(settings, fastgen.Settings), settings.task, [device.name for device in settings.placement.devices]
    (True, 't2i', ['cpu'])
    """

    task: Task
    backend: BackendSpec
    model: ModelCard
    rows: Rows
    image: Image
    text: Text
    engine: Engine
    optimizations: Optimizations
    """The choices of --quality and the flags for single optimizations."""
    placement: Placement
    endpoint: Endpoint
    run: RunOptions
    fallbacks: tuple[Settings, ...] = ()
    """Where a row goes next if this backend cannot do it, in this order; each differs only in the backend."""
    fit: Plan | None = None
    """How the model fits into the GPUs' memory; None where that is not planned. It decides `optimizations` and is
    itself part of no fingerprint."""

    @property
    def route(self) -> tuple[Settings, ...]:
        """The backends that a row may go to, in this order."""
        return (self, *self.fallbacks)

    def fingerprint(self, told_by: Stamp | None = None) -> dict[str, Any]:
        """The settings that change results: a run folder belongs to one such set. Fallbacks may change, because every
        row says who served it.

        Args:
            told_by: tells weight files from others of the same names; None: their whole content.

        Raises:
            OSError: such a file cannot be read.
        """
        said = {
            "task": self.task,
            "backend": self.backend.name,
            "model": self.model.name,
            "model_files": self.model.fingerprint,
        }
        if self.task == "caption":
            return said | self.text.fingerprint() | self.rows.fingerprint()
        optimized = self.optimizations.changes_pictures() if self.backend.optimizes else {}
        return said | self.image.fingerprint() | self.engine.fingerprint(told_by) | optimized | self.rows.fingerprint()

    def engine_key(self) -> tuple:
        """What an engine is opened with. If it is equal, an open engine can work for another run."""
        how = msgspec.structs.replace(self.optimizations, why={})
        return self.backend, self.model, self.engine, self.engine.stamps(), how, self.placement, self.endpoint

    @property
    def local_fields(self) -> tuple[str, ...]:
        """Fields of rows that only models on this machine read, if one may make the images."""
        is_local = self.task != "caption" and any(not link.backend.is_remote for link in self.route)
        return LOCAL_FIELDS if is_local else ()

    @property
    def durable(self) -> bool:
        """Whether the backend writes down what it asks for, so that a kill ends no request, and the next run gets its
        answer. Such a request may take a day."""
        return self.endpoint.batch_api

    def batch_for(self, pixels: int) -> int:
        """How many samples of that many pixels go through the model together, or to a service."""
        if self.durable:
            return self.run.batch_rows or BATCH_ROWS[self.task]
        if self.backend.is_remote:
            return 1
        return self.run.batch_size or self.placement.profile.batch_for(pixels)

    def under_way(self, device: Device) -> int:
        """How many such groups of samples an engine has under way at the same time: where the stages of a model are on
        several devices, one for each of them, and one that is between two."""
        return device.size + 1 if self.optimizations.shard.divides_weights else 1

    def samples_for(self, pixels: int) -> int:
        """How many samples of that many pixels an engine is given together."""
        return self.batch_for(pixels) * self.under_way(self.placement.devices[0])


warm(Settings)
