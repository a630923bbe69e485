"""Finds fields of rows that are clearly meant for fastgen but are not read: other programs' names, and typing mistakes.

Each is reported once per run, with its count and what is read instead. Columns that are the user's own are never
reported. Does not read rows itself, and fails none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection
from functools import lru_cache

from fastgen.config.backends import OPTIONS
from fastgen.config.settings import IMAGE_FIELDS, PARAM_FIELDS, PROMPT_FIELDS, SYSTEM_FIELDS, Settings
from fastgen.errors import SettingsError, quoted
from fastgen.input import masks
from fastgen.types import Task

SAID_AFTER = 1000
"""After this many rows the fields found so far are reported; a long run does not wait until its end."""
MOST_NAMES = 10_000
"""At most this many different field names are checked."""
_TEXT_FIELDS = ("max_tokens", "temperature", "seed")
_STEPS = ("num_inference_steps", "inference_steps", "sampling_steps", "num_steps", "n_steps")
_GUIDANCE = ("guidance_scale", "cfg_scale", "cfg", "distilled_guidance")
_COUNT = ("num_images_per_prompt", "images_per_prompt", "num_images", "n_images", "num_outputs", "batch_count")
_SEED = ("random_seed", "noise_seed", "manual_seed", "generator")
_SIZE = ("image_size", "img_size", "output_size")
_MASK = ("mask_file", "mask_url", "mask_img", "mask_filename", "inpainting_mask", "edit_mask", "msk")
_TOKENS = ("max_new_tokens", "max_output_tokens", "max_completion_tokens")
_QUESTION = ("question", "query", "instruction")
_AS_PROMPT = ("prompt", "question", "query", "instruction", "userprompt", "captionprompt", "textprompt", "questiontext")
_LORA = ("lora", "loras", "lora_path", "lora_scale", "lora_weights")
_STRENGTH = ("strength", "denoising_strength", "denoise_strength")
_PICTURE = {
    **dict.fromkeys(_STEPS, "steps"),
    **dict.fromkeys(_GUIDANCE, "guidance"),
    **dict.fromkeys(_COUNT, "n"),
    **dict.fromkeys(_SEED, "seed"),
    **dict.fromkeys(_SIZE, "size"),
}
_EDIT = {**_PICTURE, **dict.fromkeys(_MASK, "mask")}
_CAPTION = {
    **dict.fromkeys(_TOKENS, "max_tokens"),
    **dict.fromkeys(_QUESTION, "prompt"),
    **dict.fromkeys(_SEED, "seed"),
}
_NO_FIELD = {
    **dict.fromkeys(
        _LORA,
        "a LoRA is `lora` in a row, or --lora PATH:SCALE for the whole run; only models on this machine have them",
    ),
    **dict.fromkeys(_STRENGTH, "there is no strength: an edit follows its prompt, and `mask` says where"),
    **dict.fromkeys(("negative_prompt", "true_cfg_scale"), "there is no such field; say in the prompt what you want"),
    **dict.fromkeys(("scheduler", "sampler", "sampler_name"), "the model's own scheduler is used"),
    "max_sequence_length": "it applies to the whole run: --max-sequence-length",
}
"""Fields of image tasks that have no counterpart, and what to do instead."""
_ALT_TEXT = "`prompt` is; if it is what to ask, add --prompt-key text"
"""Of `text` in a row to caption that is not asked (see `Columns`). It is no error: often it is the alt text."""
_NO_TEXT_FIELD = {
    "text": _ALT_TEXT,
    **dict.fromkeys(("top_p", "top_k", "repetition_penalty", "num_beams"), "`temperature` is the only such field"),
}


def more_read(settings: Settings) -> tuple[str, ...]:
    """Fields that are read because of the backends on the route."""
    remote = any(link.backend.is_remote for link in settings.route)
    served = ("negative_prompt",) if remote and settings.task != "caption" else ()
    return (*settings.local_fields, *served)


class UnreadFields:
    """Args:
    say: called with each message, once per field.
    strict: whether such a field is an error instead.
    more: fields that are read too.
    """

    def __init__(self, task: Task, say: Callable[[str], None], strict: bool = False, more: Collection[str] = ()):
        self.notes: list[str] = []
        """All messages; complete after `end`."""
        self._say = say
        self._strict = strict
        caption = task == "caption"
        renamed = {"t2i": _PICTURE, "edit": _EDIT, "caption": _CAPTION}[task]
        no_field = _NO_TEXT_FIELD if caption else _NO_FIELD
        self._elsewhere = {_plain(name): meant for name, meant in (no_field | renamed).items()}
        self._read = {"id", "fastgen", *PROMPT_FIELDS, *more, *(_TEXT_FIELDS if caption else (*PARAM_FIELDS, *OPTIONS))}
        if task != "t2i":
            self._read |= set(IMAGE_FIELDS)
        if task == "edit":
            self._read |= {*masks.FIELDS, masks.CONVENTION, "keep_turns", "use_variations"}
        if caption:
            self._read |= {"text_only", *SYSTEM_FIELDS}
        self._plain = {_plain(name): name for name in sorted(self._read) if len(name) > 1}
        self._meant: dict[str, str] = {}
        """Name in a row -> what is read instead, a field or a sentence; "" if it is the user's own."""
        self._own: set[tuple[str, ...]] = set()
        """Names of the fields of rows in which nothing is meant for fastgen and not read."""
        self._rows = 0
        self._counts: Counter[str] = Counter()
        self._said: set[str] = set()
        self._told: list[str] = []

    def note(self, fields: dict, read: Collection[str] = ()) -> None:
        """Check the fields of the next row. `read`: those of them that are read although that is not their usual name.

        Raises:
            SettingsError: one is clearly meant and not read, and `strict` is set.
        """
        self._rows += 1
        if (names := tuple(fields)) not in self._own:
            self._check(fields, read)
            if len(self._own) < MOST_NAMES and all(n in self._read or self._meant.get(n) == "" for n in names):
                self._own.add(names)
        if self._rows == SAID_AFTER:
            self.notes[:] = [*self._told, *self._tell(f"the first {SAID_AFTER:,} rows")]

    def _check(self, fields: dict, read: Collection[str]) -> None:
        for name, value in fields.items():
            if name in self._read or value in (None, "", []) or name in read:
                continue
            meant = self._meant.get(name)
            if meant is None:
                meant = self._look_up(name) if len(self._meant) < MOST_NAMES else ""
                if len(self._meant) < MOST_NAMES:
                    self._meant[name] = meant
            is_alt_text = meant == _ALT_TEXT
            if is_alt_text and (
                not isinstance(value, str | list) or any(fields.get(n) for n in (*PROMPT_FIELDS, *_QUESTION))
            ):
                continue
            if meant and fields.get(meant) in (None, "", []):
                self._counts[name] += 1
                if self._strict and not is_alt_text:
                    instead = f"`{meant}` is" if meant in self._read else meant
                    raise SettingsError(
                        f"--strict: row {self._rows} has the field `{quoted(name)}`, which is not read; {instead}. "
                        "Rename or remove it, or leave --strict out"
                    )

    def say_read(self, message: str) -> None:
        """Report which column is read as which field."""
        self._told.append(message)
        self.notes[:] = [*self._told, *(note for note in self.notes if note not in self._told)]
        self._say(message)

    def end(self) -> None:
        """Report what is left, after the last row."""
        self.notes[:] = [*self._told, *self._tell(f"{self._rows:,} rows" if self._rows > 1 else "1 row")]

    def _tell(self, of: str) -> list[str]:
        messages = []
        for name, count in self._counts.items():
            meant = self._meant[name]
            instead = f"`{meant}` is" if meant in self._read else meant
            messages.append(f"the field `{name}`, in {count:,} of {of}, is not read; {instead}")
            if name not in self._said:
                self._said.add(name)
                self._say(messages[-1])
        return messages

    def _look_up(self, name: str) -> str:
        plain = _plain(name)  # of `Size`, `max-tokens`, `guidanceScale`
        if found := self._elsewhere.get(plain) or self._plain.get(plain):
            return found
        near = [field for plain_field, field in self._plain.items() if _is_slip(plain, plain_field)]
        return near[0] if len(near) == 1 else ""


def misnamed_prompt(fields: dict) -> str:
    """The text field of a row without prompt that plainly is meant as one and is not read; "" if there is none."""
    return next((n for n, v in fields.items() if isinstance(v, str) and v.strip() and _is_misnamed(n)), "")


def misnamed_turns(fields: dict) -> str:
    """The field of a row without prompt that plainly asks, in a form that is read only elsewhere: turns (Gemini's
    `contents`), or a `question` that is no text. "" if there is none."""
    return next((name for name, value in fields.items() if value and _asks(name, value)), "")


def _asks(name: str, value: object) -> bool:
    if isinstance(value, list) and all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value):
        return True
    return isinstance(value, list | dict) and _plain(name) in _QUESTION


@lru_cache(maxsize=1024)
def _is_misnamed(name: str) -> bool:
    plain = _plain(name)
    return plain in _AS_PROMPT or _is_slip(plain, "prompt")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def _is_slip(name: str, field: str) -> bool:
    """Whether a name is a field with one typing mistake. Other words that are close to a field (`weight`, `speed`,
    `side`) are the user's own columns."""
    if len(field) < 4 or not name or name[0] != field[0]:
        return False
    if name == f"{field}s" or f"{name}s" == field:
        return True
    at = next((i for i, (a, b) in enumerate(zip(name, field, strict=False)) if a != b), min(len(name), len(field)))
    if len(name) == len(field):
        swapped = name[at : at + 2] == field[at : at + 2][::-1] and name[at + 2 :] == field[at + 2 :]
        return swapped or (len(field) >= 6 and name[at + 1 :] == field[at + 1 :])
    if len(name) == len(field) - 1:
        return len(field) >= 5 and name[at:] == field[at + 1 :]
    # An extra letter is a typing mistake only if it repeats the one before it.
    return len(name) == len(field) + 1 and name[at + 1 :] == field[at:] and name[at] == name[at - 1]
