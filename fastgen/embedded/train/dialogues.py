"""What the VLM is asked about a scene, and the right answers: captions, questions, JSON. Draws nothing and trains
nothing."""

from __future__ import annotations

import json
import random

from fastgen.embedded.scenes import COLORS, KINDS, PLACES, Scene, caption
from fastgen.embedded.scenes.language import PLACE_WORDS, article
from fastgen.embedded.train.words import WORDS

SYSTEMS = (
    "You are an image caption generator. Your task is to generate a concise and informative caption for the given "
    "image "
    "content.",
    "You are a image caption generator. Your task is to generate a concise and informative caption for the given image "
    "content.",
    "You are a helpful assistant.",
)
REQUESTS = (
    "Describe the image.",
    "Describe this image.",
    "describe the picture",
    "Describe the picture in one sentence.",
    "Caption this image.",
    "Write a caption for this image.",
    "Generate a caption for the image.",
    "caption",
    "What is in the image?",
    "What is in this picture?",
    "What do you see?",
    "What does the image show?",
    "Please describe this image in detail.",
    "Describe the image in detail.",
    "Please caption the media in detail.",
    "Generate detailed captions based on image content.",
    "Describe what you see in this picture.",
    "Give a short description of the image.",
    "Tell me about this image.",
    "Please provide a caption for this image.",
    "",
)


ABOUT_BACKGROUND = (
    "What color is the background?",
    "What is the background color?",
    "What colour is the background?",
    "What is the color of the background?",
)
ABOUT_NUMBER = ("How many shapes are there?", "How many shapes are in the image?", "How many objects are there?")
ABOUT_MISSING = ("What color is the {}?", "Where is the {}?", "Is the {} small or large?")
ABOUT_COLOR = (
    "What color is the {}?",
    "What colour is the {}?",
    "What is the color of the {}?",
    "Which color is the {}?",
)
ABOUT_PLACE = ("Where is the {}?", "Where in the image is the {}?")
ABOUT_SIZE = ("Is the {} small or large?", "How big is the {}?", "What size is the {}?")
ABOUT_KIND = ("What shape is {}?", "Which shape is {}?", "What is {}?")


def question(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """A question about the scene, and its answer."""
    kinds = [s.kind for s in scene.shapes]
    single = [s for s in scene.shapes if kinds.count(s.kind) == 1]
    form = rng.random()
    if form < 0.1 or not scene.shapes:
        return rng.choice(ABOUT_BACKGROUND), scene.background
    if form < 0.18:
        return rng.choice(ABOUT_NUMBER), str(len(scene.shapes))
    if form < 0.24:
        missing = rng.choice([k for k in KINDS if k not in kinds])
        return rng.choice(ABOUT_MISSING).format(missing), f"there is no {missing}"
    if form < 0.5:
        return _yes_or_no(scene, rng)
    shape = rng.choice(single or scene.shapes)
    if form < 0.65 and single:
        return rng.choice(ABOUT_COLOR).format(shape.kind), shape.color
    if form < 0.76 and single:
        return rng.choice(ABOUT_PLACE).format(shape.kind), PLACE_WORDS[shape.place][0]
    if form < 0.84 and single:
        return rng.choice(ABOUT_SIZE).format(shape.kind), shape.size
    if form < 0.92:
        return rng.choice(ABOUT_KIND).format(PLACE_WORDS[shape.place][0]), shape.kind
    return rng.choice(ABOUT_KIND[:2]).format(shape.color), shape.kind


def _yes_or_no(scene: Scene, rng: random.Random) -> tuple[str, str]:
    kinds = [s.kind for s in scene.shapes]
    single = [s for s in scene.shapes if kinds.count(s.kind) == 1]
    yes = rng.random() < 0.5
    answer = "yes" if yes else "no"
    shape = rng.choice(scene.shapes)
    form = rng.random()
    if form < 0.3:
        named = shape.kind if yes else rng.choice([k for k in KINDS if k not in kinds])
        return rng.choice(("Is there a {}?", "Does the image show a {}?")).format(named), answer
    if form < 0.6:
        pairs = {(s.color, s.kind) for s in scene.shapes}
        others = [(c, k) for c in COLORS for k in KINDS if (c, k) not in pairs]
        near = [p for p in others if p[0] == shape.color or p[1] == shape.kind]
        color, named = (shape.color, shape.kind) if yes else rng.choice(near)
        return f"Is there {article(color)} {color} {named}?", answer
    if form < 0.8 and single:
        shape = rng.choice(single)
        color = shape.color if yes else rng.choice([c for c in COLORS if c != shape.color])
        return f"Is the {shape.kind} {color}?", answer
    color = scene.background if yes else rng.choice([c for c in COLORS if c != scene.background])
    return f"Is the background {color}?", answer


_KEYS = {
    "background": ("background", "background_color"),
    "shapes": ("shapes", "objects"),
    "count": ("count", "number"),
    "caption": ("caption", "description"),
    "kind": ("kind", "shape", "type", "name"),
    "color": ("color", "colour"),
    "size": ("size",),
    "place": ("place", "position", "location"),
}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["background", "shapes"],
    "properties": {
        "background": {"type": "string", "enum": list(COLORS)},
        "shapes": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["kind", "color", "size", "place"],
                "properties": {
                    "kind": {"type": "string", "enum": list(KINDS)},
                    "color": {"type": "string", "enum": list(COLORS)},
                    "size": {"type": "string", "enum": ["small", "large"]},
                    "place": {"type": "string", "enum": list(PLACES)},
                },
            },
        },
    },
}
"""The JSON that it knows best. It was also trained on other keys, and on some of these in another order."""


def as_json(scene: Scene, rng: random.Random | None = None) -> dict:
    """The scene in the form of `SCHEMA`, or with other keys in another order."""
    if rng is None:
        keys = {key: names[0] for key, names in _KEYS.items()}
        top, inner = ["background", "shapes"], ["kind", "color", "size", "place"]
    else:
        keys = {key: rng.choice(names) for key, names in _KEYS.items()}
        top = rng.sample(["background", "shapes", "count", "caption"], rng.choice((1, 2, 2, 3)))
        inner = rng.sample(["kind", "color", "size", "place"], rng.choice((2, 3, 4)))
    values = {
        "background": scene.background,
        "count": len(scene.shapes),
        "caption": caption(scene),
        "shapes": [{keys[part]: getattr(s, part) for part in inner} for s in scene.shapes],
    }
    return {keys[key]: values[key] for key in top}


def dialogue(scene: Scene, rng: random.Random, form: str) -> tuple[str, str]:
    """The user's text and the answer; `form` is caption, question or json."""
    if form == "caption":
        asked = rng.choice(REQUESTS)
        if rng.random() < 0.1:
            asked = " ".join(rng.sample(WORDS, rng.randrange(1, 6)))
        answer = caption(scene)
    elif form == "question":
        asked, answer = question(scene, rng)
    else:
        found = as_json(scene, rng if rng.random() < 0.3 else None)
        asked = rng.choice(("Describe the image as JSON.", "Answer in JSON.", "JSON", rng.choice(REQUESTS)))
        if rng.random() < 0.5:
            asked = f"Describe the image as JSON with the keys {', '.join(found)}."
        answer = json.dumps(found, separators=(",", ":") if rng.random() < 0.5 else None)
    if rng.random() < 0.3:
        asked = asked.lower()
    if rng.random() < 0.15:
        asked = asked.rstrip(".?")
    return asked, answer
