"""Draws the images of the bundled examples: `python -m fastgen.examples.draw`. All are flat shapes.

The small ones are scenes of the embedded models' world, the full-size ones are for a real model.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw

from fastgen.embedded.scenes import Scene, Shape, changed
from fastgen.embedded.scenes import draw as draw_scene

FOLDER = Path(__file__).parent


def draw_scenes(folder: Path) -> None:
    """Write the images for the embedded model."""
    folder.mkdir(parents=True, exist_ok=True)
    circle = Scene("blue", (Shape("circle", "red", "large", "center"),))
    scenes = {
        "circle": circle,
        "pair": Scene(
            "purple",
            (Shape("star", "white", "small", "top left"), Shape("square", "green", "large", "right")),
            160,
            128,
        ),
        "tall": Scene("pink", (Shape("triangle", "black", "large", "top"),), 128, 192),
    }
    for name, scene in scenes.items():
        Image.fromarray(draw_scene(scene)).save(folder / f"{name}.png")
    mask = changed(circle, replace(circle, shapes=()))
    Image.fromarray(mask.astype("uint8") * 255).save(folder / "circle-mask.png")


def draw(folder: Path, unit: int) -> None:
    """Write the full-size images; for most of them the short side has `unit` pixels."""
    folder.mkdir(parents=True, exist_ok=True)

    def canvas(width: int, height: int, colour: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        image = Image.new("RGB", (width, height), colour)
        return image, ImageDraw.Draw(image)

    u = unit / 128
    house, pen = canvas(unit, unit, "#87b5d9")
    pen.rectangle([0, 92 * u, unit, unit], fill="#5f9e54")
    pen.rectangle([36 * u, 56 * u, 92 * u, 104 * u], fill="#e8d9b5")
    pen.polygon([(28 * u, 58 * u), (64 * u, 26 * u), (100 * u, 58 * u)], fill="#a63d2f")
    pen.rectangle([56 * u, 78 * u, 72 * u, 104 * u], fill="#5c4433")
    house.save(folder / "house.png")
    mask, pen = canvas(unit, unit, "black")
    pen.polygon([(24 * u, 60 * u), (64 * u, 22 * u), (104 * u, 60 * u)], fill="white")
    mask.convert("L").save(folder / "house-roof-mask.png")
    boat, pen = canvas(unit * 3 // 2, unit, "#cfe3ee")
    pen.rectangle([0, 84 * u, unit * 3 // 2, unit], fill="#2f6690")
    pen.polygon([(50 * u, 84 * u), (142 * u, 84 * u), (122 * u, 104 * u), (70 * u, 104 * u)], fill="#7a4b2a")
    pen.polygon([(96 * u, 20 * u), (96 * u, 80 * u), (134 * u, 80 * u)], fill="#f4f1e8")
    boat.save(folder / "boat.png")
    cup, pen = canvas(unit, unit * 3 // 2, "#efe6dd")
    pen.rectangle([0, 140 * u, unit, unit * 3 // 2], fill="#b98b62")
    pen.rectangle([40 * u, 84 * u, 84 * u, 144 * u], fill="#3b6e8f")
    pen.ellipse([76 * u, 96 * u, 104 * u, 128 * u], outline="#3b6e8f", width=max(2, int(6 * u)))
    cup.save(folder / "cup.png")


if __name__ == "__main__":
    draw_scenes(FOLDER / "small" / "pictures")
    draw(FOLDER / "full" / "pictures", 1024)
