"""FLUX's forward pass for training: samples of all canvases in one batch, only a part of an image's tokens, and what
the tokens state half-way. Does not know data or the loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fastgen.backends.diffusion.families.flux1.latents import position_ids
from fastgen.embedded.scenes import CANVASES
from fastgen.embedded.train.latents import PARTS, TOKENS

OUTLINE = 10.0
"""Weight of the outline relative to the words, in what the tokens state."""


class PerSample:
    """Attention with positions and mask per sample, so that all canvases share one batch.

    Takes (cos, sin, mask) where diffusers passes (cos, sin); otherwise `FluxAttnProcessor`.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: None = None,
        image_rotary_emb: tuple[torch.Tensor, ...] = (),
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        cos, sin, mask = image_rotary_emb

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (attn.heads, -1))

        query, key = attn.norm_q(heads(attn.to_q(hidden_states))), attn.norm_k(heads(attn.to_k(hidden_states)))
        value = heads(attn.to_v(hidden_states))
        if encoder_hidden_states is not None:
            text_query = attn.norm_added_q(heads(attn.add_q_proj(encoder_hidden_states)))
            text_key = attn.norm_added_k(heads(attn.add_k_proj(encoder_hidden_states)))
            query, key = torch.cat([text_query, query], 1), torch.cat([text_key, key], 1)
            value = torch.cat([heads(attn.add_v_proj(encoder_hidden_states)), value], 1)

        def turned(x: torch.Tensor) -> torch.Tensor:
            real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
            return x * cos + torch.stack([-imaginary, real], -1).flatten(-2) * sin

        mixed = nn.functional.scaled_dot_product_attention(
            turned(query).transpose(1, 2), turned(key).transpose(1, 2), value.transpose(1, 2), attn_mask=mask
        )
        mixed = mixed.transpose(1, 2).flatten(2)
        if encoder_hidden_states is None:
            return mixed
        length = encoder_hidden_states.shape[1]
        return attn.to_out[1](attn.to_out[0](mixed[:, length:])), attn.to_add_out(mixed[:, :length])


class Positions:
    """Rotary positions of every canvas, with text of `length` tokens and, for edits, a reference."""

    def __init__(self, model: Any, length: int, edit: bool):
        cos, sin, padding = [], [], []
        for width, height in CANVASES:
            ids, filled = [torch.zeros(length, 3)], [torch.zeros(length)]
            for kind in range(1 + edit):
                grid = position_ids((width, height), kind)
                room = TOKENS - len(grid)
                ids.append(nn.functional.pad(grid, (0, 0, 0, room)))
                filled.append(nn.functional.pad(torch.zeros(len(grid)), (0, room), value=-1e4))
            found = model.pos_embed(torch.cat(ids).to(model.device))
            cos.append(found[0])
            sin.append(found[1])
            padding.append(torch.cat(filled))
        device = model.device
        self.cos, self.sin = torch.stack(cos).to(device), torch.stack(sin).to(device)
        self.padding = torch.stack(padding).to(device)
        self.length = length

    def of(
        self,
        canvases: list[int],
        far: torch.Tensor,
        chosen: torch.Tensor | None = None,
        counts: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(cos, sin, mask) for a batch. The last text token counts as `far` (B,) tokens. Only the `chosen` (B, N) image
        tokens are present, each of which counts as `counts` (B, N)."""
        cos, sin, mask = self.cos[canvases], self.sin[canvases], self.padding[canvases]
        mask[:, self.length - 1] = far.log().to(mask.device)
        if chosen is not None and counts is not None:
            pictures = (mask.shape[1] - self.length) // TOKENS
            text = torch.arange(self.length).expand(len(canvases), -1)
            index = torch.cat([text, *(self.length + i * TOKENS + chosen for i in range(pictures))], 1).to(mask.device)
            cos, sin, mask = pick(cos, index), pick(sin, index), mask.gather(1, index)
            mask[:, self.length :] += counts.log().to(mask.device).repeat(1, pictures)
        return cos[:, :, None], sin[:, :, None], mask[:, None, None, :]


def pick(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(B, S, C), (B, N) -> (B, N, C)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2]))


class Meaning(nn.Module):
    """Half-way through the transformer, the image's tokens must state which shape they will be, and which parts of them
    it covers. This teaches which words to look at, and what a kind looks like at a place (after REPA, Yu et al. 2024,
    with knowledge of the scene instead of features). Thrown away after training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lead = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.heads = nn.ModuleDict({part: nn.Linear(width, len(names) + 1) for part, names in PARTS.items()})
        self.outline = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 16)
        )

    def forward(
        self, hidden: torch.Tensor, labels: torch.Tensor, outline: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss and figures: the share of the shapes' tokens that know their kind, and the error of the outline.

        labels (B, parts, N), outline (B, N, 16) in 0..1, weight (B, N).
        """
        lead, covered = self.lead(hidden), self.outline(hidden)
        off = nn.functional.binary_cross_entropy_with_logits(covered, outline, reduction="none").mean(2)
        value = OUTLINE * (off * weight).sum() / weight.sum()
        missed = (covered.detach().sigmoid() - outline).abs().mean(2)
        figures = {"outline": float((missed * weight).sum() / weight.sum())}
        for index, head in enumerate(self.heads.values()):
            logits = head(lead)
            off = nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, index], reduction="none")
            value = value + (off * weight).sum() / weight.sum()
            if index == 0:
                known = labels[:, 0] < len(PARTS["kind"])
                figures["kind"] = float((logits.argmax(-1) == labels[:, 0])[known].float().mean())
        return value, figures


class Velocity(nn.Module):
    """`FluxTransformer2DModel.forward` with `PerSample` attention. Returns only the image's tokens, and their state
    half-way."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model: Any = model

    def forward(
        self,
        x: torch.Tensor,
        reference: torch.Tensor | None,
        text: torch.Tensor,
        pooled: torch.Tensor,
        sigma: torch.Tensor,
        guidance: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        m = self.model
        embedding = m.time_text_embed(sigma * 1000, guidance * 1000, pooled)
        hidden, text = m.x_embedder(x if reference is None else torch.cat([x, reference], 1)), m.context_embedder(text)
        half_way = None
        for index, block in enumerate((*m.transformer_blocks, *m.single_transformer_blocks)):
            text, hidden = block(
                hidden_states=hidden, encoder_hidden_states=text, temb=embedding, image_rotary_emb=(cos, sin, mask)
            )
            if index == 2:
                half_way = hidden[:, : x.shape[1]]
        return m.proj_out(m.norm_out(hidden[:, : x.shape[1]], embedding)), half_way
