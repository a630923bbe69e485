"""The text encoders of the embedded FLUX (CLIP and T5), and their training before that of the transformer.

With the denoising loss alone, binding words to shapes would take most of a small training budget. So the encoders first
learn, in minutes, to state what a text asks for: every T5 token of a phrase states the kind, colour, size and place of
its shape (or the parts of its edit), and CLIP's pooled vector states the whole layout. The heads for this are thrown
away.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastgen.embedded.scenes import (
    CANVASES,
    COLORS,
    KINDS,
    OPERATIONS,
    PLACES,
    SIZES,
    Edit,
    Text,
    Wish,
    describe,
    parse,
    parse_edit,
    random_edit,
    random_scene,
)
from fastgen.embedded.train.loop import Trainer, rng_of
from fastgen.embedded.train.words import clip_tokenizer, t5_tokenizer

WIDTH = 96
LENGTH, EDIT_LENGTH = 34, 16
"""T5 tokens in training, for a description and for an instruction; longer texts are drawn again."""
_REACH = 8
"""T5 tokens see fewer than this many tokens to each side; see `Encoders.limit`."""


@dataclass
class Encoders:
    tokenizer: Any
    tokenizer_2: Any
    clip: Any
    t5: Any

    def limit(self) -> None:
        """Keep T5 from looking further than `_REACH`, through its position bias. FLUX gives T5 no mask, so without this
        the embedding of a word would depend on how much padding follows. With it, it depends only on its neighbours,
        and all far padding is the same vector at any `max_sequence_length`."""
        bias = self.t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
        with torch.no_grad():  # 16 buckets to each side: 0 to 7 are distances, 8 to 15 everything farther away
            bias[_REACH:16] = -1e4
            bias[16 + _REACH :] = -1e4

    def ids(self, texts: list[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids for CLIP (B, 48) and T5 (B, length). CLIP is causal, so its padding does not matter."""
        clip = self.tokenizer(texts, padding="max_length", max_length=48, truncation=True, return_tensors="pt")
        t5 = self.tokenizer_2(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return clip.input_ids, t5.input_ids

    def __call__(self, texts: list[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled (B, 96) and token (B, length, 96) embeddings."""
        clip, t5 = self.ids(texts, length)
        return self.clip(clip.to(self.clip.device)).pooler_output, self.t5(t5.to(self.t5.device))[0]

    def fits(self, text: str, length: int) -> bool:
        return len(self.tokenizer_2(text).input_ids) <= length


def make() -> Encoders:
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    tokenizer, vocab = clip_tokenizer()
    tokenizer_2 = t5_tokenizer()
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocab),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            projection_dim=WIDTH,
            num_attention_heads=4,
            num_hidden_layers=3,
            max_position_embeddings=77,
            bos_token_id=vocab["<|startoftext|>"],
            eos_token_id=vocab["<|endoftext|>"],
            pad_token_id=vocab["<|endoftext|>"],
        )
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer_2),
            d_model=WIDTH,
            d_kv=24,
            d_ff=2 * WIDTH,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            use_cache=False,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
            relative_attention_num_buckets=32,
            relative_attention_max_distance=32,
            dropout_rate=0.0,
        )
    )
    with torch.no_grad():
        for name, weight in clip.named_parameters():
            if "embedding" in name:
                weight.normal_(0, 0.3 if "position" in name else 1.0)
        t5.shared.weight.normal_(0, 1.0)
    encoders = Encoders(tokenizer, tokenizer_2, clip, t5)
    encoders.limit()
    return encoders


def matrices(name: str, weight: torch.Tensor) -> bool:
    return weight.dim() == 2 and "embed" not in name and "shared" not in name and "relative" not in name


_KINDS, _COLORS, _SIZES, _PLACES = list(KINDS), list(COLORS), list(SIZES), list(PLACES)
_OPERATIONS = list(OPERATIONS)
_PARTS = {"operation": _OPERATIONS, "kind": _KINDS, "color": _COLORS, "new": _COLORS, "size": _SIZES, "place": _PLACES}
"""What a token states; the class after the last one is "nothing"."""


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.ModuleDict({part: nn.Linear(WIDTH, len(names) + 1) for part, names in _PARTS.items()})
        slots = len(_PLACES) + 2  # a shape without a place; an edit
        self.kinds = nn.Linear(WIDTH, slots * (len(_KINDS) + 1))
        self.colors = nn.Linear(WIDTH, (slots + 1) * (len(_COLORS) + 1))  # and the background


def _class(names: list[str], name: str | None) -> int:
    return names.index(name) if name in names else len(names)


def _labels(text: Text, meaning: Wish | Edit) -> tuple[list[tuple[int, int, dict[str, int]]], list[int], list[int]]:
    """For each span of the text, the class of every part; and the classes of the slots' kinds and colours."""
    nothing = {part: len(names) for part, names in _PARTS.items()}
    kinds, colors = [len(_KINDS)] * (len(_PLACES) + 2), [len(_COLORS)] * (len(_PLACES) + 3)
    if isinstance(meaning, Edit):
        target = meaning.target
        labels = nothing | {
            "operation": _OPERATIONS.index(meaning.operation),
            "new": _class(_COLORS, meaning.color),
            "size": _class(_SIZES, meaning.size or (target.size if target else None)),
            "place": _class(_PLACES, meaning.place or (target.place if target else None)),
        }
        if target:
            labels |= {"kind": _KINDS.index(target.kind), "color": _class(_COLORS, target.color)}
            kinds[-1] = labels["kind"]
        colors[-2] = labels["new"] if meaning.color else labels["color"]
        return [(0, len(text.text), labels)], kinds, colors
    spans, wanted = [], iter(meaning.shapes)
    for start, end, subject in text.spans:
        if subject == "background":
            spans.append((start, end, nothing | {"color": _class(_COLORS, meaning.background)}))
            continue
        shape = next(wanted)
        labels = {
            "kind": _KINDS.index(shape.kind),
            "color": _class(_COLORS, shape.color),
            "size": _class(_SIZES, shape.size),
            "place": _class(_PLACES, shape.place),
        }
        spans.append((start, end, nothing | labels))
        kinds[labels["place"]], colors[labels["place"]] = labels["kind"], labels["color"]
    colors[-1] = _class(_COLORS, meaning.background)
    return spans, kinds, colors


def random_text(encoders: Encoders, rng: random.Random) -> tuple[Text, Wish | Edit]:
    while True:
        scene = random_scene(rng, rng.choice(CANVASES))
        if rng.random() < 0.35:
            edit, text, _ = random_edit(scene, rng)
            if parse_edit(text.text) == edit and encoders.fits(text.text, EDIT_LENGTH):
                return text, edit
        else:
            text = describe(scene, rng)
            wish = parse(text.text)
            if wish is not None and encoders.fits(text.text, LENGTH):
                return text, wish


def train(encoders: Encoders, folder: Path, steps: int, seed: int) -> None:
    """Teach the encoders the grammar. Leaves the averaged weights in them."""
    torch.manual_seed(seed)
    heads = Heads().to(encoders.t5.device)
    modules = {"clip": encoders.clip, "t5": encoders.t5, "heads": heads}
    trainer = Trainer(folder, modules, lambda n, w: matrices(n, w) and "heads" not in n, 4e-3, steps, average=0.99)

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng, _ = rng_of(seed, step)
        encoders.limit()
        texts, meanings = zip(*(random_text(encoders, rng) for _ in range(64)), strict=True)
        return _loss(encoders, heads, list(texts), list(meanings))

    trainer.train(loss)
    trainer.settle()
    encoders.limit()


def _loss(
    encoders: Encoders, heads: Heads, texts: list[Text], meanings: list[Wish | Edit]
) -> tuple[torch.Tensor, dict[str, float]]:
    plain = [text.text for text in texts]
    pooled, tokens = encoders(plain, LENGTH)
    offsets = encoders.tokenizer_2(
        plain, padding="max_length", max_length=LENGTH, truncation=True, return_offsets_mapping=True
    ).offset_mapping
    wanted = {part: torch.full((len(texts), LENGTH), -100) for part in _PARTS}
    kinds, colors = [], []
    for row, (text, meaning) in enumerate(zip(texts, meanings, strict=True)):
        spans, slot_kinds, slot_colors = _labels(text, meaning)
        kinds.append(slot_kinds)
        colors.append(slot_colors)
        for column, (start, end) in enumerate(offsets[row]):
            for low, high, labels in spans:
                if start < end and low <= start and end <= high:
                    for part, label in labels.items():
                        wanted[part][row, column] = label
    value, figures = torch.zeros(()), {}
    for part, head in heads.token.items():
        logits, target = head(tokens).flatten(0, 1), wanted[part].flatten().to(tokens.device)
        value = value + nn.functional.cross_entropy(logits, target)
        figures[part] = float((logits.argmax(-1) == target)[target >= 0].float().mean())
    for name, head, slots in (("kinds", heads.kinds, kinds), ("colors", heads.colors, colors)):
        target = torch.tensor(slots, device=pooled.device)
        logits = head(pooled).view(len(texts), target.shape[1], -1)
        value = value + 3 * nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
        figures[f"pooled {name}"] = float((logits.argmax(-1) == target).all(-1).float().mean())
    return value, figures
