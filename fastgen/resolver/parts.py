"""Flags -> the parts of `Settings` that are the same for every backend of a run. Starts nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from pathlib import Path

from fastgen.config.backends import BackendSpec
from fastgen.config.checks import FORMATS, MAX_N, MAX_SEED, number, real
from fastgen.config.prompts import MAX_PIXELS, PROMPT
from fastgen.config.settings import IMAGE_FIELDS, OUTPUT_KEYS, PARAM_FIELDS, PROMPT_FIELDS, Rows, RunOptions, Text
from fastgen.errors import SettingsError, quoted
from fastgen.input import masks, paths, storage
from fastgen.input.columns import asks_text
from fastgen.input.picked import picked_ids
from fastgen.input.readers.rows import is_on_hub, is_stored
from fastgen.output import names, shards
from fastgen.output.mirror import place
from fastgen.output.writers import table_formats
from fastgen.providers.addresses import has_key
from fastgen.providers.endpoints import keys_here
from fastgen.resolver.flags import Flags, called

DEFAULT = {"steps": None, "guidance": None, "seed": 0}
"""Values of flags that are not given."""
_OURS = {
    "model",
    "messages",
    "prompt",
    "image",
    "mask",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "seed",
    "n",
    "size",
}
"""Parameters that come from rows and flags, so that they are in the record of each row."""


def run_options(flags: Flags) -> RunOptions:
    """Raises SettingsError."""
    has_prompt = flags.task != "caption" and flags.prompt != PROMPT
    out = Path(flags.out if flags.out is not None else Path("fastgen-runs") / flags.task)
    paths.refuse_other_store("-o", out)
    out, store = _places(flags, out)
    if not 0 <= flags.max_cost < 1e9:
        raise SettingsError(f"--max-cost {flags.max_cost}: must be an amount in USD; 0 means no limit")
    input, out, shard = paths.rows_input(flags.input, flags.task, has_prompt), out.expanduser().absolute(), None
    if flags.shard:
        shard = _shard(flags.shard)
        if not input or str(flags.input) == "-":
            raise SettingsError("--shard: every part reads INPUT, so it must be a file; give one")
        out = shards.folder(out, *shard)
    if flags.only_rows is not None and storage.is_address(flags.only_rows):
        raise SettingsError(f"--rows {storage.address(flags.only_rows)}: must be on a disk; copy it, and give the copy")
    only_rows = str(Path(flags.only_rows).expanduser().absolute()) if flags.only_rows is not None else ""
    picked_ids(only_rows, flags.output_key or OUTPUT_KEYS[flags.task], flags.id_key)  # refuses what names no rows
    return RunOptions(
        input=input,
        out=str(out),
        store=store,
        only_rows=only_rows,
        shard=shard,
        limit=0 if flags.limit is None else number("--limit", flags.limit, 1, 2**62),
        batch_size=_batch_size(flags.batch_size),
        fresh=flags.fresh,
        retry_failed=flags.retry_failed,
        fallback_on_refusal=flags.fallback_on_refusal,
        table=table_formats.check("--table", flags.table),
        webdataset=flags.webdataset,
        accept_refusals=flags.accept_refusals,
        asked=tuple(
            name for name in ("steps", "guidance", "seed") if getattr(flags, name) not in (None, DEFAULT[name])
        ),
        max_cost=float(flags.max_cost),
        batch_rows=flags.batch_rows or 0,
    )


def _places(flags: Flags, out: Path) -> tuple[Path, str]:
    """The run folder, and the address in object storage where results go, "" for none. Raises SettingsError."""
    if not storage.is_address(out):
        if flags.state is not None:
            raise SettingsError(f"--state {flags.state}: only with -o s3://... and the like; leave it out")
        return out, ""
    store = paths.stored_address("-o", out)
    place.refuse(store)
    for name, given in (("shard", flags.shard), ("batch_api", flags.batch_api), ("webdataset", flags.webdataset)):
        if given:
            raise SettingsError(f"{called(name)}: needs a run folder on a disk, not -o {store}; give a folder with -o")
    return Path(flags.state) if flags.state is not None else place.state_folder(store), store


def _shard(given: str) -> tuple[int, int]:
    """--shard I/N, or "slurm" for the environment of an array job. Raises SettingsError."""
    if given.strip().lower() == "slurm":
        return _slurm_task()
    number_of, slash, count_of = given.partition("/")
    if not slash or not all(text.strip().isascii() and text.strip().isdigit() for text in (number_of, count_of)):
        raise SettingsError(f"--shard {given}: write I/N, such as 2/8 for the second of eight parts, or slurm")
    number, count = int(number_of), int(count_of)
    if not 1 <= number <= count <= 100_000:
        raise SettingsError(f"--shard {given}: the parts are numbered from 1 to N, and N is at most 100000")
    return number, count


def _slurm_task() -> tuple[int, int]:
    """The part of this task. Its array is a range, of any first number and step. Raises SettingsError."""
    said = [os.environ.get(f"SLURM_ARRAY_TASK_{name}", "") for name in ("ID", "COUNT", "MIN", "STEP", "MAX")]
    said[2:] = [text or default for text, default in zip(said[2:], ("1", "1", said[0]), strict=True)]  # Slurm sets all
    if not all(text.isascii() and text.isdigit() for text in said):
        raise SettingsError("--shard slurm: this is no array job of Slurm (sbatch --array); give I/N instead")
    id, count, first, step, last = map(int, said)
    number, between = divmod(id - first, max(1, step))
    if between or not 0 <= number < count or (last - first) // max(1, step) >= count:
        raise SettingsError(
            f"--shard slurm: task {id} is none of the {count} from {first} on; the array must be a range, such as "
            f"sbatch --array=1-{count}; or give --shard I/N"
        )
    return number + 1, count


def rows(flags: Flags, input: str) -> tuple[Rows, list[str]]:
    """The part, and notes for the user. `input`: from the run's options. Raises SettingsError."""
    task = flags.task
    key = flags.output_key if flags.output_key is not None else OUTPUT_KEYS[task]
    taken = {
        "id",
        "fastgen",
        *masks.FIELDS,
        masks.CONVENTION,
        *PROMPT_FIELDS,
        *PARAM_FIELDS,
        *(IMAGE_FIELDS if task != "t2i" else ()),
    }
    if not key.strip() or not key.isprintable():
        raise SettingsError(f"--output-key {key!r}: is not the name of a field; give one such as {OUTPUT_KEYS[task]}")
    if key in taken:
        raise SettingsError(f"--output-key {key!r}: fastgen itself reads or writes that field; choose another name")
    for name in ("image_key", "mask_key"):
        if task == "t2i" and getattr(flags, name):
            raise SettingsError(f"{called(name)} {getattr(flags, name)}: t2i reads no images; leave it out")
    file = Path(input) if input and not (is_on_hub(input) or is_stored(input)) else None
    root: Path | str
    notes: list[str] = []
    if not (root := paths.stored_image_root(flags.image_root, input)):
        root, notes = paths.image_root(flags.image_root, file, task)
    other = "" if task == "t2i" or flags.image_root is not None else paths.of_earlier_run(file)
    return Rows(
        output_key=key,
        image_root=str(root) if task != "t2i" else "",
        seed=number("--seed", flags.seed, 0, MAX_SEED),
        other_root="" if other == str(root) else other,
        prompt="" if task == "caption" or flags.prompt == PROMPT else flags.prompt,
        prompt_key=flags.prompt_key,
        image_key=flags.image_key,
        mask_key=flags.mask_key,
        id_key=flags.id_key,
        name=names.check_pattern(flags.name),
        extra_body=extra_body(flags),
        strict=flags.strict,
        asks_text=asks_text(task, flags.prompt, flags.prompt_key),
    ), notes


def text(flags: Flags, profile_pixels: int) -> Text:
    """`profile_pixels`: the size to which the profile scales images down, 0 if it does not say. Raises
    SettingsError."""
    pixels = flags.max_pixels
    return Text(
        flags.prompt,
        flags.system,
        number("--max-tokens", flags.max_tokens, 1, 1_000_000),
        real("--temperature", flags.temperature),
        (profile_pixels or MAX_PIXELS) if pixels is None else number("--max-pixels", pixels, 1024, 2**40),
        paths.schema(flags.schema),
        thinking(flags),
    )


def thinking(flags: Flags) -> str:
    """Raises SettingsError."""
    if flags.thinking not in ("", "on", "off"):
        raise SettingsError(f"--thinking {flags.thinking}: one of on, off; leave it out for the default")
    return flags.thinking


def extra_body(flags: Flags) -> str:
    """The JSON object of --extra-body as JSON text, "" for none. Raises SettingsError."""
    given = flags.extra_body
    if given is None:
        return ""
    try:
        value = given if isinstance(given, dict) else json.loads(given)
        text = json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SettingsError(
            f'--extra-body {quoted(given)}: not JSON: {error}; write an object such as {{"top_k": 20}}'
        ) from None
    if not isinstance(value, dict):
        raise SettingsError(f'--extra-body {quoted(given)}: must be a JSON object such as {{"top_k": 20}}')
    if ours := sorted(_OURS & value.keys()):
        raise SettingsError(f"--extra-body: {ours[0]} is what fastgen itself sends; use its flag or its field instead")
    if has_key(text, keys_here()):
        raise SettingsError(
            "--extra-body: contains a key, which would end up in run.json; set the key in the environment instead"
        )
    return text if value else ""


def image_hosts(flags: Flags) -> tuple[str, ...]:
    """The hosts of --allow-image-hosts. Raises SettingsError."""
    hosts = tuple(host for part in flags.allow_image_hosts.split(",") if (host := part.strip().lower()))
    for host in hosts:
        if host != "*" and not re.fullmatch(r"(\*\.)?[\w-]+(\.[\w-]+)*(:\d+)?", host):
            raise SettingsError(f"--allow-image-hosts {host}: write hosts such as cdn.example.com,*.example.net, or *")
    return hosts


def picture_format(flags: Flags) -> tuple[str, str]:
    """--format as (format, quality): jpeg:90 is ("jpeg", "90"). Raises SettingsError."""
    format, _, quality = flags.format.lower().partition(":")
    format = {"jpg": "jpeg"}.get(format, format)
    if format not in FORMATS:
        raise SettingsError(f"--format {format}: one of {', '.join(FORMATS)}")
    if not quality:
        return format, ""
    if format == "png" or not (quality == "lossless" or (quality.isascii() and quality.isdigit())):
        raise SettingsError(f"--format {flags.format}: a quality is jpeg:90, webp:90 or webp:lossless")
    if quality == "lossless" and format != "webp":
        raise SettingsError(f"--format {flags.format}: only webp is lossless; so is png")
    return format, quality if quality == "lossless" else str(
        number(f"--format {format}: the quality", int(quality), 1, 100)
    )


def copies(flags: Flags) -> int:
    """Images per prompt. Raises SettingsError."""
    return number("--n", flags.n, 1, MAX_N)


def _batch_size(given: int | str) -> int:
    if str(given) == "auto":
        return 0
    if not (str(given).isascii() and str(given).isdigit()):
        raise SettingsError(f"--batch-size {given}: must be a whole number from 1 to 1024, or auto")
    return number("--batch-size", int(given), 1, 1024)


MOST_BATCH_ROWS = 50_000
"""Requests in one batch of OpenAI's Batch API."""


def check_batch_api(flags: Flags, specs: Collection[BackendSpec]) -> None:
    """Raise SettingsError if --batch-api and its flags cannot be honoured."""
    if flags.batch_rows is not None:
        if not flags.batch_api:
            raise SettingsError(f"--batch-rows {flags.batch_rows}: only with --batch-api")
        number("--batch-rows", flags.batch_rows, 1, MOST_BATCH_ROWS)
    if not flags.batch_api:
        return
    if not any(spec.service is not None and spec.service.batches for spec in specs):
        raise SettingsError("--batch-api: only for --backend openai and --backend gemini; leave it out")
    if len((flags.base_url or "").split()) > 1:
        raise SettingsError("--batch-api: for one --base-url; a batch cannot be shared by several servers")
    if flags.rpm:
        raise SettingsError("--rpm: a Batch API has no requests per minute; leave it out")
