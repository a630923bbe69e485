"""Attention over tokens that are divided among the processes of a replica (Ulysses). Does not know models or steps.

Each process has some of the tokens. For attention it gets all tokens of some of the heads instead, and gives the
results back: two exchanges per layer. diffusers has the same, but for fewer kernels, and with lengths that differ it
asks the device for them in every layer, for which the host waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor, _get_qkv_projections


@dataclass(frozen=True)
class Ranks:
    """The processes of a replica, as one of them sees them. All call the same methods in the same order."""

    number: int = 0
    """Of this one."""
    count: int = 1

    def sizes(self, length: int) -> list[int]:
        """How many of so many tokens each of them has."""
        return [(at + 1) * length // self.count - at * length // self.count for at in range(self.count)]

    def part(self, tensor: torch.Tensor, dim: int) -> torch.Tensor:
        """This one's tokens."""
        sizes = self.sizes(tensor.shape[dim])
        return tensor.narrow(dim, sum(sizes[: self.number]), sizes[self.number])

    def whole(self, part: torch.Tensor, length: int) -> torch.Tensor:
        """All tokens (B, length, C) from everyone's (B, some, C)."""
        if self.count == 1:
            return part
        sizes = self.sizes(length)
        sent = part.new_zeros(part.shape[0], max(sizes), part.shape[2])
        sent[:, : part.shape[1]] = part
        found = self._gathered(sent)
        return torch.cat([one[:, :size] for one, size in zip(found, sizes, strict=True)], dim=1)

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of everyone's values, the same to the bit for each of them."""
        return values if self.count == 1 else self._gathered(values).sum(0)

    def _gathered(self, sent: torch.Tensor) -> torch.Tensor:
        """(count, ...): everyone's tensor."""
        got = sent.new_empty(self.count, *sent.shape)
        dist.all_gather(list(got), sent.contiguous())
        return got


class _Lengths:
    """How many tokens each process has in the layers that run now: known by the host, and hidden from compiled code,
    which would otherwise be made anew for each size."""

    def __init__(self) -> None:
        self.of_all: list[int] = []
        self.ranks = Ranks()


_now = _Lengths()


def attend_over(ranks: Ranks, lengths: Sequence[int]) -> None:
    """What the layers that are called next work on.

    Args:
        lengths: of the parts of the sequence, such as text and image; each is divided by itself.
    """
    _now.ranks = ranks
    _now.of_all = [sum(sizes) for sizes in zip(*map(ranks.sizes, lengths), strict=True)]


@torch.library.custom_op("fastgen::attention_of_all", mutates_args=())
def attention_of_all(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, backend: str) -> torch.Tensor:
    """Attention of this process's tokens (B, own tokens, heads, width) over the tokens of all.

    Args:
        backend: diffusers' name of the kernel; "" for the active one.
    """
    mine = _to_heads(torch.stack((query, key, value)))
    made = dispatch_attention_fn(*mine.unbind(), backend=backend or None)
    return _to_tokens(made)


@attention_of_all.register_fake
def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, backend: str) -> torch.Tensor:
    return torch.empty(query.shape, dtype=query.dtype, device=query.device)


def _to_heads(x: torch.Tensor) -> torch.Tensor:
    """(n, B, own tokens, heads, width) -> (n, B, all tokens, own heads, width)."""
    count, lengths = _now.ranks.count, _now.of_all
    if count == 1:
        return x
    n, batch, own, heads, width = x.shape
    sent = x.reshape(n, batch, own, count, heads // count, width).permute(3, 2, 0, 1, 4, 5)
    sent = sent.reshape(count * own, n, batch, heads // count, width).contiguous()
    got = x.new_empty(sum(lengths), n, batch, heads // count, width)
    dist.all_to_all_single(got, sent, output_split_sizes=lengths, input_split_sizes=[own] * count)
    return got.permute(1, 2, 0, 3, 4).contiguous()


def _to_tokens(x: torch.Tensor) -> torch.Tensor:
    """(B, all tokens, own heads, width) -> (B, own tokens, heads, width)."""
    count, lengths = _now.ranks.count, _now.of_all
    if count == 1:
        return x.clone()
    own = lengths[_now.ranks.number]
    batch, _, heads, width = x.shape
    sent = x.transpose(0, 1).contiguous()
    got = x.new_empty(count * own, batch, heads, width)
    dist.all_to_all_single(got, sent, output_split_sizes=[own] * count, input_split_sizes=lengths)
    parts = got.reshape(count, own, batch, heads, width)
    return parts.permute(2, 1, 0, 3, 4).reshape(batch, own, count * heads, width)


class UlyssesProcessor(FluxAttnProcessor):  # type: ignore[misc,unused-ignore]
    """As `FluxAttnProcessor`, without a mask, where each process has some of the tokens."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Any,
        encoder_hidden_states: Any = None,
        attention_mask: Any = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        found: tuple[Any, ...] = _get_qkv_projections(attn, hidden_states, encoder_hidden_states)
        has_text = encoder_hidden_states is not None
        query, key, value, *of_text = [x.unflatten(-1, (-1, attn.head_dim)) for x in found[: 6 if has_text else 3]]
        query, key = attn.norm_q(query), attn.norm_k(key)
        if has_text:
            own = (attn.norm_added_q(of_text[0]), attn.norm_added_k(of_text[1]), of_text[2])
            joined = zip(own, (query, key, value), strict=True)
            query, key, value = (torch.cat(pair, dim=1) for pair in joined)
        if query.shape[1]:  # of very few tokens a process may have none
            query, key = (apply_rotary_emb(x, image_rotary_emb, sequence_dim=1) for x in (query, key))
        backend = self._attention_backend
        made = attention_of_all(query, key, value, str(getattr(backend, "value", backend) or ""))
        made = made.flatten(2, 3).to(query.dtype)
        if not has_text:
            return made
        tokens = encoder_hidden_states.shape[1]
        text, image = made.split_with_sizes([tokens, made.shape[1] - tokens], dim=1)
        return attn.to_out[1](attn.to_out[0](image.contiguous())), attn.to_add_out(text.contiguous())
