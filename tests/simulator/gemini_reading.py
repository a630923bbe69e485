"""Reads Gemini requests, in snake case, camel case and mixtures; a bad one raises the service's refusal."""

from __future__ import annotations

import re

from google.genai import types
from PIL import Image

from tests.simulator import drawing
from tests.simulator import gemini_checks as checks
from tests.simulator.gemini_checks import plain, refuse
from tests.simulator.http import Request
from tests.simulator.prices import GEMINI_TOKENS
from tests.simulator.records import About, Call, Recorded, Seen

# Pixels at 1K. The services' tables differ in a few of these; a client must not rely on them.
SIZES = {
    "1:1": (1024, 1024),
    "2:3": (832, 1248),
    "3:2": (1248, 832),
    "3:4": (864, 1184),
    "4:3": (1184, 864),
    "4:5": (896, 1152),
    "5:4": (1152, 896),
    "9:16": (768, 1344),
    "16:9": (1344, 768),
    "21:9": (1536, 672),
    "1:4": (512, 2048),
    "4:1": (2048, 512),
    "1:8": (384, 3072),
    "8:1": (3072, 384),
}
SCALES = {"512": 0.5, "1K": 1, "2K": 2, "4K": 4}
_TEN, _ALL = tuple(SIZES)[:10], tuple(SIZES)
MODELS: dict[str, dict] = {
    "gemini-2.5-flash-image": {"sizes": ("1K",), "ratios": _TEN, "inputs": 3, "thinks": False},
    "gemini-3-pro-image": {"sizes": ("1K", "2K", "4K"), "ratios": _TEN, "inputs": 14, "thinks": True},
    "gemini-3.1-flash-image": {"sizes": tuple(SCALES), "ratios": _ALL, "inputs": 14, "thinks": True},
    "gemini-3.1-flash-lite-image": {"sizes": ("1K",), "ratios": _ALL, "inputs": 14, "thinks": False},
    "gemini-nano-banana-2.1": {"sizes": ("1K", "2K", "4K"), "ratios": _ALL, "inputs": 14, "thinks": True},
}
TEXT_IDS = re.compile(r"gemini-(2\.5|3|3\.\d)-(pro|flash|flash-lite)$")
KINDS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
MAX_BODY = 100 << 20


def read(request: Request, record: Recorded, about: About) -> Call | None:
    """None: GET /v1/models. Fills the record on the way, so that a refused request is in it too."""
    found = re.fullmatch(r"/(v1|v1beta)/models(?:/([^/:]+):(\w+))?", request.path)
    if found and not found[2] and request.method == "GET":
        record.operation = "models"
        return None
    if not found or found[3] != "generateContent" or request.method != "POST":
        raise refuse("Requested entity was not found.", 404, "NOT_FOUND")
    record.operation, record.model = "gemini", found[2]
    family = MODELS.get(found[2])
    if family is None and not TEXT_IDS.match(found[2]) and found[2] not in about.models:
        text = f"models/{found[2]} is not found for API version {found[1]}, or is not supported for generateContent."
        raise refuse(f"{text} Call ListModels to see the list of available models.", 404, "NOT_FOUND")
    if len(request.body) > MAX_BODY:
        raise refuse("Request payload size exceeds the limit: 104857600 bytes.")
    try:
        body = plain(request.json(), "")
    except ValueError:
        raise refuse("Invalid JSON payload received. Could not parse the body.") from None
    for name in body:
        if name not in checks.TOP:
            raise checks.unknown(name, "")
    return read_body(body, found[2], family, record, about)


def read_body(body: dict, model: str, family: dict | None, record: Recorded, about: About) -> Call:
    config = plain(body.get("generation_config") or {}, "generation_config")
    image = plain(config.pop("image_config", None) or {}, "generation_config.image_config")
    record.params = {**config, **({"image_config": image} if image else {})}
    if body.get("safety_settings"):
        record.params["safety_settings"] = body["safety_settings"]
        checks.check_safety(body["safety_settings"])
    checks.check_config(config, image, family)
    contents = body.get("contents")
    contents = [contents] if isinstance(contents, dict) else contents
    if not isinstance(contents, list) or not contents:
        raise refuse("* GenerateContentRequest.contents: contents is not specified")
    modalities = config.get("response_modalities") or (["TEXT", "IMAGE"] if family else ["TEXT"])
    draws = "IMAGE" in modalities
    call = Call("gemini picture" if draws else "gemini text", model, config)
    if body.get("system_instruction"):
        instruction = plain(body["system_instruction"], "system_instruction")
        call.texts += [part.get("text", "") for part in parts_of(instruction, "system_instruction")]
    latest: list[Image.Image] = []  # the model's last picture: what a later turn edits
    for turn, content in enumerate(contents):
        where = f"contents[{turn}]"
        content = plain(content, where)
        parts = parts_of(content, where)
        if content.get("role", "user") not in ("user", "model"):
            raise refuse("Please use a valid role: user, model.")
        pictures = [take(part, where, record) for part in parts if part.get("inline_data")]
        words = [part["text"] for part in parts if part.get("text")]
        call.texts += words
        if content.get("role") == "model":
            checks.check_signatures(parts, turn, about.seed, model, bool(family))
            shown = [one for one in parts if one.get("inline_data")]
            final = [one for one, part in zip(pictures, shown, strict=True) if not part.get("thought")]
            latest = final[-1:] or latest
        else:
            record.prompt = "\n".join(words)
            call.inputs = pictures if draws else call.inputs + pictures
    if content.get("role") == "model":
        raise refuse("Please ensure that multiturn requests end with a user role or a function response.")
    if draws:
        call.inputs = latest + call.inputs
        if len(call.inputs) > family["inputs"]:
            raise refuse(f"The model accepts at most {family['inputs']} input images.")
        scale = image.get("image_size") or "1K"
        width, height = SIZES[image.get("aspect_ratio") or nearest(call.inputs)]
        call.size = (int(width * SCALES[scale]), int(height * SCALES[scale]))
        tokens = 2000 if (model, scale) == ("gemini-3-pro-image", "4K") else GEMINI_TOKENS[scale]
        call.values.update(tokens=tokens, family=model, with_text="TEXT" in modalities)
    call.values.setdefault("tokens", 0)
    call.values["prompt"] = record.prompt
    return call


def parts_of(content: dict, where: str) -> list[dict]:
    """The parts in snake case, checked by type; pictures keep their base64 (it is decoded once, in `take`)."""
    parts = [plain(part, where + ".parts") for part in content.get("parts") or ()]
    if not parts:
        raise refuse(f"* GenerateContentRequest.{where}.parts: contents.parts must not be empty.")
    light = []
    for part in parts:
        if "inline_data" in part:
            part["inline_data"] = plain(part["inline_data"], where + ".parts.inline_data")
            part = {**part, "inline_data": {**part["inline_data"], "data": ""}}
        if sum(name in part for name in ("text", "inline_data", "file_data")) != 1:
            raise refuse(f"Invalid value at '{where}.parts' (oneof): exactly one kind of data is needed in a part.")
        if "file_data" in part:
            raise refuse("You do not have permission to access the File or it may not exist.", 403, "PERMISSION_DENIED")
        light.append({name: value for name, value in part.items() if name != "thought_signature"})
    checks.check_type(types.Content, {**content, "parts": light}, where)
    return parts


def take(part: dict, where: str, record: Recorded) -> Image.Image:
    blob = part["inline_data"]
    mime = blob.get("mime_type")
    if mime not in KINDS:
        raise refuse(f"Unsupported MIME type: {mime}")
    data = checks.unbase64(blob.get("data"), where + ".parts.inline_data.data")
    try:
        picture = drawing.load(data)
    except ValueError:
        raise refuse("Unable to process input image. Please retry or report in the docs.") from None
    if picture.format not in KINDS.values():
        raise refuse("Unable to process input image. Please retry or report in the docs.")
    record.images.append(Seen.of(picture, data, mime))
    return picture


def nearest(inputs: list[Image.Image]) -> str:
    """Without a ratio the answer has the shape of the first input."""
    if not inputs:
        return "1:1"
    shape = inputs[0].width / inputs[0].height
    return min(_TEN, key=lambda ratio: abs(SIZES[ratio][0] / SIZES[ratio][1] - shape))
