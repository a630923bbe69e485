"""What a Gemini request must be: the vendor's own types in both spellings, what its documentation adds, signatures."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re

from google.genai import types
from pydantic import BaseModel, ValidationError

from tests.simulator.http import Answer, Refused

TOP = {
    "contents",
    "system_instruction",
    "generation_config",
    "safety_settings",
    "tools",
    "tool_config",
    "cached_content",
    "labels",
    "service_tier",
    "store",
}
MODALITIES = ("TEXT", "IMAGE")
CATEGORIES = ("HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT", "CIVIC_INTEGRITY")
THRESHOLDS = ("BLOCK_NONE", "OFF", "BLOCK_ONLY_HIGH", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_LOW_AND_ABOVE")
LEVELS = ("MINIMAL", "LOW", "MEDIUM", "HIGH", "THINKING_LEVEL_UNSPECIFIED")
ENTERPRISE = ("output_mime_type", "output_compression_quality", "image_output_options", "prominent_people")


def error(status: int, message: str, name: str, details: list[dict] | None = None) -> Answer:
    body: dict = {"error": {"code": status, "message": message, "status": name}}
    if details:
        body["error"]["details"] = details
    return Answer(status, json.dumps(body).encode(), early=True)


def refuse(
    message: str, status: int = 400, name: str = "INVALID_ARGUMENT", details: list[dict] | None = None
) -> Refused:
    return Refused(error(status, message, name, details))


def unknown(field: str, where: str) -> Refused:
    text = f'Invalid JSON payload received. Unknown name "{field}"{where and f" at {where!r}"}: Cannot find field.'
    violation = {"field": where, "description": text}
    return refuse(
        text, details=[{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}]
    )


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def plain(value: dict, where: str) -> dict:
    """The object with its own names in snake case; a field that comes in both spellings is refused, as there."""
    if not isinstance(value, dict):
        raise refuse(f"Invalid value at '{where}' (type.googleapis.com): Root element must be a message.")
    made = {}
    for name, part in value.items():
        if snake(name) in made:
            raise refuse(f"Invalid value at '{where}' (oneof), oneof field '{name}' is already set.")
        made[snake(name)] = part
    return made


def check_type(model: type[BaseModel], value: dict, where: str) -> None:
    try:
        model.model_validate(value)
    except ValidationError as broken:
        first = broken.errors()[0]
        if first["type"] == "extra_forbidden":
            raise unknown(str(first["loc"][-1]), where) from None
        raise refuse(f"Invalid value at '{where}.{'.'.join(map(str, first['loc']))}': {first['msg']}") from None


def one_of(value: object, allowed: tuple, where: str) -> None:
    if value is not None and value not in allowed:
        raise refuse(f"Invalid value at '{where}': \"{value}\". Supported values: {', '.join(allowed)}.")


def check_config(config: dict, image: dict, family: dict | None) -> None:
    """generationConfig and its imageConfig, both in snake case. family: None for a model that cannot draw."""
    where = "generation_config"
    check_type(types.GenerationConfig, config, where)
    check_type(types.ImageConfig, image, where + ".image_config")
    for name in ENTERPRISE:
        if name in image:
            raise unknown(name, where + ".image_config")
    for modality in config.get("response_modalities") or ():
        one_of(modality, MODALITIES, where + ".response_modalities")
    thinking = plain(config.get("thinking_config") or {}, where + ".thinking_config")
    one_of(thinking.get("thinking_level"), LEVELS, where + ".thinking_config.thinking_level")
    if family is None:
        if image or "IMAGE" in (config.get("response_modalities") or ()):
            raise refuse("The requested combination of response modalities is not supported by the model.")
        return
    if config.get("candidate_count") not in (None, 1):
        raise refuse("Multiple candidates is not enabled for this model")
    one_of(image.get("aspect_ratio"), family["ratios"], where + ".image_config.aspect_ratio")
    one_of(image.get("image_size"), family["sizes"], where + ".image_config.image_size")


def check_safety(settings: object) -> None:
    for setting in settings if isinstance(settings, list) else [settings]:
        check_type(types.SafetySetting, setting, "safety_settings")
        category = str(setting.get("category")).removeprefix("HARM_CATEGORY_")
        one_of(category, CATEGORIES, "safety_settings.category")
        one_of(setting.get("threshold"), THRESHOLDS, "safety_settings.threshold")


def unbase64(text: object, where: str) -> bytes:
    """Both alphabets: the vendor's client writes the one for URLs."""
    try:
        if not isinstance(text, str):
            raise ValueError("not a string")
        return base64.b64decode(text.translate({45: 43, 95: 47}) + "=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise refuse(f"Invalid value at '{where}' (TYPE_BYTES), Base64 decoding failed.") from None


def sign(seed: int, model: str, content: str) -> str:
    """The thoughtSignature of a part: it holds for this content on this model only. content: its text or base64."""
    made = hmac.new(f"{seed}/{model}".encode(), content.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    return base64.b64encode(made).decode()


def check_signatures(parts: list[dict], turn: int, seed: int, model: str, draws: bool) -> None:
    """A model's turn as the client sends it back. Needed on the first part that is no thought and on each picture."""
    first = True
    for place, part in enumerate(parts):
        if part.get("thought"):
            continue
        blob = part.get("inline_data")
        given = part.get("thought_signature")
        where = f"content position {turn}, part position {place}"
        if given is None and draws and (first or blob):
            kind = "Image" if blob else "Text"
            text = f"{kind} part is missing a thought_signature in {where}. Please refer to the docs for more details."
            raise refuse(text)
        if given is not None:
            content = blob["data"].translate({45: 43, 95: 47}) if blob else part.get("text", "")
            # Clients send bytes in either alphabet, so what is compared is the bytes.
            if unbase64(given, where) != base64.b64decode(sign(seed, model, content)):
                raise refuse(f"Corrupted thought signature in {where}.")
        first = False
