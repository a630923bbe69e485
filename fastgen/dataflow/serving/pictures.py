"""Inputs of image servings -> rows, and finished images -> the paths where pipelines look for them.

An input of text2image is a prompt, or {"text_prompt" or "prompt", "sample_id"}; of imageedit (image or images, prompt),
or {"idx", "image_path", "image", "input_image" or "images", "prompt"}; dicts may have the fields in `WORDS` and
`PICTURES`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from fastgen.dataflow import get_logger
from fastgen.dataflow.calls import RUNS, Answer
from fastgen.dataflow.core import LLMServingABC
from fastgen.dataflow.io import ImageIO
from fastgen.dataflow.serving.ours import OurServing

TASKS = {"text2image": "t2i", "imageedit": "edit"}
WORDS = ("size", "quality", "background", "aspect_ratio", "resolution")
IMAGES = ("image_path", "image", "input_image", "images")
MASKS = ("mask", "mask_path")
CONVENTION = "openai"
"""What is transparent in a mask is edited, as DataFlow-MM sends masks; in one without transparency what is white."""
VARIATION = "Make a variation of this picture."


class PictureServing(OurServing, LLMServingABC):
    """Images from prompts, or edits.

    Args:
        key: of the service, "" for none.
        n: images per input.
        stream: ask chats for streams.
        keeps_turns: whether an edit with several turns gives the image of each turn.
        has_variations: whether the service has an endpoint for variations.
        flags: of `fastgen.resolve`.
    """

    def __init__(
        self,
        image_io: ImageIO,
        task: str,
        *,
        key: str = "",
        n: int = 1,
        stream: bool = False,
        keeps_turns: bool = False,
        has_variations: bool = False,
        strict: bool = False,
        progress: bool = True,
        **flags: Any,
    ):
        if task not in TASKS:
            raise ValueError(f"Image_gen_task {task!r}: one of {', '.join(TASKS)}")
        if image_io is None:
            raise ValueError("image_io is required: ImageIO(save_path=...)")
        super().__init__(strict, progress)
        self.image_io = image_io
        self.image_gen_task = task
        self._key, self._n, self._stream = key, n, stream
        self._keeps_turns, self._has_variations = keeps_turns, has_variations
        self._flags = {"n": n, **flags}
        self.load_model()

    def load_model(self) -> None:
        """Check that a call could run. Nothing is started before the first call. Raises SettingsError."""
        self._check(TASKS[self.image_gen_task], key=self._key, **self._flags)

    def generate_from_input(self, user_inputs: list[Any]) -> dict[str, list[str]]:
        """The paths of the images of each key; [] if an input failed."""
        found: dict[str, list[str]] = {}
        for input, answer in zip(user_inputs, self.answers(user_inputs), strict=True):
            found.setdefault(key_of(input, self.image_gen_task), []).extend(answer.value)
        return found

    generate_from_input_one_batch = generate_from_input

    def answers(self, user_inputs: list[Any], tell: Callable[[int, Answer], None] | None = None) -> list[Answer]:
        """One answer per input, in order; `tell` gets the number and answer of each as they come.

        Raises:
            FastgenError: the run cannot continue (what was reported is safe), or the serving is strict and inputs
                failed.
        """
        keys, rows = map(list, zip(*map(self._read, user_inputs), strict=True)) if user_inputs else ([], [])
        taken: Counter[str] = Counter()
        first = []
        count = [self._n * (len(row["conversations"]) if row.get("keep_turns") else 1) for row in rows]
        for key, most in zip(keys, count, strict=True):
            self.image_io.path_of(key, 0)  # names follow the order of the inputs, not of the answers
            first.append(taken[key])
            taken[key] += most
        found: list[Answer] = [Answer([])] * len(rows)

        def number(place: int, i: int) -> int:
            """The name of image i of an input; images beyond the requested ones come after all others of their key."""
            if i < count[place]:
                return first[place] + i
            taken[keys[place]] += 1
            return taken[keys[place]] - 1

        def settle(place: int, answer: Answer) -> None:
            made = [self.image_io.place(keys[place], number(place, i), path) for i, path in enumerate(answer.value)]
            found[place] = answer = Answer(made, answer.kind, answer.message)
            if tell:
                tell(place, answer)

        task, folder = TASKS[self.image_gen_task], Path(self.image_io.save_path)
        more = {"folder": folder, "key": self._key, "stream": self._stream, **self._flags}
        self._run(task, rows, keys, settle, **more)
        return found

    # Inputs

    def _read(self, input: Any) -> tuple[str, dict]:
        """(key, row) of an input; fastgen reports what is wrong with it."""
        key, given = _named(input, self.image_gen_task)
        prompt = given.get("prompt")
        if self.image_gen_task == "text2image":
            return key, {"prompt": prompt, **_words(given)}
        turns = given.get("conversations") or []
        varied = bool(given.get("use_variations"))
        if varied and not prompt:
            prompt = VARIATION
            if not self._has_variations:
                get_logger().warning(
                    "a variation is made by an edit that asks for one, because only dall-e-2 has variations"
                )
        named: Any = next((given[name] for name in IMAGES if given.get(name)), [])
        images = [self._path(one) for one in (named if isinstance(named, list | tuple) else [named])]
        row = {
            "images": images,
            **({"conversations": turns} if len(turns) > 1 else {"prompt": prompt}),
            **({"keep_turns": True} if len(turns) > 1 and self._keeps_turns else {}),
            **({"use_variations": True} if varied and self._has_variations else {}),
            **_words(given),
        }
        if mask := next((given[name] for name in MASKS if given.get(name)), None):
            row["mask"] = self._path(mask)
            row["mask_convention"] = given.get("mask_convention") or CONVENTION
        return key, row

    def _path(self, image: Any) -> Any:
        """The absolute path of an image; an image in memory is stored next to the run folders."""
        if isinstance(image, str | os.PathLike):
            return os.path.abspath(os.path.expanduser(os.fspath(image)))
        if not hasattr(image, "tobytes"):
            return image
        told = blake2b(f"{image.mode} {image.size}".encode() + image.tobytes(), digest_size=10).hexdigest()
        path = Path(self.image_io.save_path, RUNS, "inputs", f"{told}.png").absolute()
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(temporary := path.with_suffix(".tmp"), "PNG")
            os.replace(temporary, path)
        return str(path)


def key_of(input: Any, task: str) -> str:
    """The name of the images of an input ("text2image", "imageedit")."""
    return _named(input, task)[0]


def _named(input: Any, task: str) -> tuple[str, dict]:
    """(key, input as a dict with its `prompt`)."""
    if isinstance(input, dict):
        given = dict(input)
    elif task == "imageedit" and isinstance(input, list | tuple) and len(input) == 2:
        given = {"image": input[0], "prompt": input[1]}
    else:
        given = {"prompt": input}
    first, second = ("prompt", "text_prompt") if task == "imageedit" else ("text_prompt", "prompt")
    given["prompt"] = given.get(first) or given.get(second)
    if task == "text2image":
        named = given.get("sample_id", given.get("idx"))
        return str(given["prompt"] if named is None else named), given
    named = given.get("idx", given.get("sample_id"))
    return str(given["prompt"] if named is None else f"sample_{named}"), given


def _words(given: dict) -> dict:
    return {name: given[name] for name in WORDS if given.get(name) not in (None, "")}
