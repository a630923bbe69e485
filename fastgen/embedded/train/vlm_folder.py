"""The parts of the embedded VLM's folder: idefics3, its tokenizer and its processor, new or saved."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from fastgen.embedded.scenes import random_scene
from fastgen.embedded.train.dialogues import REQUESTS, SYSTEMS, dialogue
from fastgen.embedded.train.words import WORDS

SIDE, PATCH, MERGE, VISION = 128, 16, 2, 128
"""Every image is resized to a square of SIDE pixels and becomes (SIDE / PATCH / MERGE)^2 tokens, which are VISION
numbers wide in the encoder."""
TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] in ('image', 'image_url') -%}{{ '<image>' }}"
    "{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{ '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
SPECIAL = (
    "<pad>",
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
)


def make() -> tuple[Any, Any]:
    """The model and its processor, untrained."""
    from transformers import Idefics3ForConditionalGeneration, Idefics3ImageProcessorPil, Idefics3Processor

    tokenizer = _tokenizer()
    model = Idefics3ForConditionalGeneration(_config(tokenizer))
    with torch.no_grad():
        # By default positions are a fiftieth of the size of a patch, and the first thousands of steps do not see
        # places.
        model.model.vision_model.embeddings.position_embedding.weight.copy_(grid_positions(SIDE // PATCH, VISION))
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(
            do_image_splitting=False, size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE}
        ),
        tokenizer=tokenizer,
        image_seq_len=(SIDE // PATCH // MERGE) ** 2,
        chat_template=TEMPLATE,
    )
    return model, processor


def _tokenizer() -> Any:
    """Byte-level pieces, learnt from texts like those it will see."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random("corpus")
    corpus = [f" {word} {word.capitalize()} {word}" for word in WORDS] + [*SYSTEMS, *REQUESTS] * 3
    for index in range(1500):
        asked, answer = dialogue(random_scene(rng), rng, ("caption", "question", "json")[index % 3])
        corpus += [asked, answer]
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.decoder = decoders.ByteLevel()
    learner.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=768,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=learner,
        model_max_length=2048,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        additional_special_tokens=list(SPECIAL[4:]),
        clean_up_tokenization_spaces=False,
    )


def _config(tokenizer: Any) -> Any:
    from transformers import Idefics3Config, LlamaConfig

    return Idefics3Config(
        vision_config={
            "hidden_size": VISION,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=2048,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        scale_factor=MERGE,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )


def load(folder: Path) -> tuple[Any, Any]:
    """The saved model and its processor."""
    from transformers import AutoProcessor, Idefics3ForConditionalGeneration

    model = Idefics3ForConditionalGeneration.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    return model.train(), AutoProcessor.from_pretrained(folder, local_files_only=True)


def grid_positions(side: int, width: int) -> torch.Tensor:
    """Sines and cosines of row and column, (side * side, width): smooth in both (source: Vaswani et al. 2017, in two
    dimensions as in MAE, He et al. 2021; the waves are longer, for a small grid)."""
    waves = torch.pi / side * 2 ** torch.linspace(-1, 2, width // 4)
    at = torch.arange(side)[:, None] * waves
    line = torch.cat([at.sin(), at.cos()], 1)
    rows, columns = line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)
    return torch.cat([rows, columns], 2).reshape(side * side, width)


def save(model: Any, processor: Any, out: Path) -> None:
    """Write the folder, in float32."""
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(out)
    processor.save_pretrained(out)
