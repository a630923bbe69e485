"""Prompts -> text embeddings, each distinct prompt once; images -> reference latents. Does not know steps."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch

from fastgen.backends.diffusion.load import Modules
from fastgen.backends.diffusion.transfer import Download, upload
from fastgen.opt.offload import TEXT, onload

CHUNK = 16
"""Prompts that go through the text encoders together."""
MOST_PICTURES = 4
"""Images that go through the VAE's encoder together."""


@dataclass(frozen=True)
class Prompt:
    embeds: torch.Tensor
    """(max_sequence_length, joint_attention_dim), the T5 hidden states; padding included, as FLUX was trained."""
    pooled: torch.Tensor
    """(pooled_projection_dim,), from CLIP."""
    tokens: int
    """T5 tokens of the whole prompt, before it was cut to the model's length."""


class PromptEncoder:
    """Encodes prompts and remembers the most recent ones, up to `memory` bytes: on the device, or in main memory if the
    text encoders come and go, because then the results of many prompts wait for their turn."""

    def __init__(self, modules: Modules, max_sequence_length: int, memory: int = 1 << 30):
        self.modules = modules
        self.max_sequence_length = max_sequence_length
        self.memory = memory
        self._known: OrderedDict[str, Prompt] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        """Tokenizers are not thread-safe, and no prompt should be encoded twice."""

    def encode(self, prompts: list[str]) -> list[Prompt]:
        """One Prompt per text, in order. Thread-safe."""
        with self._lock:
            return self._encode(prompts)

    def _encode(self, prompts: list[str]) -> list[Prompt]:
        found: dict[str, Prompt] = {}
        for prompt in prompts:
            if prompt in self._known:
                self._known.move_to_end(prompt)
                found[prompt] = self._known[prompt]
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in found]
        with onload(self.modules, *(TEXT if new else ())):
            for start in range(0, len(new), CHUNK):
                chunk = new[start : start + CHUNK]
                for prompt, encoded in zip(chunk, self._forward(chunk), strict=True):
                    found[prompt] = self._known[prompt] = encoded
                    self._bytes += encoded.embeds.nbytes
        while self._bytes > self.memory and len(self._known) > 1:
            _, oldest = self._known.popitem(last=False)
            self._bytes -= oldest.embeds.nbytes
        return [found[prompt] for prompt in prompts]

    @torch.inference_mode()
    def _forward(self, prompts: list[str]) -> list[Prompt]:
        m = self.modules
        clip_length = m.tokenizer.model_max_length
        clip_ids, _ = self._tokenize(m.tokenizer, prompts, clip_length)
        t5_ids, lengths = self._tokenize(m.tokenizer_2, prompts, self.max_sequence_length)
        pooled = m.text_encoder(clip_ids).pooler_output.to(m.dtype)
        embeds = m.text_encoder_2(t5_ids)[0].to(m.dtype)
        if TEXT[1] in m.away:
            kept = [(Download(e), Download(p)) for e, p in zip(embeds, pooled, strict=True)]
            return [Prompt(e.wait(), p.wait(), n) for (e, p), n in zip(kept, lengths, strict=True)]
        # Clones, because a view would keep the whole chunk in memory.
        return [Prompt(e.clone(), p.clone(), n) for e, p, n in zip(embeds, pooled, lengths, strict=True)]

    def _tokenize(self, tokenizer, prompts: list[str], length: int) -> tuple[torch.Tensor, list[int]]:
        """Token ids (len(prompts), length), padded and cut off, and the original lengths."""
        ids = tokenizer(prompts, padding=False, truncation=False, verbose=False).input_ids
        end = tokenizer.eos_token_id
        rows = [row if len(row) <= length else [*row[: length - 1], end] for row in ids]
        rows = [row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows]
        return upload(torch.tensor(rows), self.modules.device), [len(row) for row in ids]


@torch.inference_mode()
def encode_pictures(modules: Modules, pictures: list[np.ndarray]) -> list[torch.Tensor]:
    """Images of one size, uint8 (H, W, 3), as packed latents (H/16 * W/16, 64) each: the mode of the VAE's
    posterior."""
    vae = modules.vae
    pixels = upload(torch.from_numpy(np.stack(pictures)), modules.device)
    pixels = (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).to(modules.dtype)
    # Only float32 rounds alike in any batch. Other types go one by one, so that an image is the same in any batch.
    size = MOST_PICTURES if modules.dtype == torch.float32 else 1
    with onload(modules, "vae"):
        latents = torch.cat([vae.encode(chunk).latent_dist.mode() for chunk in pixels.split(size)])
    latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    return list(pack(latents))


def pack(latents: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) -> (B, h/2 * w/2, 4C): each token is a 2x2 patch."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpack(tokens: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """The inverse of `pack` for latents of height h and width w."""
    b, _, c = tokens.shape
    return tokens.view(b, h // 2, w // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, h, w)
