"""Train the embedded FLUX's VAE: AutoencoderKL with 16 latent channels and 8x downsampling, on drawn scenes.

It starts with crops (fast) and ends with whole canvases (its norms see a whole image). A third of the scenes have
unnamed colours, so that the VAE is not limited to the ten that the prompts know.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastgen.embedded.scenes import CANVASES, COLORS, draw, random_scene
from fastgen.embedded.train.check import contact_sheet
from fastgen.embedded.train.loop import Trainer, rng_of

LR = 5e-3
KL = 8e-4
"""Weight of the divergence from a normal distribution: enough to control the scale of the latents."""


def make() -> Any:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=16,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 48, 64),
        layers_per_block=1,
        # One group per norm: with as many groups as channels a norm erases absolute colour.
        norm_num_groups=1,
        sample_size=128,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=True,
    )
    with torch.no_grad():  # start with little noise in the latents
        vae.encoder.conv_out.weight[16:] *= 0.1
        vae.encoder.conv_out.bias[16:] = -5.0
    return vae.to(memory_format=torch.channels_last)


def picture(rng: random.Random, canvas: tuple[int, int], side: int | None) -> np.ndarray:
    """A scene on the canvas, or a square crop of it."""
    palette = COLORS
    if rng.random() < 0.33:
        palette = {name: (rng.randrange(256), rng.randrange(256), rng.randrange(256)) for name in COLORS}
    pixels = draw(random_scene(rng, canvas, None if rng.random() > 0.05 else 0), palette)
    if side is None:
        return pixels
    x, y = rng.randrange(canvas[0] - side + 1), rng.randrange(canvas[1] - side + 1)
    return pixels[y : y + side, x : x + side]


def to_tensor(pictures: list[np.ndarray]) -> torch.Tensor:
    """uint8 (H, W, 3) each -> (B, 3, H, W) in -1..1, channels last."""
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return (pixels.float() / 127.5 - 1).to(memory_format=torch.channels_last)


def train(folder: Path, out: Path, steps: int, seed: int, device: str = "cpu") -> None:
    """Train for `steps` in total, with checkpoint and samples in `folder`, and write the model to `out`."""
    torch.manual_seed(seed)
    vae = make().to(device)

    def matrices(name: str, weight: torch.Tensor) -> bool:
        return weight.dim() == 4 and "conv_out" not in name and name != "vae.encoder.conv_in.weight"

    trainer = Trainer(folder, {"vae": vae}, matrices, LR, steps, average=0.995)

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng, generator = rng_of(seed, step)
        done = step / steps
        side, count = (32, 20) if done < 0.35 else (64, 12) if done < 0.7 else (None, 6)
        canvas = rng.choice(CANVASES)
        x = to_tensor([picture(rng, canvas, side) for _ in range(count)]).to(device)
        latents = vae.encode(x).latent_dist
        noise = torch.randn(latents.mean.shape, generator=generator).to(device)
        off = vae.decode(latents.mean + latents.std * noise).sample - x
        rebuilt = off.abs().mean() + 2 * off.pow(2).mean()
        divergence = 0.5 * (latents.mean.pow(2) + latents.var - 1 - latents.logvar).mean()
        return rebuilt + KL * divergence, {"l1": float(off.detach().abs().mean()) / 2}

    def show(trainer: Trainer) -> str:
        contact_sheet(rebuilt(vae), folder / "samples.png")
        return "rebuilt scenes: " + " ".join(f"{w}x{h} {d:.1f} dB" for (w, h), d in fidelity(vae).items())

    trainer.train(loss, show, show_every_s=90)
    with trainer.averages():
        mean, std = latent_statistics(vae)
        vae.register_to_config(scaling_factor=round(1 / std, 4), shift_factor=round(mean, 4))
        vae.to("cpu", memory_format=torch.contiguous_format).save_pretrained(out)
    print(f"wrote {out}: scaling_factor {vae.config.scaling_factor}, shift_factor {vae.config.shift_factor}")


@torch.no_grad()
def fidelity(vae: Any, count: int = 12) -> dict[tuple[int, int], float]:
    """Mean PSNR in dB of unseen scenes through encoder and decoder, by canvas."""
    found = {}
    for canvas in CANVASES:
        rng = random.Random(f"fidelity-{canvas}")
        x = to_tensor([draw(random_scene(rng, canvas)) for _ in range(count)]).to(vae.device)
        y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        found[canvas] = float((-10 * ((y - x) / 2).pow(2).mean((1, 2, 3)).log10()).mean())
    return found


@torch.no_grad()
def rebuilt(vae: Any) -> list[Image.Image]:
    """Unseen scenes and what encoder and decoder make of them, alternating."""
    rng, pictures = random.Random("rebuilt"), []
    for canvas in CANVASES:
        drawn = [draw(random_scene(rng, canvas)) for _ in range(5)]
        decoded = vae.decode(vae.encode(to_tensor(drawn).to(vae.device)).latent_dist.mean).sample.clamp(-1, 1)
        for old, new in zip(
            drawn, ((decoded + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy(), strict=True
        ):
            pictures += [Image.fromarray(old), Image.fromarray(new)]
    return pictures


@torch.no_grad()
def latent_statistics(vae: Any, count: int = 64) -> tuple[float, float]:
    """Mean and standard deviation over all latents of unseen scenes."""
    rng = random.Random("statistics")
    x = to_tensor([draw(random_scene(rng)) for _ in range(count)]).to(vae.device)
    latents = vae.encode(x).latent_dist.mean
    return float(latents.mean()), float(latents.std())
