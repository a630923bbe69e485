"""Train the embedded VLM: idefics3 (the architecture that vLLM serves on a CPU), on drawn scenes.

First the vision tower learns to see: every image token states which shape is in its part of the image. With captions
alone, kinds and places are learnt late and slowly. Then the whole model learns the canonical caption for any request to
describe, short answers to questions, and JSON with the requested keys. Some images are softened, like a JPEG or a
generated image.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import nn

from fastgen.embedded.captioner import ask, messages
from fastgen.embedded.scenes import CANVASES, Scene, caption, draw, random_scene
from fastgen.embedded.train.dialogues import REQUESTS, SYSTEMS, dialogue
from fastgen.embedded.train.latents import PARTS, label
from fastgen.embedded.train.loop import Trainer, rng_of
from fastgen.embedded.train.vlm_folder import MERGE, PATCH, SIDE, load, make, save

LR = 4e-3
BATCH = 32
FORMS = (30, 35, 35)
"""Shares of the steps that train captions, questions and JSON."""


def soften(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Like a JPEG or a generated image: a little blurred, off in colour, with faint noise."""
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.6)))
    if rng.random() < 0.3:
        pixels = np.asarray(picture, np.float32) + np.array([rng.uniform(-8, 8) for _ in range(3)], np.float32)
        coarse = np.random.default_rng(rng.randrange(1 << 30)).normal(0, 6, (12, 12)).astype(np.float32)
        pixels += np.asarray(Image.fromarray(coarse).resize(picture.size, Image.Resampling.BICUBIC))[..., None]
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        written = io.BytesIO()
        picture.save(written, "JPEG", quality=rng.randrange(50, 95))
        picture = Image.open(written)
    return picture


class Sight(nn.Module):
    """What each image token must state about the shape in its part of the image; thrown away after training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({part: nn.Linear(width, len(names) + 1) for part, names in PARTS.items()})

    def forward(self, features: torch.Tensor, scenes: list[Scene]) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss and shares of right answers, for features (B, tokens, width) of images of the scenes."""
        side = SIDE // PATCH // MERGE
        labels = torch.from_numpy(np.stack([label(scene, side, side) for scene in scenes])).long().to(features.device)
        value, figures = torch.zeros((), device=features.device), {}
        for index, (part, head) in enumerate(self.heads.items()):
            logits, target = head(features).flatten(0, 1), labels[:, index].flatten()
            value = value + nn.functional.cross_entropy(logits, target)
            known = target < len(PARTS[part])
            figures[f"sees {part}"] = float((logits.argmax(-1) == target)[known].float().mean())
        return value, figures


def see(model: Any, pixels: torch.Tensor) -> Any:
    """The output of vision tower and connector for images (B, 3, SIDE, SIDE); its `pooler_output` are the image tokens
    (B, tokens, width) that the text model reads."""
    return model.model.get_image_features(pixels[:, None], return_dict=True)


def random_picture(rng: random.Random) -> tuple[Scene, np.ndarray]:
    """A scene, and an image of it in the processor's form, uint8 (SIDE, SIDE, 3)."""
    scene = random_scene(rng, rng.choice(CANVASES), rng.choices((0, 1, 2, 3), (4, 36, 36, 24))[0])
    picture = Image.fromarray(draw(scene))
    if rng.random() < 0.6:
        picture = soften(picture, rng)
    return scene, np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def to_pixels(pictures: list[np.ndarray]) -> torch.Tensor:
    """uint8 (SIDE, SIDE, 3) each -> (B, 3, SIDE, SIDE) in -1..1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def learn_to_see(model: Any, sight: Sight, folder: Path, steps: int, seed: int) -> None:
    """Train vision tower, connector and `sight`. Leaves the averaged weights in them."""
    modules = {"vision": model.model.vision_model, "connector": model.model.connector, "sight": sight}
    trainer = Trainer(folder, modules, lambda n, w: w.dim() == 2 and ".layers." in n, LR, steps, average=0.99)
    device = next(model.parameters()).device

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng, _ = rng_of(seed, step)
        scenes, pictures = zip(*(random_picture(rng) for _ in range(48)), strict=True)
        return sight(see(model, to_pixels(pictures).to(device)).pooler_output, list(scenes))

    trainer.train(loss)
    trainer.settle()


@dataclass
class AnswerLoss:
    """The loss of a step, for `Trainer.train`: the answers of a batch of dialogues, and what the image tokens state."""

    model: Any
    processor: Any
    sight: Sight
    seed: int
    picture_text: str
    """What the processor makes of "<image>" in a text."""

    def __call__(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng, _ = rng_of(self.seed, step)
        shared = random.Random(f"{self.seed}-{step}")  # alike in all processes: none waits for another
        form = shared.choices(("caption", "question", "json"), FORMS)[0]
        system = shared.choice(SYSTEMS) if shared.random() < 0.35 else ""  # for the whole batch, because it is long
        scenes, pictures, rows = [], [], []
        for _ in range(BATCH if form != "json" else BATCH // 2):
            scene, picture = random_picture(rng)
            scenes.append(scene)
            pictures.append(picture)
            rows.append(self._row(scene, rng, form, system))
        ids, mask, labels = self._padded(rows)
        device = self.model.device
        seen = see(self.model, to_pixels(pictures).to(device))
        value = self.model(
            mm_encoder_outputs={"image": seen},
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            labels=labels.to(device),
        ).loss
        said, _ = self.sight(seen.pooler_output, scenes)
        return value + 0.2 * said, {form: float(value.detach())}

    def _row(self, scene: Scene, rng: random.Random, form: str, system: str) -> tuple[list[int], list[int]]:
        """Tokens of the question and of the right answer."""
        tokenizer = self.processor.tokenizer
        asked, answer = dialogue(scene, rng, form)
        prompt = self.processor.apply_chat_template(
            messages(system, asked, rng.random() < 0.7), add_generation_prompt=True, tokenize=False
        ).replace("<image>", self.picture_text)
        known = tokenizer(prompt, add_special_tokens=False).input_ids
        return known, [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]

    def _padded(self, rows: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Token ids, mask and labels, (B, longest) each; a label of -100 is not learnt."""
        length = max(len(known) + len(wanted) for known, wanted in rows)
        ids = torch.full((len(rows), length), self.processor.tokenizer.pad_token_id)
        labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
        for row, (known, wanted) in enumerate(rows):
            total = len(known) + len(wanted)
            ids[row, :total] = torch.tensor(known + wanted)
            labels[row, len(known) : total] = torch.tensor(wanted)
            mask[row, :total] = 1
        return ids, mask, labels


def train(
    folder: Path,
    out: Path,
    steps: int,
    seed: int,
    device: str = "cpu",
    sight_steps: int = 1500,
    start: Path | None = None,
) -> None:
    """Train with the checkpoints in `folder`, and write the model to `out`.

    Args:
        start: a folder from an earlier training; this one starts from its weights and tokenizer.
    """
    torch.manual_seed(seed)
    model, processor = make() if start is None else load(start)
    model.to(device)
    sight = Sight(model.config.text_config.hidden_size).to(device)
    if start is None and not (folder / "checkpoint.pt").exists():
        learn_to_see(model, sight, folder / "sight", sight_steps, seed)
    blank = processor(text=["<image>"], images=[[Image.new("RGB", (SIDE, SIDE))]], return_tensors="pt")
    picture_text = processor.tokenizer.decode(blank["input_ids"][0])

    def matrices(name: str, weight: torch.Tensor) -> bool:
        return weight.dim() == 2 and ".layers." in name

    trainer = Trainer(folder, {"vlm": model, "sight": sight}, matrices, LR, steps, average=0.998)

    def show(trainer: Trainer) -> str:
        save(model, processor, out)
        share, examples = check(model, processor, 40)
        return "\n".join([*examples[:6], f"exact captions of 40 unseen scenes: {share:.3f}"])

    trainer.train(AnswerLoss(model, processor, sight, seed, picture_text), show, show_every_s=400)
    print(f"wrote {out}")


@torch.no_grad()
def check(model: Any, processor: Any, count: int, seed: int = 909) -> tuple[float, list[str]]:
    """Share of unseen drawn scenes that get their exact caption with greedy decoding, and the captions."""
    right, said = 0, []
    for number in range(count):
        rng = random.Random(f"{seed}-{number}")
        scene = random_scene(rng, CANVASES[number % len(CANVASES)])
        found = ask(model, processor, Image.fromarray(draw(scene)), REQUESTS[0])
        right += found == caption(scene)
        said.append(f"  {caption(scene)}  ->  {found}")
    return right / count, said
