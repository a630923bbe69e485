"""Prompts -> what Qwen-Image is conditioned on: the last hidden state of Qwen2.5-VL, without the words before the
prompt. Does not know which prompts were seen before."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastgen.backends.diffusion.borders import cross, working_on
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import Download, upload

TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
"""The words around a prompt, from diffusers' QwenImagePipeline."""
BEFORE = 34
"""Tokens of the template before the prompt, which the transformer does not see."""
MOST = 1024
"""Tokens of a prompt and of the template after it."""


@dataclass(frozen=True)
class Prompt:
    embeds: torch.Tensor
    """(tokens that the model reads, joint_attention_dim)."""
    tokens: int
    """Tokens of the whole prompt, before it was cut to the model's length."""

    @property
    def nbytes(self) -> int:
        return self.embeds.nbytes


@torch.inference_mode()
def encode(m: Modules, prompts: list[str], length: int) -> list[Prompt]:
    """One Prompt per text, in order. Not thread-safe, because tokenizers are not."""
    texts = [TEMPLATE.format(prompt) for prompt in prompts]
    lengths = [len(ids) - BEFORE for ids in m.tokenizer(texts, verbose=False).input_ids]
    tokens = m.tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=MOST + BEFORE)
    with working_on(m.text_device):
        states = m.text_encoder(
            input_ids=upload(tokens.input_ids, m.text_device),
            attention_mask=upload(tokens.attention_mask, m.text_device),
            output_hidden_states=True,
            use_cache=False,
            logits_to_keep=1,
        ).hidden_states
        embeds = cross(states[-1].to(m.dtype), m.device)
    if m.parts.large_text in m.away:
        embeds = Download(embeds).wait()
    # The mask is read in main memory, so nothing waits for the device. Clones, because a view would keep the chunk.
    made = []
    for row, mask, count in zip(embeds, tokens.attention_mask, lengths, strict=True):
        own = mask.nonzero().flatten()
        first, last = int(own[0]) + BEFORE, int(own[-1]) + 1
        made.append(Prompt(row[first : min(last, first + length)].clone(), count))
    return made
