"""Diffusion models on one device: batch -> results. Knows no model; `family` does.

The arithmetic has its own threads (`_engine`): one on a GPU, several with a batch each on a CPU. On a GPU that thread
only enqueues. Input images are loaded, and finished ones waited for and saved, in the threads that call `run`, so this
overlaps with the arithmetic of other batches.
Does not know retries or other workers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from functools import partial

import numpy as np
import torch
from PIL import Image

from fastgen import opt
from fastgen.backends.diffusion.clock import Clock
from fastgen.backends.diffusion.decode import Decoded, decode, to_uint8
from fastgen.backends.diffusion.denoise import Denoiser
from fastgen.backends.diffusion.families import load
from fastgen.backends.diffusion.family import Prompt, Sample
from fastgen.backends.diffusion.files import Inputs, Saver
from fastgen.backends.diffusion.memory import advice
from fastgen.backends.diffusion.prompts import PromptEncoder
from fastgen.backends.diffusion.threads import EngineThreads, Work
from fastgen.backends.diffusion.transfer import upload
from fastgen.backends.registry import streams
from fastgen.config.device_errors import is_out_of_memory
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.errors import InputError, ModelError, SettingsError
from fastgen.input.images import scaled
from fastgen.opt.compile import graphs
from fastgen.types import Batch, Bucket, Done, Failed, Request, Result

log = logging.getLogger(__name__)
BROKEN = "weights are broken (--lora, --transformer or the files of --model)"
WHY_NOT_FINITE = {
    "float16": "float16 overflows with this model: use --dtype bfloat16 or float32",
    "bfloat16": f"{BROKEN}, or bfloat16 is too coarse: try --dtype float32",
    "float32": BROKEN,
}


ENGINE = ("encode", "noise", "reference", "denoise", "decode")
"""The stages that count as the engine's time."""


class OutOfMemory(Exception):
    """Not even one sample fits."""


def is_full(error: BaseException) -> bool:
    """Whether an error says that a memory is full, in our words or in those of a library."""
    return isinstance(error, OutOfMemory) or is_out_of_memory(error)


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
        self.is_finite = True
        """Whether the latents and pixels of every turn were finite numbers."""


class DiffusionBackend:
    def __init__(self, settings: Settings, device: Device):
        self.settings = settings
        self.device = device
        self._fits: dict[Bucket, int] = {}
        """For buckets in which a batch ran out of memory: how many samples fit together."""
        self._counting = threading.Lock()
        self._graphs = 0
        """Graphs compiled so far, with --compile. Those compiled after the warm-up are recompiles."""

    def open(self) -> dict:
        """Load the model. Returns the facts for run.json. Raises ModelError."""
        parallel = streams(self.device)
        threads = max(1, self.device.threads // parallel)
        torch.set_num_threads(threads)
        if self.device.kind == "cuda" and not torch.cuda.is_available():
            raise SettingsError(
                f"this PyTorch ({torch.__version__}) cannot use {self.device.name}: {_why_no_cuda()}. See what "
                "nvidia-smi says, or use --gpus cpu"
            )
        device = torch.device("cuda:0" if self.device.kind == "cuda" else "cpu")  # a worker sees only its own GPU
        started = time.monotonic()
        try:
            self.family = load(self.settings, device)
            self.modules = self.family.modules
            applied = opt.apply_all(self.modules, self.settings.optimizations)
            self.prompts = PromptEncoder(self.family)
            self.denoiser = Denoiser(self.family)
            self._engine = EngineThreads(parallel, partial(self._enter_thread, threads), bool(self.modules.away))
            self._saver = Saver(self.settings)
            self._begin(applied)
        except (OutOfMemory, RuntimeError, MemoryError) as error:
            if not is_full(error):
                raise
            raise ModelError(
                f"--model {self.settings.model.name} does not fit into the memory of {self.device.name}; "
                f"{self._advice(one_sample=False)}. The error: {error}"
            ) from error
        self._graphs = graphs() if self.settings.optimizations.compile.on else 0
        import diffusers
        import transformers

        return {
            "load_seconds": round(time.monotonic() - started, 2),
            "torch": str(torch.__version__),
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
            "dtype": self.settings.engine.dtype,
            "device": torch.cuda.get_device_name(0) if device.type == "cuda" else f"cpu, {self.device.threads} threads",
            "streams": parallel,
            "opt": applied,
            "notes": [note for cached in self.modules.quantized_cache.values() for note in cached.notes]
            + [facts["note"] for facts in applied.values() if "note" in facts],
        }

    def reconfigure(self, settings: Settings) -> None:
        self.settings = settings
        self._saver.close()
        self._saver = Saver(settings)
        # Memory limits found in the earlier run must not affect this one: its images must be the same as without it.
        self._fits.clear()
        self.modules.vae.disable_tiling()
        if self.modules.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def cancel_pending(self) -> None:
        """Batches only ever wait for the engine."""

    def close(self) -> None:
        self._engine.close()
        self._saver.close()

    def run(self, batch: Batch) -> list[Result]:
        """Make and save every image of the batch. One result per request, in order.

        Raises:
            DiskError: the output disk refuses writes.
        """
        clock = Clock(self.modules.device)
        inputs, bad = self._load(batch.requests, clock)
        good = [request for request in batch.requests if request.id not in bad]
        full = ""
        try:
            made = self._engine.submit(self.render(good, inputs, clock)).result()() if good else {}
        except (OutOfMemory, RuntimeError, MemoryError) as error:
            if not is_full(error):
                raise
            full = str(error) if isinstance(error, OutOfMemory) else f"{error}; {self._advice(one_sample=True)}"
        finally:
            inputs.clear()
        if full:
            self._empty_cache()
            return [bad.get(r.id) or self._failed(r, "oom", full) for r in batch.requests]
        for request in [r for r in good if not all(job.is_finite for job in made[r.id][0])]:
            bad[request.id] = self._failed(request, "nan", self._not_finite())
            good.remove(request)
        with clock.host("save"):
            written = self._saver.save(
                [
                    (r, job.number, job.prompt if r.task == "t2i" else "\n".join(r.prompts), job.picture, job.profile)
                    for r in good
                    for job in made[r.id][0]
                ]
            )
        stages = _stages(clock)
        seconds = stages["engine"] / max(1, sum(r.samples for r in good))
        files = iter(written)
        work = self._work([job for request in good for job in made[request.id][0]])
        results: list[Result] = []
        for request in batch.requests:
            if request.id in bad:
                results.append(bad[request.id])
                continue
            jobs, warnings = made[request.id]
            results.append(
                Done(
                    request.id,
                    self.settings.backend.name,
                    self.settings.model.name,
                    tuple(self._saver.path(request, c.number) for c in jobs),
                    request.params,
                    round(seconds * request.samples, 4),
                    files=tuple(next(files) for _ in jobs),
                    warnings=warnings,
                    cache=_decisions(jobs),
                    stages={k: round(v, 5) for k, v in stages.items()},
                    work=work,
                )
            )
            stages, work = {}, {}
        return results

    def _load(self, requests: tuple[Request, ...], clock: Clock) -> tuple[dict[str, Inputs], dict[str, Failed]]:
        """The images that edits start from, by id, and the rows whose images cannot be used."""
        inputs: dict[str, Inputs] = {}
        bad: dict[str, Failed] = {}
        with clock.host("load"):
            for request in requests:
                if request.images:
                    try:
                        inputs[request.id] = Inputs(request)
                    except InputError as error:
                        bad[request.id] = self._failed(request, "input", str(error), error.field)
        return inputs, bad

    def render(self, requests: list[Request], inputs: dict[str, Inputs], clock: Clock) -> Work:
        """The images for requests of one bucket, as stages for the engine's threads.

        Returns a function for another thread. It waits for the images and returns id -> (jobs with their `picture`,
        warnings).

        Raises:
            OutOfMemory: not even one sample fits.
        """
        bucket = Bucket.of(requests[0])
        yield self.family.text_parts
        with clock.device("encode"):
            texts = list(dict.fromkeys(prompt for request in requests for prompt in request.prompts))
            prompts = dict(zip(texts, self.prompts.encode(texts), strict=True))
        jobs: dict[str, list[ImageJob]] = {}
        for request in requests:
            n = request.params.n
            own = [request.prompts[j // n if request.task == "t2i" else 0] for j in range(request.samples)]
            jobs[request.id] = [ImageJob(request, j, prompt) for j, prompt in enumerate(own)]
        everyone = [job for group in jobs.values() for job in group]
        for turn in range(bucket.turns):
            decoded = yield from self._turn(everyone, turn, bucket, inputs, prompts, clock)
            if turn < bucket.turns - 1:
                self._finish(everyone, decoded, turn, bucket, inputs, clock)

        def wait() -> dict:
            self._finish(everyone, decoded, bucket.turns - 1, bucket, inputs, clock)
            return {
                request.id: (jobs[request.id], self._warnings(request, inputs.get(request.id), prompts))
                for request in requests
            }

        return wait

    def pixels(self, samples: list[Sample], bucket: Bucket) -> list[torch.Tensor | None]:
        """Denoise and decode samples of one size. Returns images (3, H, W), float32, 0..1, on the device; None in the
        place of one that is not finite.

        Raises:
            OutOfMemory: not even one sample fits.
        """
        self._denoise(samples, bucket)
        return [picture.wait() for picture in self._decode(samples, bucket, list)]

    def _denoise(self, samples: list[Sample], bucket: Bucket) -> None:
        """Give the samples their latents, fewer at a time if memory runs out."""
        most = self.settings.batch_for(bucket.width * bucket.height)
        most = min(most, self._fits.get(bucket, most))
        while True:
            try:
                return self.denoiser.run([s for s in samples if s.latents is None], most)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Only here, where the error is gone and with it the tensors of the failed pass, is their memory free.
            most = self._smaller(bucket, most, "denoising")

    def _decode(self, samples: list[Sample], bucket: Bucket, finish: Callable) -> list[Decoded]:
        """The images of the samples, fewer at a time, then in tiles, if memory runs out."""
        most = self.settings.batch_for(bucket.width * bucket.height)
        most = min(most, self._fits.get(bucket, most))
        latents = [sample.latents for sample in samples]
        while True:
            try:
                return decode(self.family, latents, bucket.width, bucket.height, most, finish)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if most == 1 and not self.modules.vae.use_tiling:
                log.warning("the VAE ran out of memory at %s: decoding in tiles from now on", bucket)
                self.modules.vae.enable_tiling()
                self._empty_cache()
            else:
                most = self._smaller(bucket, most, "decoding")

    def _enter_thread(self, threads: int) -> None:
        torch.set_num_threads(threads)
        opt.enter_thread(self.settings.optimizations)

    def _begin(self, applied: dict[str, dict]) -> None:
        """Warm up. Raises what the engine raises, unless it works without what the profile chose."""
        while True:
            try:
                return self._engine.submit(self._warm_up()).result()
            except Exception as error:
                if is_full(error) or not opt.fall_back(self.modules, self.settings.optimizations, applied):
                    raise
                log.exception("the warm-up failed; trying without what the profile chose")

    def _warm_up(self) -> Work:
        """Draw images, so that kernels, thread pools and graphs are set up before the first batch. There are two kinds
        of graphs, for one sample and for several; after two sizes they work for all sizes. The first size that a graph
        sees decides for which its code is tuned."""
        yield self.family.text_parts
        prompts = self.prompts.encode(["one", "two", "three"])
        yield ("transformer", "vae")
        for width, height, count in self._first_sizes():
            samples = [
                Sample(prompt, width, height, 1, 1.0, self.family.noise(0, width, height)) for prompt in prompts[:count]
            ]
            self.pixels(samples, Bucket("t2i", width, height, (0, 0), 1))

    def _first_sizes(self) -> list[tuple[int, int, int]]:
        """(width, height, samples) for the warm-up."""
        small = [(64, 64, 2), (64, 64, 1), (96, 64, 3)]
        if not self.settings.optimizations.compile.on:
            return small[:1]
        if self.modules.device.type == "cpu":
            return small
        card = self.settings.model.defaults
        width, height = self.settings.image.size or (card.width, card.height)
        own = [(width, height, min(count, self.settings.batch_for(width * height))) for count in (2, 1)]
        return list(dict.fromkeys([*own, *small]))

    def _turn(
        self,
        jobs: list[ImageJob],
        turn: int,
        bucket: Bucket,
        inputs: dict[str, Inputs],
        prompts: dict[str, Prompt],
        clock: Clock,
    ) -> Generator[tuple[str, ...], None, list[Decoded]]:
        """Apply one user turn to all jobs."""
        if bucket.task == "edit":
            for job in jobs:
                job.prompt = job.request.prompts[turn]
        with clock.host("noise"):
            samples = []
            for job in jobs:
                params = job.request.params
                seed = params.seed + turn * params.n + job.number
                noise = self.family.noise(seed, bucket.width, bucket.height)
                prompt = prompts[job.prompt]
                samples.append(Sample(prompt, bucket.width, bucket.height, params.steps, params.guidance, noise))
        if bucket.task == "edit":
            yield ("vae",)
            with clock.device("reference"):
                self._add_references(jobs, samples, turn, bucket, inputs)
        yield ("transformer",)
        with clock.device("denoise"):
            self._denoise(samples, bucket)
        yield ("vae",)
        with clock.device("decode"):
            decoded = self._decode(samples, bucket, to_uint8)
        for job, sample in zip(jobs, samples, strict=True):
            job.patterns += [sample.pattern] if sample.pattern else []
        return decoded

    def _finish(self, jobs: list[ImageJob], decoded: list[Decoded], turn: int, bucket: Bucket, inputs, clock) -> None:
        """Wait for the images of a turn: sets the jobs' `picture`."""
        arrays = [picture.wait() for picture in decoded]
        with clock.host("pixels"):
            for job, array in zip(jobs, arrays, strict=True):
                job.is_finite &= array is not None
                picture = (
                    Image.fromarray(array) if array is not None else Image.new("RGB", (bucket.width, bucket.height))
                )
                given = inputs.get(job.request.id)
                if given is not None and given.mask is not None:
                    before = job.picture or given.base
                    picture = Image.composite(scaled(picture, before.size), before, given.mask)
                    if turn == bucket.turns - 1:
                        picture, job.profile = given.restore(picture), given.first.profile
                job.picture = picture

    def _add_references(self, jobs, samples, turn, bucket, inputs) -> None:
        """Encode the image that each job edits, and for masked edits the latents to keep."""
        sources: dict[int, Image.Image] = {}
        size = bucket.reference if turn == 0 else (bucket.width, bucket.height)
        whole = (bucket.width, bucket.height)

        def key(job: ImageJob, purpose: str) -> tuple:
            return (purpose, job.request.id) if turn == 0 else (purpose, job.request.id, job.number)

        for job in jobs:
            given = inputs[job.request.id]
            now = given.sheet if turn == 0 else job.picture
            sources.setdefault(key(job, "reference"), scaled(now, size))
            if given.mask is not None:
                sources.setdefault(key(job, "keep"), scaled(given.base if turn == 0 else job.picture, whole))
        latents = {}
        for wanted in {picture.size for picture in sources.values()}:
            names = [name for name, picture in sources.items() if picture.size == wanted]
            arrays = [np.asarray(sources[name]) for name in names]
            latents.update(zip(names, self.family.encode_pictures(arrays), strict=True))
        for job, sample in zip(jobs, samples, strict=True):
            sample.reference, sample.reference_size = latents[key(job, "reference")], size
            mask = inputs[job.request.id].mask
            if mask is not None:
                sample.keep = latents[key(job, "keep")]
                sample.repaint = upload(self.family.mask(mask, whole), self.modules.device)

    def _warnings(self, request: Request, given: Inputs | None, prompts: dict[str, Prompt]) -> tuple[str, ...]:
        most = self.settings.engine.max_sequence_length
        cut = max(prompts[text].tokens for text in request.prompts)
        warnings = list(given.warnings) if given else []
        if cut > most:
            warnings.append(f"the prompt has {cut} tokens; the model reads the first {most}")
        if self.modules.vae.use_tiling:
            warnings.append("decoded in tiles because memory was low; seams are possible")
        return tuple(warnings)

    def _work(self, jobs: list[ImageJob]) -> dict[str, int]:
        """Seconds and counters of the batch, for the summary of the run."""
        work = {}
        if self.modules.device.type == "cuda":
            work["gpu_peak_mib"] = torch.cuda.max_memory_reserved() >> 20
        patterns = [pattern for job in jobs for pattern in job.patterns]
        if patterns:
            config = self.modules.transformer.config
            blocks, steps = config.num_layers + config.num_single_layers, sum(map(len, patterns))
            computed = sum(pattern.count("1") for pattern in patterns)
            work |= {"blocks": computed * blocks + steps - computed, "blocks_without_cache": steps * blocks}
        if self.settings.optimizations.compile.on:
            with self._counting:
                now = graphs()
                work["recompiles"], self._graphs = now - self._graphs, now
        return work

    def _not_finite(self) -> str:
        likely = WHY_NOT_FINITE[self.settings.engine.dtype]
        return f"the model made numbers that are not finite, so there is no image; likely {likely}"

    def _failed(self, request: Request, kind: str, message: str, field: str = "") -> Failed:
        return Failed(request.id, kind, message, field, self.settings.backend.name, self.settings.model.name)

    def _smaller(self, bucket: Bucket, most: int, doing: str) -> int:
        self._empty_cache()
        if most == 1:
            raise OutOfMemory(f"out of memory while {doing} one sample of {bucket}; {self._advice(one_sample=True)}")
        self._fits[bucket] = most // 2
        log.warning("out of memory while %s %d samples of %s: %d at a time from now on", doing, most, bucket, most // 2)
        return most // 2

    def _advice(self, one_sample: bool) -> str:
        return advice(self.settings, self.device.kind == "cuda", one_sample)

    def _empty_cache(self) -> None:
        if self.modules.device.type == "cuda":
            torch.cuda.empty_cache()


def _why_no_cuda() -> str:
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().split("\n")[0]
    return "it sees no GPU"


def _stages(clock: Clock) -> dict[str, float]:
    """Seconds by stage, and those of the engine in all."""
    stages = clock.read()
    return stages | {"engine": sum(stages.get(name, 0.0) for name in ENGINE)}


def _decisions(jobs: list[ImageJob]) -> dict:
    """What the step cache did for a row: all steps, those computed in full, and which ones, one pattern per image and
    turn."""
    patterns = [pattern for job in jobs for pattern in job.patterns]
    if not patterns:
        return {}
    computed = sum(pattern.count("1") for pattern in patterns)
    return {"steps": sum(map(len, patterns)), "computed": computed, "pattern": " ".join(patterns)}
