"""Short names of published models for --model, with what to know before a download: licence and size. Data."""

from __future__ import annotations

from dataclasses import dataclass

NON_COMMERCIAL = "a non-commercial licence, to be accepted on its page"


@dataclass(frozen=True)
class Known:
    hub_id: str
    licence: str
    weights_gib: float
    """Of all parts in bfloat16 (docs/models.md)."""
    pipeline: str
    """The pipeline of diffusers that its folder names."""

    @property
    def is_gated(self) -> bool:
        """Whether its licence has to be accepted on its page before a download."""
        return self.licence == NON_COMMERCIAL


SHORT_NAMES = {
    "klein": Known("black-forest-labs/FLUX.2-klein-4B", "Apache 2.0", 13.4, "Flux2KleinPipeline"),
    "z-image": Known("Tongyi-MAI/Z-Image-Turbo", "Apache 2.0", 19.1, "ZImagePipeline"),
    "qwen-image": Known("Qwen/Qwen-Image-2512", "Apache 2.0", 51.5, "QwenImagePipeline"),
    "qwen-edit": Known("Qwen/Qwen-Image-Edit-2511", "Apache 2.0", 52.7, "QwenImageEditPlusPipeline"),
    "flux-dev": Known("black-forest-labs/FLUX.1-dev", NON_COMMERCIAL, 31.4, "FluxPipeline"),
    "flux-schnell": Known("black-forest-labs/FLUX.1-schnell", "Apache 2.0", 31.4, "FluxPipeline"),
    "kontext": Known("black-forest-labs/FLUX.1-Kontext-dev", NON_COMMERCIAL, 31.4, "FluxKontextPipeline"),
    "flux2-dev": Known("black-forest-labs/FLUX.2-dev", NON_COMMERCIAL, 93.5, "Flux2Pipeline"),
    "chroma": Known("lodestones/Chroma1-HD", "Apache 2.0", 25.6, "ChromaPipeline"),
}

AUTO = {"t2i": ((22.5, "z-image"), (0.0, "klein")), "edit": ((0.0, "klein"),)}
"""Task -> (GiB of GPU memory from which it is chosen, short name), the largest first: what --model auto is on a GPU.
All are free for any use, and need few passes for an image."""
