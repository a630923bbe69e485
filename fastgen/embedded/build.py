"""Build the embedded model: a whole FLUX.1 folder in diffusers' format, small enough for a CPU.

    python -m fastgen.embedded.build [FOLDER]

The weights are random but fixed by a seed: its pictures are coloured noise that depends on prompt, seed, guidance and
input picture, which is what the engine's tests need. It is structurally complete (two double and four single blocks,
guidance embedding, 16 latent channels, 8x downsampling, CLIP and T5 with tokenizers made here), so diffusers' own
`FluxPipeline` and `FluxKontextPipeline` load it too.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec

from fastgen.models import TINY, Defaults

WORDS = [
    "a",
    "an",
    "the",
    "of",
    "in",
    "on",
    "with",
    "and",
    "to",
    "at",
    "left",
    "right",
    "top",
    "bottom",
    "center",
    "middle",
    "background",
    "small",
    "large",
    "big",
    "one",
    "two",
    "three",
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "black",
    "white",
    "gray",
    "brown",
    "circle",
    "square",
    "triangle",
    "star",
    "diamond",
    "cross",
    "photo",
    "picture",
    "painting",
    "drawing",
    "cat",
    "dog",
    "fox",
    "bird",
    "house",
    "tree",
    "sky",
    "sea",
    "snow",
    "night",
    "day",
    "make",
    "change",
    "replace",
    "remove",
    "add",
    "move",
    "turn",
    "it",
]
DEFAULTS = Defaults(
    steps=8, guidance=3.5, width=128, height=128, pixels=128 * 128, max_sequence_length=64, edits=True
)  # fmt: skip
SEED = 20261121


def build(folder: Path) -> None:
    """Write the model folder. Overwrites what is there."""
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(SEED)
    clip_tokenizer, clip_vocab = _clip_tokenizer()
    t5_tokenizer, t5_vocab = _t5_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_vocab), hidden_size=64, intermediate_size=128, projection_dim=64, num_attention_heads=4,
            num_hidden_layers=2, max_position_embeddings=77, bos_token_id=clip_vocab["<|startoftext|>"],
            eos_token_id=clip_vocab["<|endoftext|>"], pad_token_id=clip_vocab["<|endoftext|>"],
        )
    )  # fmt: skip
    text_encoder_2 = T5EncoderModel(
        T5Config(
            vocab_size=t5_vocab, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, pad_token_id=0,
            feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False, eos_token_id=1,
            decoder_start_token_id=0,
        )
    )  # fmt: skip
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=2, num_single_layers=4, attention_head_dim=32, num_attention_heads=4,
        joint_attention_dim=64, pooled_projection_dim=64, guidance_embeds=True, axes_dims_rope=(8, 12, 12),
    )  # fmt: skip
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=16, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(8, 16, 32, 48), layers_per_block=1,
        norm_num_groups=1, sample_size=128, scaling_factor=0.3611, shift_factor=0.1159, force_upcast=True,
        mid_block_add_attention=False, use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip
    with torch.no_grad():  # plain random initialisation is nearly blind to the prompt
        for weight in transformer.parameters():
            if weight.dim() == 2:
                weight.copy_(torch.randn_like(weight) * (1.2 / weight.shape[1] ** 0.5))
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256,
        max_image_seq_len=4096,
    )  # fmt: skip
    pipeline = FluxPipeline(
        scheduler=scheduler, vae=vae, text_encoder=text_encoder, tokenizer=clip_tokenizer,
        text_encoder_2=text_encoder_2, tokenizer_2=t5_tokenizer, transformer=transformer,
    )  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(folder)
    (folder / "fastgen.json").write_text(json.dumps(msgspec.to_builtins(DEFAULTS), indent=2) + "\n")
    for file in folder.rglob("*"):  # save_pretrained writes weights that only their owner can read
        os.chmod(file, 0o755 if file.is_dir() else 0o644)


def _byte_characters() -> list[str]:
    """The 256 printable stand-ins for bytes of byte-level BPE (source: GPT-2's `bytes_to_unicode`)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(spare)) for b in range(256)]


def _clip_tokenizer():
    """Byte-level BPE in which each of WORDS is one token and any other text falls back to bytes."""
    from transformers import CLIPTokenizer

    vocab: dict[str, int] = {}
    for suffix in ("", "</w>"):
        for char in _byte_characters():
            vocab.setdefault(char + suffix, len(vocab))
    merges: list[str] = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merge = f"{pieces[0]} {pieces[1]}"
            pieces[:2] = [pieces[0] + pieces[1]]
            if merge not in merges:
                merges.append(merge)
                vocab.setdefault(pieces[0], len(vocab))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), "utf-8")
        Path(folder, "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", "utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=77), vocab


def _t5_tokenizer():
    """Unigram over WORDS and single printable ASCII characters."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import T5TokenizerFast

    space = "\u2581"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), (space, -2.0)]
    pieces += [(chr(c), -8.0) for c in range(33, 127)]
    pieces += [(space + word, -3.0) for word in WORDS]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=space, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=space, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    fast = T5TokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", extra_ids=0,
        model_max_length=DEFAULTS.max_sequence_length,
    )  # fmt: skip
    return fast, len(pieces)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else TINY)
