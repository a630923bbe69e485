"""Diffusion models on one device: batch -> results. Knows no model; its family does.

The arithmetic has its own threads (`_engine`): one on a GPU, several on a CPU. On a GPU that thread only enqueues.
Input images are loaded, and finished ones waited for and saved, in the threads that call `run`, so this overlaps with
the arithmetic of other batches. `run` submits the samples of a batch to the step engine, where they meet those of
others. Does not know retries or other workers.
"""

from __future__ import annotations

import logging
import time
from functools import partial

import torch

from fastgen import opt
from fastgen.backends.diffusion import report
from fastgen.backends.diffusion.clock import Clock
from fastgen.backends.diffusion.families import load
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.files import Inputs, Saver
from fastgen.backends.diffusion.group import Group
from fastgen.backends.diffusion.heap import keep_freed_memory
from fastgen.backends.diffusion.in_turn import InTurn
from fastgen.backends.diffusion.memory import OutOfMemory, Room, advice, is_full
from fastgen.backends.diffusion.prompts import PromptEncoder
from fastgen.backends.diffusion.ranks.lead import Lead
from fastgen.backends.diffusion.render import ImageJob, Renderer
from fastgen.backends.diffusion.row_loras import RowLoras
from fastgen.backends.diffusion.step_engine import StepEngine
from fastgen.backends.diffusion.threads import EngineThreads, Work
from fastgen.backends.registry import streams
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.errors import InputError, ModelError, SettingsError
from fastgen.opt.ulysses import Ranks
from fastgen.types import Batch, Done, Failed, Kind, Request, Result

log = logging.getLogger(__name__)
ENGINE = ("encode", "noise", "reference", "denoise", "decode")
"""The stages that count as the engine's time."""


class DiffusionBackend:
    def __init__(self, settings: Settings, device: Device):
        self.settings = settings
        self.device = device
        self._saver = Saver(settings)

    def open(self) -> dict:
        """Load the model. Returns the facts for run.json. Raises ModelError."""
        self.lead: Lead | None = None
        try:
            return self._open()
        except BaseException:
            if self.lead is not None:
                self.lead.close()
            raise

    def _open(self) -> dict:
        together = self.settings.optimizations.shard.kind == "context"
        parallel = streams(self.device, self.settings.optimizations)
        threads = max(1, self.device.threads // (self.device.size if together else parallel))
        torch.set_num_threads(threads)
        if self.device.kind == "cpu":
            keep_freed_memory()
        if self.device.kind == "cuda" and not torch.cuda.is_available():
            raise SettingsError(
                f"this PyTorch ({torch.__version__}) cannot use {self.device.name}: {_why_no_cuda()}. See what "
                "nvidia-smi says, or use --gpus cpu"
            )
        devices = _devices(self.device)[: 1 if together else None]
        device = devices[0]
        self.lead = Lead(self.settings, self.device) if together else None
        started = time.monotonic()
        try:
            self.family = load(self.settings, device)
            self.modules = self.family.modules
            self.modules.devices = devices
            if self.lead is not None:
                self.modules.ranks = Ranks(0, self.device.size)
            applied = opt.apply_all(self.modules, self.settings.optimizations)
            if self.lead is not None:
                self.lead.join(self.family)
            self._assemble(parallel, threads)
            self._begin(applied)
        except (OutOfMemory, RuntimeError, MemoryError) as error:
            if not is_full(error):
                raise
            raise ModelError(
                f"--model {self.settings.model.name} does not fit into the memory of {self.device.name}; "
                f"{self._advice(one_sample=False)}. The error: {error}"
            ) from error
        self._work = report.WorkDone(self.settings)
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
            **({"other_processes": self.lead.pids} if self.lead is not None else {}),
        }

    def reconfigure(self, settings: Settings) -> None:
        self.settings = settings
        self._work.settings = settings
        self._saver.close()
        self._saver = Saver(settings)
        # Memory limits found in the earlier run must not affect this one: its images must be the same as without it.
        self.room.forget()
        self.modules.vae.disable_tiling()
        if self.lead is not None:
            self.lead.forget()
        if self.modules.device.type == "cuda":
            torch.cuda.empty_cache()
            for device in self.modules.devices:
                torch.cuda.reset_peak_memory_stats(device)

    def cancel_pending(self) -> None:
        """Batches only ever wait for the engine."""

    def close(self) -> None:
        self._engine.close()
        self._saver.close()
        if self.lead is not None:
            self.lead.close()

    def run(self, batch: Batch) -> list[Result]:
        """Make and save every image of the batch. One result per request, in order.

        Raises:
            DiskError: the output disk refuses writes.
        """
        clock = Clock(self.modules.device)
        inputs, results = self._load(batch.requests, clock)
        good = [request for request in batch.requests if request.id not in results]
        try:
            if good:
                with self._loras.of(good[0].loras):
                    results |= self._made(good, inputs, clock)
        except InputError as error:
            results |= {request.id: self._failed(request, "input", str(error), error.field) for request in good}
        except (OutOfMemory, RuntimeError, MemoryError) as error:
            if not is_full(error):
                raise
            full = str(error) if isinstance(error, OutOfMemory) else f"{error}; {self._advice(one_sample=True)}"
            results |= {request.id: self._failed(request, "oom", full) for request in good}
        finally:
            inputs.clear()
        if any(isinstance(result, Failed) and result.kind == "oom" for result in results.values()):
            self.room.empty_cache()
        return [results[request.id] for request in batch.requests]

    def _made(self, requests: list[Request], inputs: dict[str, Inputs], clock: Clock) -> dict[str, Result]:
        """The results of rows whose images could be loaded, by id."""
        wait = self._engine.submit(self.renderer.render(requests, inputs, clock)).result()
        jobs, tokens = wait()
        results: dict[str, Result] = {
            r.id: self._failed(r, "nan", report.not_finite(self.settings))
            for r in requests
            if not all(job.is_finite for job in jobs[r.id])
        }
        whole = [r for r in requests if r.id not in results]
        with clock.host("save"):
            files = iter(self._saver.save([_file(r, job) for r in whole for job in jobs[r.id]]))
        stages = _stages(clock)
        seconds = stages["engine"] / max(1, sum(r.samples for r in whole))
        work = self._work.since_last(self.modules, self.steps, [job for r in whole for job in jobs[r.id]])
        for r in whole:
            results[r.id] = Done(
                r.id,
                self.settings.backend.name,
                self.settings.model.name,
                tuple(self._saver.path(r, job.number) for job in jobs[r.id]),
                r.params,
                round(seconds * r.samples, 4),
                files=tuple(next(files) for _ in jobs[r.id]),
                warnings=self._warnings(r, inputs.get(r.id), tokens),
                cache=report.decisions(jobs[r.id]),
                progressive=report.small_steps(jobs[r.id]),
                stages={k: round(v, 5) for k, v in stages.items()},
                work=work,
            )
            stages, work = {}, {}
        return results

    def pixels(self, samples: list[Sample]) -> list:
        """See `Renderer.pixels`."""
        return self.renderer.pixels(samples)

    def _load(self, requests: tuple[Request, ...], clock: Clock) -> tuple[dict[str, Inputs], dict[str, Result]]:
        """The images that edits start from, by id, and the rows whose images cannot be used."""
        inputs: dict[str, Inputs] = {}
        bad: dict[str, Result] = {}
        sees = self.family.condition_size if self.modules.parts.processor else None
        with clock.host("load"):
            for request in requests:
                if request.images:
                    try:
                        inputs[request.id] = Inputs(request, sees)
                    except InputError as error:
                        bad[request.id] = self._failed(request, "input", str(error), error.field)
        return inputs, bad

    def _assemble(self, parallel: int, threads: int) -> None:
        """What the engine consists of, around a model that is loaded."""
        self.prompts = PromptEncoder(self.family)
        self.room = Room(
            self.family, lambda pixels: self.settings.batch_for(pixels), partial(self._advice, one_sample=True)
        )
        under_way = self.settings.under_way(self.device)
        form = Group if self.lead is None else self.lead.group
        # A step cache makes the host wait for a decision at each step. So that only its own group waits, and not all
        # stages with it, each group has a thread.
        apart = under_way > 1 and self.modules.step_cache is not None
        self.steps = StepEngine(self.family, self.room, parallel * under_way, form=form, apart=apart)
        self.renderer = Renderer(self.family, self.prompts, self.steps, self.room, self.lead)
        enter = partial(self._enter_thread, threads)
        count, each = (parallel * under_way, 1) if apart else (parallel, under_way)
        self._engine = EngineThreads(count, enter, bool(self.modules.away), stepper=InTurn(self.steps, each))
        self._loras = RowLoras(self.modules, self.settings.model.path)

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
            self.pixels(samples)

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

    def _warnings(self, request: Request, given: Inputs | None, tokens: dict[str, int]) -> tuple[str, ...]:
        most = self.settings.engine.max_sequence_length
        cut = max(tokens[text] for text in request.prompts)
        warnings = [*(given.warnings if given else ()), *self._loras.notes(request.loras)]
        if cut > most:
            warnings.append(f"the prompt has {cut} tokens; the model reads the first {most}")
        how = request.image_params
        if how.negative_prompt and not self.family.contrast(how.guidance, how.true_cfg_scale, how.negative_prompt):
            warnings.append("negative_prompt has no effect; this model needs a true_cfg_scale above 1 for it")
        if self.modules.vae.use_tiling:
            warnings.append("decoded in tiles because memory was low; seams are possible")
        return tuple(warnings)

    def _failed(self, request: Request, kind: Kind, message: str, field: str = "") -> Failed:
        return Failed(request.id, kind, message, field, self.settings.backend.name, self.settings.model.name)

    def _advice(self, one_sample: bool) -> str:
        return advice(self.settings, self.device.kind == "cuda", one_sample)


def _file(request: Request, job: ImageJob) -> tuple:
    """What the saver needs of an image."""
    prompt = job.prompt if request.task == "t2i" else "\n".join(request.prompts)
    return request, job.number, prompt, job.picture, job.profile


def _devices(device: Device) -> tuple[torch.device, ...]:
    """Those of a replica as PyTorch calls them: a worker sees only its own GPUs."""
    if device.kind == "cuda":
        return tuple(torch.device("cuda", number) for number in range(device.size))
    return (torch.device("cpu"),) * device.size


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
