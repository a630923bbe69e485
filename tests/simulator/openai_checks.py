"""What an OpenAI-format request must be: the vendor's own types, the ranges its documentation adds, and its
refusals."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Any

from openai.types import image_edit_params, image_generate_params
from openai.types.chat import completion_create_params
from PIL import Image
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from tests.simulator.drawing import load
from tests.simulator.http import Answer, Refused

_STRICT = with_config(ConfigDict(extra="forbid", arbitrary_types_allowed=True))


def strict(kind: type) -> TypeAdapter:
    """Refuses what the SDK's type does not have."""
    return TypeAdapter(_STRICT(kind))


GENERATE = TypeAdapter(_STRICT(image_generate_params.ImageGenerateParamsNonStreaming))
EDIT = TypeAdapter(_STRICT(image_edit_params.ImageEditParamsNonStreaming))
CHAT = TypeAdapter(_STRICT(completion_create_params.CompletionCreateParamsNonStreaming))

FIXED = ("1024x1024", "1536x1024", "1024x1536")
_OLD = {"qualities": ("low", "medium", "high"), "free": False, "fidelity": ("low", "high"), "markup": False}
_MANY = ("low", "medium", "high", "xhigh", "max")
IMAGE_MODELS: dict[str, dict] = {
    "gpt-image-1-mini": {**_OLD, "fidelity": ("low",)},
    "gpt-image-1.5": _OLD,
    "chatgpt-image-latest": _OLD,
    "gpt-image-2": {**_OLD, "free": True, "fidelity": ()},
    "gpt-image-2.5": {"qualities": _MANY, "free": True, "fidelity": (), "markup": True},
    "gpt-image-2.6": {"qualities": _MANY, "free": True, "fidelity": (), "markup": True},
}
_IDS = re.compile(r"(gpt-image-1-mini|gpt-image-1\.5|chatgpt-image-latest)$|(gpt-image-2)(-2026-04-21)?$")
_NEW = re.compile(r"(gpt-image-2\.5)-(sunburst|flare)(-2026-09-08)?$|(gpt-image-2\.6)-(sunburst|flare)$")
CHAT_IDS = re.compile(r"(gpt-4o|gpt-4\.1|gpt-5|gpt-5\.\d|gpt-6|o3|o4)(-(mini|nano|luna|pro))?(-\d{4}-\d\d-\d\d)?$")
MIMES = ("image/jpeg", "image/png", "image/webp")
# SVG and GIF output need access that this account does not have.
FORMATS = ("png", "webp", "jpeg")


def error(
    status: int, message: str, code: str | None = None, param: str | None = None, type: str = "invalid_request_error"
) -> Answer:
    body = {"error": {"message": message, "type": type, "param": param, "code": code}}
    return Answer(status, json.dumps(body).encode(), early=True)


def refuse(message: str, code: str | None = None, param: str | None = None, status: int = 400) -> Refused:
    return Refused(error(status, message, code, param))


def no_model(model: object) -> Refused:
    return refuse(f"The model `{model}` does not exist or you do not have access to it.", "model_not_found", None, 404)


def drain(value: Any) -> Any:
    """pydantic checks an Iterable only when it is walked: this walks all of it."""
    if isinstance(value, dict):
        return {key: drain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)) or (isinstance(value, Iterator) and not isinstance(value, str)):
        return [drain(part) for part in value]
    return value


def telling(errors: list[dict]) -> dict:
    """Of a union's errors those of the member that was meant: the one whose "type" and "role" are right."""

    def member(error: dict) -> str:
        return next((str(step) for step in error["loc"] if str(step)[:1].isupper()), "")

    others = {member(one) for one in errors if one["type"] == "literal_error" and one["loc"][-1] in ("type", "role")}
    return next((one for one in errors if member(one) not in others), errors[0])


def check_type(adapter: TypeAdapter, values: dict) -> None:
    try:
        drain(adapter.validate_python(values))
    except ValidationError as broken:
        first = telling(broken.errors())
        param = ".".join(str(step) for step in first["loc"] if not str(step)[:1].isupper())
        if first["type"] == "extra_forbidden":
            raise refuse(f"Unknown parameter: '{param}'.", "unknown_parameter", param) from None
        if first["type"] == "missing":
            raise refuse(f"Missing required parameter: '{param}'.", "missing_required_parameter", param) from None
        if first["type"] == "literal_error":
            supported = first["ctx"]["expected"]
            text = f"Invalid value: '{first['input']}'. Supported values are: {supported}."
            raise refuse(text, "invalid_value", param) from None
        raise refuse(f"Invalid type for '{param}': {first['msg']}.", "invalid_type", param) from None


def in_range(values: dict, name: str, low: int, high: int) -> None:
    value = values.get(name)
    if value is None:
        return
    if isinstance(value, bool) or value < low:
        text = f"Invalid '{name}': integer below minimum value. Expected a value >= {low}, but got {value} instead."
        raise refuse(text, "integer_below_min_value", name)
    if value > high:
        text = f"Invalid '{name}': integer above maximum value. Expected a value <= {high}, but got {value} instead."
        raise refuse(text, "integer_above_max_value", name)


def image_model(values: dict, further: frozenset[str]) -> dict:
    model = values.get("model")
    found = _IDS.match(model or "") or _NEW.match(model or "")
    if found is None and model in further:
        return {"qualities": _MANY, "free": True, "fidelity": ("low", "high"), "markup": True}
    if found is None:
        raise no_model(model)
    return IMAGE_MODELS[next(group for group in found.groups() if group)]


def check_image_values(values: dict, able: dict) -> tuple[int, int] | None:
    """What the vendor's types let through and the service does not. Returns the size, None for auto."""
    for dead in ("response_format", "style"):
        if dead in values:
            raise refuse(f"Unknown parameter: '{dead}'.", "unknown_parameter", dead)
    prompt = values["prompt"]
    if not prompt:
        raise refuse("Invalid 'prompt': empty string.", "empty_string", "prompt")
    if len(prompt) > 32000:
        text = "Invalid 'prompt': string too long. Expected a string with maximum length 32000, but got a string with "
        raise refuse(f"{text}length {len(prompt)} instead.", "string_above_max_length", "prompt")
    in_range(values, "n", 1, 10)
    in_range(values, "output_compression", 0, 100)
    form = values.get("output_format") or "png"
    supported = {"quality": (*able["qualities"], "auto"), "output_format": FORMATS, "input_fidelity": able["fidelity"]}
    for name, allowed in supported.items():
        if values.get(name) is not None and values[name] not in allowed:
            if not allowed:
                text = f"The model '{values['model']}' does not support the '{name}' parameter."
                raise refuse(text, f"invalid_{name}_model", name)
            raise refuse(f"Invalid value: '{values[name]}'. Supported values are: {allowed}.", "invalid_value", name)
    if values.get("output_compression") not in (None, 100) and form == "png":
        raise refuse("Compression less than 100 is not supported for PNG output format", None, "output_compression")
    if values.get("background") == "transparent" and form == "jpeg":
        raise refuse("Transparent background is not supported for JPEG output format", None, "background")
    for name in ("partial_images", "frame_count", "frame_duration_ms", "svg"):
        if values.get(name):
            raise refuse(f"'{name}' needs streaming, GIF or SVG output.", "invalid_value", name)
    return check_size(values.get("size") or "auto", able["free"])


def check_size(size: str, free: bool) -> tuple[int, int] | None:
    if size == "auto":
        return None
    found = re.fullmatch(r"([1-9]\d{1,4})x([1-9]\d{1,4})", size)
    if size in FIXED:
        return int(found[1]), int(found[2])
    if not free or not found:
        text = f"Invalid value: '{size}'. Supported values are: {', '.join(map(repr, FIXED))}, and 'auto'."
        raise refuse(text, "invalid_value", "size")
    width, height = int(found[1]), int(found[2])
    why = ""
    if width % 16 or height % 16:
        why = "width and height must both be divisible by 16"
    elif max(width, height) > 3 * min(width, height):
        why = "the aspect ratio must be between 1:3 and 3:1"
    elif max(width, height) > 3840 or not 655_360 <= width * height <= 8_294_400:
        why = "the requested resolution is outside the limits of the model"
    if why:
        raise refuse(f"Invalid size '{size}': {why}.", "invalid_value", "size")
    return width, height


def picture(data: bytes, name: str) -> Image.Image:
    if len(data) >= 50 << 20:
        raise refuse(f"Invalid file '{name}': file is too large, the maximum is 50MB.", "file_too_large", name)
    try:
        made = load(data)
    except ValueError:
        made = None
    if made is None or made.format not in ("PNG", "JPEG", "WEBP"):
        text = f"Invalid image file or mode for '{name}', please check your image file."
        raise refuse(text, "invalid_image_file", name)
    return made


def mask_for(data: bytes, first: Image.Image, name: str = "mask") -> Image.Image:
    if len(data) >= 4 << 20:
        raise refuse(f"Invalid file '{name}': a mask must be less than 4MB.", "file_too_large", name)
    mask = picture(data, name)
    if mask.format != "PNG":
        raise refuse("Invalid mask image format - the mask must be a PNG.", "invalid_mask_image_format", name)
    if mask.mode not in ("RGBA", "LA") and "transparency" not in mask.info:
        text = "Invalid mask image format - mask image missing alpha channel"
        raise refuse(text, "invalid_mask_image_format", name)
    if mask.size != first.size:
        text = "Invalid mask image format - mask size does not match image size"
        raise refuse(text, "invalid_mask_image_format", name)
    return mask


def data_url(url: object, param: str) -> tuple[str, bytes]:
    """(mime, bytes) of a data URL; the simulator fetches nothing."""
    if not isinstance(url, str):
        raise refuse(f"Invalid type for '{param}': expected a string.", "invalid_type", param)
    found = re.match(r"data:(image/[\w.+-]+);base64,", url)
    if not found:
        raise refuse(f"Error while downloading {url[:60]}.", "invalid_image_url", param)
    try:
        return found[1], base64.b64decode(url[found.end() :], validate=True)
    except binascii.Error:
        raise refuse("Invalid base64 image_url.", "invalid_base64", param) from None
