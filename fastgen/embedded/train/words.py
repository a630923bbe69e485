"""The tokenizers of the embedded models: each word of the scenes' grammar is one token, and any other text is split
into smaller pieces."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from fastgen.embedded.scenes.world import COLORS, KINDS, PLACES, SIZES

_GRAMMAR = """a an the and with on in at of to into by there is are it its this that against over front plain
empty just nothing background picture image photo drawing scene corner side center middle upper
lower top bottom left right disc plus big little larger bigger smaller bright dark make change turn
set paint color colour recolor remove delete erase take away add draw put place move enlarge shrink
replace grey centre circle shape shapes one two three small large"""
_WORLD = (
    "photo painting cat dog fox bird house tree sky sea snow sun moon night day car boat cup person red roof window"
)
WORDS: tuple[str, ...] = tuple(
    dict.fromkeys([*_GRAMMAR.split(), *COLORS, *KINDS, *SIZES, *" ".join(PLACES).split(), *_WORLD.split()])
)
_SPACE = "\u2581"


def _byte_characters() -> list[str]:
    """The 256 printable stand-ins for bytes of byte-level BPE (source: GPT-2's `bytes_to_unicode`)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(spare)) for b in range(256)]


def clip_tokenizer() -> tuple[Any, dict[str, int]]:
    """Byte-level BPE, and its vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    end = "</w>"
    learner = Tokenizer(models.BPE(end_of_word_suffix=end))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    learner.train_from_iterator(  # enough merges to make every word one token
        [" ".join(WORDS)] * 20, trainers.BpeTrainer(vocab_size=5000, end_of_word_suffix=end, show_progress=False)
    )
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    vocab: dict[str, int] = {}
    for suffix in ("", end):
        for char in _byte_characters():
            vocab.setdefault(char + suffix, len(vocab))
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), "utf-8")
        lines = "\n".join(f"{left} {right}" for left, right in merges)
        Path(folder, "merges.txt").write_text(f"#version: 0.2\n{lines}\n", "utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=77), vocab


def t5_tokenizer() -> Any:
    """Unigram over words and single printable ASCII characters.

    T5Tokenizer loses a lower-casing normaliser when it is loaded, so a capitalised word is its own piece; `twins` gives
    it the embedding of the lower-case one.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), (_SPACE, -2.0)]
    pieces += [(chr(c), -8.0) for c in range(33, 127)]
    pieces += [(_SPACE + word, -3.0) for word in WORDS]
    pieces += [(_SPACE + word.capitalize(), -3.0) for word in WORDS if word.capitalize() != word]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return T5TokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_ids=0,
        model_max_length=512,
    )


def twins(tokenizer: Any) -> list[tuple[int, int]]:
    """(plain, capitalised) token ids of the T5 tokenizer's words."""
    return [tuple(tokenizer.convert_tokens_to_ids([_SPACE + word, _SPACE + word.capitalize()])) for word in WORDS]
