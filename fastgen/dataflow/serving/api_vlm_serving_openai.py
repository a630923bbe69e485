"""Texts about images from any server in OpenAI's chat format; with an `image_io` also images, from its images
endpoints.

Knows the address and key of the server, and how several images become one.
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

import fastgen
from fastgen.dataflow.calls import Answer
from fastgen.dataflow.io import ImageIO
from fastgen.dataflow.services import OPENAI, endpoint_of
from fastgen.dataflow.serving.api_image_gen_serving import APIImageGenServing
from fastgen.dataflow.serving.pictures import key_of
from fastgen.dataflow.serving.texts import TextServing

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_TOKENS = 2048
"""Includes the tokens that a model thinks; a server with a short context takes no more."""
CANVAS, MARGIN = 1024, 40


class APIVLMServing_openai(TextServing):
    """Captions, answers, descriptions.

    Args:
        key_name_of_api_key: the environment variable with the key.
        image_io: where pictures go, for a serving of `PromptedImageEditGenerator` or `PromptedImageGenerator`. They
            come from the images endpoints of the address, or out of its chats where it has none.
        send_request_stream: ask for answers as streams; some gateways have nothing else.
        max_workers: maximum number of requests in flight.
        timeout: seconds for one request.
        strict: raise an error if inputs failed, after all others are done.
        progress: show how far a call is, on stderr or in a notebook.
        flags: of `fastgen.resolve`, such as max_tokens, temperature or max_cost.

    Raises:
        EnvironmentError: the variable is not set.
    """

    parameters: ClassVar = {"model": "model_name", "base-url": "api_url", "max-inflight": "max_workers"}

    def __init__(
        self,
        api_url: str = "https://api.openai.com/v1",
        key_name_of_api_key: str = "DF_API_KEY",
        model_name: str = "o4-mini",
        image_io: ImageIO | None = None,
        send_request_stream: bool = False,
        max_workers: int = 10,
        timeout: int = 1800,
        *,
        strict: bool = False,
        progress: bool = True,
        **flags: Any,
    ):
        key = os.environ.get(key_name_of_api_key, "")
        if not key:
            raise OSError(f"the environment variable {key_name_of_api_key} is not set; set it to the API key")
        self.api_url, self.model_name, self.image_io, self.timeout = api_url, model_name, image_io, timeout
        super().__init__(
            key=key,
            folder=image_io.save_path if image_io else "",
            stream=send_request_stream,
            strict=strict,
            progress=progress,
            backend=OPENAI.name,
            model=model_name,
            base_url=endpoint_of(api_url, OPENAI),
            max_inflight=max_workers,
            timeout=timeout,
            **{"max_tokens": MAX_TOKENS, **flags},
        )

    def picture_answers(
        self,
        task: str,
        inputs: list[Any],
        tell: Callable[[int, Answer], None] | None = None,
        *,
        model: str | None = None,
        timeout: int | None = None,
    ) -> list[Answer]:
        """Images made at this address ("text2image", "imageedit"), like `APIImageGenServing.answers`."""
        if self.image_io is None:
            raise fastgen.SettingsError("to make images the serving needs an image_io: ImageIO(save_path=...)")
        made = APIImageGenServing(
            self.api_url,
            self.image_io,
            task,
            timeout=timeout or self.timeout,
            api_key=self._key,
            model_name=model or self.model_name,
            stream=self._stream,
            strict=self.strict,
            progress=self.progress,
            batch_size=self._flags["max_inflight"],
        )
        made._session = self._session
        try:
            return made.answers(inputs, tell)
        finally:
            self.failures = made.failures

    def generate_from_input(self, user_inputs: list[Any], *args: Any, **more: Any) -> Any:
        """A text for each input. With an `image_io`, inputs like those of `APIImageGenServing` are edits: returns the
        paths of the images of each key."""
        if self.image_io and user_inputs and all(isinstance(one, dict | tuple) for one in user_inputs):
            found: dict[str, list[str]] = {}
            answers = self.picture_answers("imageedit", user_inputs)
            for input, answer in zip(user_inputs, answers, strict=True):
                found.setdefault(key_of(input, "imageedit"), []).extend(answer.value)
            return found
        return super().generate_from_input(user_inputs, *args, **more)

    # One image, or several combined

    def chat_with_one_image(
        self, image_path: str | list[str], text_prompt: str, model: str | None = None, timeout: int = 1800
    ) -> str:
        """An answer about an image; several are sent as one sheet."""
        return self.generate_from_input_one_image([image_path], [text_prompt], model=model, timeout=timeout)[0]

    def chat_with_one_image_with_id(
        self,
        request_id: Any,
        image_path: str | list[str],
        text_prompt: str,
        model: str | None = None,
        timeout: int = 1800,
    ) -> tuple[Any, Any]:
        """The same with its id; with an `image_io`, the paths of the images in the answer instead of its text."""
        if self.image_io:
            return request_id, self._edited([image_path], [text_prompt], [request_id], model, timeout)[0]
        return request_id, self.chat_with_one_image(image_path, text_prompt, model, timeout)

    def generate_from_input_one_image(
        self,
        image_paths: list[Any],
        text_prompts: list[str],
        system_prompt: str = "",
        model: str | None = None,
        timeout: int = 1800,
    ) -> list[Any]:
        """An answer for each image and prompt; with an `image_io`, the paths of its images,
        `sample_{number}/sample_{number}_0.png`."""
        if len(image_paths) != len(text_prompts):
            raise ValueError("`image_paths` and `text_prompts` must have the same length")
        if self.image_io:
            prompts = [f"{system_prompt}\n{prompt}" if system_prompt else prompt for prompt in text_prompts]
            return self._edited(image_paths, prompts, list(range(len(prompts))), model, timeout)
        with TemporaryDirectory(prefix="fastgen-") as folder:
            paths = [self._sheet(one, Path(folder, f"{i}.png")) for i, one in enumerate(image_paths)]
            return self._ask(text_prompts, [[path] for path in paths], system_prompt, model, timeout)

    def combine_images_to_base64(self, image_paths: list[str], mode: str = "horizontal") -> str:
        """The images as one PNG, in base64: side by side, one below the other, or as a grid."""
        if mode not in ("horizontal", "vertical", "grid"):
            raise ValueError("mode must be 'horizontal', 'vertical' or 'grid'")
        buffer = io.BytesIO()
        _combine(ImageIO("").read(image_paths), image_paths, mode).save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()

    # Several images with labels

    def analyze_images_with_gpt(
        self,
        image_paths: list[str],
        image_labels: list[str],
        system_prompt: str = "",
        model: str | None = None,
        timeout: int = 1800,
    ) -> str:
        """An answer about images, each with a label before it."""
        return self.generate_from_input_multi_images([image_paths], [image_labels], system_prompt, model, timeout)[0]

    def analyze_images_with_gpt_with_id(
        self,
        image_paths: list[str],
        image_labels: list[str],
        request_id: Any,
        system_prompt: str = "",
        model: str | None = None,
        timeout: int = 1800,
    ) -> tuple[Any, str]:
        return request_id, self.analyze_images_with_gpt(image_paths, image_labels, system_prompt, model, timeout)

    def generate_from_input_multi_images(
        self,
        list_of_image_paths: list[list[str]],
        list_of_image_labels: list[list[str]],
        system_prompt: str = "",
        model: str | None = None,
        timeout: int = 1800,
    ) -> list[str]:
        """An answer for each list of images and labels."""
        lengths = [[len(one) for one in many] for many in (list_of_image_paths, list_of_image_labels)]
        if lengths[0] != lengths[1]:
            raise ValueError("there must be as many labels as images")
        prompts = ["\n".join(f"{label}\n<image>" for label in labels) for labels in list_of_image_labels]
        return self._ask(prompts, list_of_image_paths, system_prompt, model, timeout)

    def _ask(self, prompts: list[str], images: list, system_prompt: str, model: str | None, timeout: int) -> list[str]:
        flags: dict[str, Any] = {"timeout": timeout, **({"model": model} if model else {})}
        return [one.text for one in self.answers(prompts, images, system_prompt=system_prompt, **flags)]

    def _edited(
        self, images: list[Any], prompts: list[str], ids: list[Any], model: str | None, timeout: int
    ) -> list[list[str]]:
        with TemporaryDirectory(prefix="fastgen-") as folder:
            paths = [self._sheet(one, Path(folder, f"{i}.png")) for i, one in enumerate(images)]
            inputs = [
                {"idx": id, "image_path": path, "prompt": prompt}
                for id, path, prompt in zip(ids, paths, prompts, strict=True)
            ]
            return [one.paths for one in self.picture_answers("imageedit", inputs, model=model, timeout=timeout)]

    def _sheet(self, given: str | list[str], path: Path) -> str:
        """The path of an image; several are combined there. If one cannot be read, its path is returned, so that
        fastgen reports it."""
        paths = [given] if isinstance(given, str | os.PathLike) else list(given)
        if len(paths) == 1:
            return paths[0]
        images = ImageIO("").read(paths)
        if None in images:
            return paths[images.index(None)]
        _combine(images, paths, "grid").save(path)
        return str(path)


def _combine(images: list[Image | None], paths: list[str], mode: str) -> Image:
    """Half as large as their combination; the grid is on a white square."""
    from PIL import Image, ImageOps

    read = [image for image in images if image is not None]
    if not images or len(read) < len(images):
        raise fastgen.InputError(
            f"{paths[images.index(None)]} cannot be read" if images else "no images", "image_paths"
        )
    if mode == "grid":
        columns = math.ceil(math.sqrt(len(read)))
        rows = math.ceil(len(read) / columns)
        width, height = ((CANVAS - MARGIN * (count + 1)) // count for count in (columns, rows))
        sheet = Image.new("RGB", (CANVAS, CANVAS), "white")
        for position, image in enumerate(read):
            fitted = ImageOps.contain(image, (width, height))
            left = MARGIN + position % columns * (width + MARGIN) + (width - fitted.width) // 2
            top = MARGIN + position // columns * (height + MARGIN) + (height - fitted.height) // 2
            sheet.paste(fitted, (left, top))
    else:
        widths, heights = zip(*(image.size for image in read), strict=True)
        flat = mode == "horizontal"
        sheet = Image.new("RGB", (sum(widths), max(heights)) if flat else (max(widths), sum(heights)))
        at = 0
        for image in read:
            sheet.paste(image, (at, 0) if flat else (0, at))
            at += image.width if flat else image.height
    return sheet.resize((max(1, sheet.width // 2), max(1, sheet.height // 2)), Image.Resampling.LANCZOS)
