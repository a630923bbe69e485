"""Requests of one bucket -> their images, as work for the engine's threads: prompts, references, noise, steps, pixels.
Does not know the architecture, threads or files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Hashable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from fastgen.backends.diffusion.clock import Clock
from fastgen.backends.diffusion.decode import Decoded, decode, to_uint8
from fastgen.backends.diffusion.family import Family, Sample, Small
from fastgen.backends.diffusion.files import Inputs
from fastgen.backends.diffusion.memory import Room
from fastgen.backends.diffusion.prompts import PromptEncoder
from fastgen.backends.diffusion.step_engine import StepEngine
from fastgen.backends.diffusion.threads import Work
from fastgen.backends.diffusion.transfer import upload
from fastgen.config.device_errors import is_out_of_memory
from fastgen.input.images import scaled
from fastgen.types import Bucket, Request

if TYPE_CHECKING:
    from fastgen.backends.diffusion.ranks.lead import Lead

log = logging.getLogger(__name__)
Size = tuple[int, int]


class ImageJob:
    """One image of a request in progress; for an edit its current state, turn by turn."""

    def __init__(self, request: Request, number: int, prompt: str):
        self.request = request
        self.number = number
        """Which copy (edit) or which image (t2i) of its request."""
        self.prompt = prompt
        self.picture: Image.Image | None = None
        """At the saved size."""
        self.profile = b""
        """The colour profile with which `picture` is saved; b"" for sRGB."""
        self.patterns: list[str] = []
        """With a step cache: which steps were computed in full, one pattern per turn."""
        self.small: Small | None = None
        """Its first steps, if they were taken at a smaller size."""
        self.is_finite = True
        """Whether the latents and pixels of every turn were finite numbers."""


Made = dict[str, list[ImageJob]]
"""Id of a request -> its images."""
Prompts = dict[tuple[str, Hashable], Any]
"""(text, the images it was encoded with: `_origin`, or None) -> the family's `Prompt`."""


class Rendering:
    """The images of a batch, turn by turn.

    Args:
        requests: of one bucket.
        inputs: the images that edits start from, by id.
        clock: gets the seconds by stage.
    """

    def __init__(self, renderer: Renderer, requests: list[Request], inputs: dict[str, Inputs], clock: Clock):
        self._family, self._steps, self._renderer = renderer.family, renderer.steps, renderer
        self._bucket, self._inputs, self._clock = Bucket.of(requests[0]), inputs, clock
        self._size = (self._bucket.width, self._bucket.height)
        self._contrasts = {request.id: _contrast(self._family, request) for request in requests}
        negative = [found[0] for found in self._contrasts.values() if found is not None]
        texts = [prompt for request in requests for prompt in request.prompts]
        self._texts = list(dict.fromkeys([*texts, *negative]))
        self._sees = bool(self._family.modules.parts.processor)
        """Whether prompts are encoded with the images that a turn starts from, so anew in each turn."""
        self._jobs: Made = {}
        for request in requests:
            n = request.image_params.n
            own = [request.prompts[j // n if request.task == "t2i" else 0] for j in range(request.samples)]
            self._jobs[request.id] = [ImageJob(request, j, prompt) for j, prompt in enumerate(own)]

    def work(self) -> Work:
        """Stages for the engine's threads. Returns a function for another thread, which waits for the images and
        returns them and the number of tokens of each prompt."""
        tokens: dict[str, int] = {}
        for turn in range(self._bucket.turns):
            if turn == 0 or self._sees:
                yield self._family.text_parts
                with self._clock.device("encode"):
                    prompts = self._encoded(turn)
                tokens |= {text: prompt.tokens for (text, _), prompt in prompts.items()}
            decoded = yield from self._turn(turn, prompts)
            if turn < self._bucket.turns - 1:
                self._finish(decoded, turn)

        def wait() -> tuple[Made, dict[str, int]]:
            self._finish(decoded, self._bucket.turns - 1)
            return self._jobs, tokens

        return wait

    def _encoded(self, turn: int) -> Prompts:
        """The prompts of this turn, or of all of them if they are encoded without images."""
        if not self._sees:
            found = self._renderer.prompts.encode(self._texts)
            return dict(zip([(text, None) for text in self._texts], found, strict=True))
        wanted: dict[tuple[str, Hashable], tuple[Image.Image, ...]] = {}
        for job in self._everyone:
            negative = self._contrasts[job.request.id]
            for text in (job.request.prompts[turn], *([negative[0]] if negative else [])):
                if (key := (text, _origin(job, turn))) not in wanted:
                    wanted[key] = self._conditions(job, turn)
        found = self._renderer.prompts.encode_seen([(text, seen) for (text, _), seen in wanted.items()])
        return dict(zip(wanted, found, strict=True))

    def _conditions(self, job: ImageJob, turn: int) -> tuple[Image.Image, ...]:
        """What the text encoder reads with the prompt of this turn."""
        if turn == 0 or job.picture is None:
            return self._inputs[job.request.id].conditions
        return (scaled(job.picture, self._family.condition_size(job.picture.size)),)

    @property
    def _everyone(self) -> list[ImageJob]:
        return [job for jobs in self._jobs.values() for job in jobs]

    def _turn(self, turn: int, prompts: Prompts) -> Generator[Any, None, list[Decoded]]:
        """Apply one user turn to all jobs."""
        clock, jobs = self._clock, self._everyone
        with clock.host("noise"):
            samples = [self._sample(job, turn, prompts) for job in jobs]
        if self._bucket.task == "edit":
            yield ("vae",)
            with clock.device("reference"):
                self._add_references(jobs, samples, turn)
        steps = self._steps.submit_all(samples, clock)
        yield steps
        for step in steps:
            step.result()
        yield ("vae",)
        with clock.device("decode"):
            decoded = self._renderer.decode(samples, to_uint8)
        for job, sample in zip(jobs, samples, strict=True):
            job.patterns += [sample.pattern] if sample.pattern else []
            job.small = sample.begun.small if sample.begun is not None else None
        return decoded

    def _sample(self, job: ImageJob, turn: int, prompts: Prompts) -> Sample:
        if self._bucket.task == "edit":
            job.prompt = job.request.prompts[turn]
        params = job.request.image_params
        noise = self._family.noise(params.seed + turn * params.n + job.number, *self._size)
        origin = _origin(job, turn) if self._sees else None
        sample = Sample(prompts[job.prompt, origin], *self._size, params.steps, params.guidance, noise)
        if found := self._contrasts[job.request.id]:
            sample.negative, sample.cfg = prompts[found[0], origin], found[1]
        return sample

    def _finish(self, decoded: list[Decoded], turn: int) -> None:
        """Wait for the images of a turn: sets the jobs' `picture`."""
        arrays = [picture.wait() for picture in decoded]
        with self._clock.host("pixels"):
            for job, array in zip(self._everyone, arrays, strict=True):
                job.is_finite &= array is not None
                picture = Image.fromarray(np.asarray(array)) if array is not None else Image.new("RGB", self._size)
                given = self._inputs.get(job.request.id)
                if given is not None and given.mask is not None:
                    before = job.picture or given.base
                    picture = Image.composite(scaled(picture, before.size), before, given.mask)
                    if turn == self._bucket.turns - 1:
                        picture, job.profile = given.restore(picture), given.first.profile
                job.picture = picture

    def _add_references(self, jobs: list[ImageJob], samples: list[Sample], turn: int) -> None:
        """Encode the image that each job edits, and for masked edits the latents to keep."""
        sources: dict[tuple, Image.Image] = {}

        def key(job: ImageJob, purpose: str | int) -> tuple:
            return purpose, _origin(job, turn)

        def seen(job: ImageJob) -> list[Image.Image]:
            if turn == 0 or job.picture is None:
                return self._inputs[job.request.id].references
            return [scaled(job.picture, self._size)]

        for job in jobs:
            given = self._inputs[job.request.id]
            base = given.base if turn == 0 or job.picture is None else job.picture
            for number, picture in enumerate(seen(job)):
                sources.setdefault(key(job, number), picture)
            if given.mask is not None:
                sources.setdefault(key(job, "keep"), scaled(base, self._size))
        latents: dict[tuple, torch.Tensor] = {}
        for wanted in {picture.size for picture in sources.values()}:
            names = [name for name, picture in sources.items() if picture.size == wanted]
            arrays = [np.asarray(sources[name]) for name in names]
            latents.update(zip(names, self._family.encode_pictures(arrays), strict=True))
        for job, sample in zip(jobs, samples, strict=True):
            pictures = seen(job)
            own = [latents[key(job, number)] for number in range(len(pictures))]
            sample.reference = own[0] if len(own) == 1 else torch.cat(own)
            sample.reference_sizes = tuple(picture.size for picture in pictures)
            mask = self._inputs[job.request.id].mask
            if mask is not None:
                sample.keep = latents[key(job, "keep")]
                sample.repaint = upload(self._family.mask(mask, self._size), self._family.modules.device)


def _origin(job: ImageJob, turn: int) -> Hashable:
    """Equal for jobs that start this turn from the same images."""
    return (job.request.id,) if turn == 0 else (job.request.id, job.number)


def _contrast(family: Family, request: Request) -> tuple[str, float] | None:
    params = request.image_params
    return family.contrast(params.guidance, params.true_cfg_scale, params.negative_prompt)


class Renderer:
    """What all batches of an engine share.

    Args:
        lead: of the processes that compute each image together; None if this one is alone.
    """

    def __init__(self, family: Family, prompts: PromptEncoder, steps: StepEngine, room: Room, lead: Lead | None = None):
        self.family = family
        self.prompts = prompts
        self.steps = steps
        self._decoder = Decoder(family, room)
        self._lead = lead

    def render(self, requests: list[Request], inputs: dict[str, Inputs], clock: Clock) -> Work:
        """The images of requests of one bucket; see `Rendering`.

        Raises:
            OutOfMemory: not even one sample fits.
        """
        return Rendering(self, requests, inputs, clock).work()

    def pixels(self, samples: list[Sample]) -> list[Any]:
        """Denoise and decode samples of one size here and now. Returns images (3, H, W), float32, 0..1, on the device;
        None in the place of one that is not finite.

        Raises:
            OutOfMemory: not even one sample fits.
        """
        self.steps.run(sample for sample in samples if sample.latents is None)
        return [picture.wait() for picture in self.decode(samples, list)]

    def decode(self, samples: list[Sample], finish: Callable) -> list[Any]:
        """The images of samples of one size, which have `wait`. Those that leave the device may be decoded by other
        processes of the replica."""
        own = partial(self._decoder.decode, finish=finish)
        return self._lead.decode(samples, own) if self._lead is not None and finish is to_uint8 else own(samples)


class Decoder:
    """Decodes in this process."""

    def __init__(self, family: Family, room: Room):
        self._family = family
        self._room = room

    def decode(self, samples: list[Sample], finish: Callable) -> list[Decoded]:
        """The images of samples of one size, fewer at a time, then in tiles, if memory runs out."""
        first, vae = samples[0], self._family.modules.vae
        most = self._room.most(first)
        latents = [sample.latents for sample in samples if sample.latents is not None]
        while True:
            try:
                return decode(self._family, latents, first.width, first.height, most, finish)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if most == 1 and not vae.use_tiling:
                log.warning(
                    "the VAE ran out of memory at %dx%d: decoding in tiles from now on", first.width, first.height
                )
                vae.enable_tiling()
                self._room.empty_cache()
            else:
                most = self._room.shrink(first, most, "decoding")
