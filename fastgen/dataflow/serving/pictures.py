"""Inputs of picture servings -> rows, and finished pictures -> the places where pipelines look for them.

An input of text2image is a prompt, or {"text_prompt" or "prompt", "sample_id"}; of imageedit (image or images, prompt),
or {"idx", "image_path", "image", "input_image" or "images", "prompt"}; dicts may carry what `WORDS` and `PICTURES`
name.
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
WHAT = {"t2i": "pictures", "edit": "edits"}
WORDS = ("size", "quality", "background", "aspect_ratio", "resolution")
IMAGES = ("image_path", "image", "input_image", "images")
MASKS = ("mask", "mask_path")
VARIATION = "Make a variation of this picture."


class PictureServing(OurServing, LLMServingABC):
    """Args: key: of the service, "" for none; n: pictures an input; flags: of `fastgen.resolve`."""

    def __init__(
        self,
        image_io: ImageIO,
        task: str,
        *,
        key: str = "",
        n: int = 1,
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
        self._key, self._n = key, n
        self._flags = {"n": n, **flags}
        self.load_model()

    def load_model(self) -> None:
        """Check that a call could run; nothing is started before one. Raises SettingsError."""
        self._check(TASKS[self.image_gen_task], key=self._key, **self._flags)

    def generate_from_input(self, user_inputs: list[Any]) -> dict[str, list[str]]:
        """The paths of the pictures of each key; [] where an input failed."""
        found: dict[str, list[str]] = {}
        for input, answer in zip(user_inputs, self.answers(user_inputs), strict=True):
            found.setdefault(self._read(input)[0], []).extend(answer.value)
        return found

    generate_from_input_one_batch = generate_from_input

    def answers(self, user_inputs: list[Any], tell: Callable[[int, Answer], None] | None = None) -> list[Answer]:
        """An answer an input, in order; `tell` gets the number and answer of each as they come.

        Raises:
            FastgenError: the run cannot go on (what was told is safe), or the serving is strict and inputs failed.
        """
        keys, rows = map(list, zip(*map(self._read, user_inputs), strict=True)) if user_inputs else ([], [])
        before: Counter[str] = Counter()
        first = []
        for key in keys:
            self.image_io.path_of(key, 0)  # names are given in the order of the inputs, not in that of the answers
            first.append(before[key])
            before[key] += self._n
        found: list[Answer] = [Answer([])] * len(rows)

        def settle(place: int, answer: Answer) -> None:
            made = [self.image_io.place(keys[place], first[place] + i, path) for i, path in enumerate(answer.value)]
            found[place] = answer = Answer(made, answer.kind, answer.message)
            if tell:
                tell(place, answer)

        task, folder = TASKS[self.image_gen_task], Path(self.image_io.save_path)
        self._run(task, WHAT[task], rows, keys, settle, folder=folder, key=self._key, **self._flags)
        return found

    # Inputs

    def _read(self, input: Any) -> tuple[str, dict]:
        """(key, row) of an input; what is wrong with it is for fastgen to say."""
        if self.image_gen_task == "text2image":
            given = input if isinstance(input, dict) else {"prompt": input}
            prompt = given.get("text_prompt") or given.get("prompt")
            named = given.get("sample_id", given.get("idx"))
            return str(prompt if named is None else named), {"prompt": prompt, **_words(given)}
        if not isinstance(input, dict):
            image, prompt = input if isinstance(input, list | tuple) and len(input) == 2 else (None, input)
            input = {"image": image, "prompt": prompt}
        prompt = input.get("prompt") or input.get("text_prompt")
        turns = input.get("conversations") or []
        if input.get("use_variations") and not prompt:
            get_logger().warning("a variation is made by an edit that asks for one: the endpoint for it is gone")
            prompt = VARIATION
        images = next((input[name] for name in IMAGES if input.get(name)), [])
        images = [self._path(one) for one in (images if isinstance(images, list | tuple) else [images])]
        row = {
            "images": images,
            **({"conversations": turns} if len(turns) > 1 else {"prompt": prompt}),
            **_words(input),
        }
        if mask := next((input[name] for name in MASKS if input.get(name)), None):
            row["mask"] = self._path(mask)
        named = input.get("idx", input.get("sample_id"))
        return str(prompt if named is None else f"sample_{named}"), row

    def _path(self, image: Any) -> Any:
        """The absolute path of a picture; one that is in memory is kept beside the run folders."""
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


def _words(given: dict) -> dict:
    return {name: given[name] for name in WORDS if given.get(name) not in (None, "")}
