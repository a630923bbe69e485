"""Texts -> hidden states of a language model, for the families whose text encoder is one. Does not know templates, or
which layers a family reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from fastgen.backends.diffusion.borders import cross, working_on
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import Download, upload


@dataclass(frozen=True)
class Prompt:
    embeds: torch.Tensor
    """(tokens that the transformer reads, width of its text)."""
    tokens: int
    """Tokens of the whole prompt, before it was cut to the model's length."""

    @property
    def nbytes(self) -> int:
        return self.embeds.nbytes


def hidden_states(
    m: Modules,
    texts: list[str],
    length: int,
    encoder: Any,
    before: tuple[int, ...] = (),
    padding: bool | str = True,
    adds_tokens: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Hidden states (B, tokens, width), in main memory if the encoder must make way; the attention mask (B, tokens), in
    main memory; and how many tokens each text has before it is cut to `length`.

    Not thread-safe, because tokenizers are not.

    Args:
        encoder: the language model, without its head.
        before: the layers whose inputs are taken, side by side; (): the last hidden state, normalized. Those of all
            layers, as transformers gives them, would be more than a gigabyte for 16 prompts.
        adds_tokens: whether the tokenizer may add tokens of its own, such as one that begins a text.
    """
    lengths = [len(ids) for ids in m.tokenizer(texts, verbose=False, add_special_tokens=adds_tokens).input_ids]
    tokens = m.tokenizer(
        texts,
        return_tensors="pt",
        padding=padding,
        truncation=True,
        max_length=length,
        add_special_tokens=adds_tokens,
    )
    with working_on(m.text_device), _inputs(encoder, before) as inputs:
        last = encoder(
            input_ids=upload(tokens.input_ids, m.text_device),
            attention_mask=upload(tokens.attention_mask, m.text_device),
            use_cache=False,
        ).last_hidden_state
        states = torch.cat([inputs[at] for at in before], dim=-1) if before else last
        embeds = cross(states.to(m.dtype), m.device)
    if m.parts.large_text in m.away:
        embeds = Download(embeds).wait()
    return embeds, tokens.attention_mask, lengths


@contextmanager
def _inputs(encoder: Any, layers: tuple[int, ...]) -> Iterator[dict[int, torch.Tensor]]:
    """Gets what goes into these layers, by their number, while the encoder runs inside the block."""
    found: dict[int, torch.Tensor] = {}

    def keep(at: int) -> Callable[..., None]:
        def hook(_: Any, given: tuple[torch.Tensor, ...]) -> None:
            found[at] = given[0]

        return hook

    hooks = [encoder.layers[at].register_forward_pre_hook(keep(at)) for at in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def asked(m: Modules, prompts: list[str], thinking: bool) -> list[str]:
    """Each prompt as a user's turn of the model's chat template."""
    return [
        m.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        )
        for prompt in prompts
    ]
