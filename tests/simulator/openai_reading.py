"""Reads OpenAI-format requests: JSON bodies, multipart forms, data URLs; a bad one raises the service's refusal."""

from __future__ import annotations

import re

from PIL import Image

from tests.simulator import openai_checks
from tests.simulator.http import Request
from tests.simulator.openai_checks import refuse
from tests.simulator.records import About, Call, Recorded, Seen

MAX_IMAGES = 16
INTEGERS = ("n", "output_compression", "partial_images", "frame_count", "frame_duration_ms")


def read(request: Request, record: Recorded, about: About) -> Call | None:
    """None: GET /v1/models. Fills the record on the way, so that a refused request is in it too."""
    path = request.path.removeprefix("/v1")
    if request.method == "GET" and path == "/models":
        record.operation = "models"
        return None
    readers = {"/images/generations": generate, "/images/edits": edit, "/images/variations": vary}
    reader = {**readers, "/chat/completions": chat}.get(path)
    if request.method != "POST" or reader is None:
        raise refuse(f"Invalid URL ({request.method} {request.path})", None, None, 404)
    record.operation = reader.__name__
    if about.draws and record.operation != "chat":
        raise refuse(f"Invalid URL ({request.method} {request.path})", None, None, about.no_images)
    return reader(request, record, about)


def as_object(request: Request) -> dict:
    try:
        return request.json()
    except ValueError:
        raise refuse("We could not parse the JSON body of your request.") from None


def remember(record: Recorded, values: dict, without: tuple[str, ...] = ()) -> None:
    record.prompt = str(values.get("prompt", ""))
    record.model = str(values.get("model", ""))
    record.params = {name: value for name, value in values.items() if name not in ("prompt", *without)}


def take(record: Recorded, data: bytes, mime: str, name: str) -> Image.Image:
    """Decodes an input picture and writes it down."""
    made = openai_checks.picture(data, name)
    record.images.append(Seen.of(made, data, mime))
    return made


def generate(request: Request, record: Recorded, about: About) -> Call:
    values = as_object(request)
    remember(record, values)
    openai_checks.check_type(openai_checks.GENERATE, values)
    able = openai_checks.image_model(values, about.models)
    size = openai_checks.check_image_values(values, able)
    return Call("generate", values["model"], values, size=size)


def edit(request: Request, record: Recorded, about: About) -> Call:
    mime = request.headers.get("content-type", "")
    values, files = multipart(request, mime) if mime.startswith("multipart/") else json_edit(as_object(request))
    remember(record, values)
    images = [one for one in files if one[0].startswith("image")]
    masks = {one[0]: one for one in files if one[0] in ("mask", "markup")}
    stand_in = {"image": [b""] * len(images)} if images else {}
    typed = {name: value for name, value in values.items() if name != "moderation"}  # only the JSON type lacks it
    openai_checks.check_type(openai_checks.EDIT, {**typed, **stand_in, **dict.fromkeys(masks, b"")})
    able = openai_checks.image_model(values, about.models)
    size = openai_checks.check_image_values(values, able)
    if len(images) > MAX_IMAGES:
        text = f"Invalid 'image': array too long. Expected an array with maximum length {MAX_IMAGES}, but got "
        raise refuse(f"{text}{len(images)} instead.", "array_above_max_length", "image")
    for name, kind, _ in files:
        if kind not in openai_checks.MIMES:
            text = f"Invalid file '{name}': unsupported mimetype ('{kind}'). Supported file formats are "
            raise refuse(f"{text}'image/jpeg', 'image/png', and 'image/webp'.", "unsupported_file_mimetype", name)
    inputs = [take(record, data, kind, name) for name, kind, data in images]
    call = Call("edit", values["model"], values, inputs, size=size)
    if len(masks) == 2 or ("markup" in masks and not able["markup"]):
        raise refuse("'markup' is not supported here.", "invalid_value", "markup")
    for name, (_, _, data) in masks.items():
        overlay = openai_checks.mask_for(data, call.inputs[0], name)
        if name == "mask":
            call.mask = record.mask = overlay
    return call


def vary(request: Request, record: Recorded, about: About) -> Call:
    """Of one square PNG, by dall-e-2 alone; it has neither usage nor base64 where nobody asks for it."""
    values, files = multipart(request, request.headers.get("content-type", ""))
    remember(record, values)
    if values.get("model", "dall-e-2") != "dall-e-2" or "dall-e-2" not in about.models:
        raise openai_checks.no_model(values.get("model"))
    if unknown := set(values) - {"model", "n", "size", "response_format", "user"}:
        raise refuse(f"Unknown parameter: '{min(unknown)}'.", "unknown_parameter", min(unknown))
    if [name for name, _, _ in files] != ["image"] or files[0][1] != "image/png":
        raise refuse("Invalid type for 'image': expected one PNG.", "invalid_type", "image")
    made = take(record, files[0][2], "image/png", "image")
    if made.width != made.height:
        raise refuse("Uploaded image must be square.", None, "image")
    return Call("edit", "dall-e-2", {**values, "prompt": ""}, [made], size=made.size)


def multipart(request: Request, mime: str) -> tuple[dict, list[tuple[str, str, bytes]]]:
    """(fields, files as (name, mime, bytes)); files of a list are image[0], image[1], ..."""
    found = re.search(r'boundary="?([^";]+)', mime)
    if not found:
        raise refuse("Could not parse multipart form")
    values, files = {}, []
    for part in (b"\r\n" + request.body).split(b"\r\n--" + found[1].encode())[1:-1]:
        head, _, data = part.partition(b"\r\n\r\n")
        name = re.search(rb'[ ;]name="([^"]*)"', head)
        if name is None:
            raise refuse("Could not parse multipart form")
        field_name = name[1].decode()
        if b"filename=" in head:
            kind = re.search(rb"content-type: *([^\r\n;]+)", head, re.IGNORECASE)
            if field_name == "image[]":
                field_name = f"image[{sum(one[0].startswith('image[') for one in files)}]"
            elif any(one[0] == field_name for one in files):
                text = f"Duplicate parameter: '{field_name}'. You provided multiple values for this parameter, whereas "
                raise refuse(f"{text}only one is allowed: use '{field_name}[]=<value>'.", None, field_name)
            files.append((field_name, kind[1].decode() if kind else "application/octet-stream", data))
        elif field_name in INTEGERS:
            try:
                values[field_name] = int(data)
            except ValueError:
                text = f"Invalid type for '{field_name}': expected an integer."
                raise refuse(text, "invalid_type", field_name) from None
        else:
            values[field_name] = data.decode("utf-8", "replace")
    if values.get("stream") == "false":
        values["stream"] = False
    return values, files


def json_edit(values: dict) -> tuple[dict, list[tuple[str, str, bytes]]]:
    images, mask = values.pop("images", None), values.pop("mask", None)
    if not isinstance(images, list) or not images:
        raise refuse("Missing required parameter: 'images'.", "missing_required_parameter", "images")
    entries = [(f"image[{number}]", one) for number, one in enumerate(images)]
    files = []
    for name, one in [*entries, *([("mask", mask)] if mask is not None else [])]:
        if not isinstance(one, dict) or len(one) != 1 or not set(one) <= {"image_url", "file_id"}:
            raise refuse(f"'{name}' needs exactly one of 'image_url' and 'file_id'.", "invalid_value", name)
        if "file_id" in one:
            raise refuse(f"No such File object: {one['file_id']}", None, name, 404)
        if len(str(one["image_url"])) > 20_971_520:
            raise refuse(f"Invalid '{name}': string too long.", "string_above_max_length", name)
        files.append((name, *openai_checks.data_url(one["image_url"], name)))
    return values, files


def chat(request: Request, record: Recorded, about: About) -> Call:
    values = as_object(request)
    remember(record, values, ("messages",))
    stream, options = values.pop("stream", False), values.pop("stream_options", None) or {}
    if about.streams_only and not stream:
        raise refuse("This model only supports stream mode: set 'stream' to true.", None, "stream")
    openai_checks.check_type(openai_checks.CHAT, values)
    model = values["model"]
    if not openai_checks.CHAT_IDS.match(model) and model not in about.models:
        raise openai_checks.no_model(model)
    openai_checks.in_range(values, "n", 1, 128)
    if "max_tokens" in values and re.match(r"gpt-[5-9]|o\d", model):
        text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
        raise refuse(text, "unsupported_parameter", "max_tokens")
    if not values["messages"]:
        raise refuse("Invalid 'messages': empty array.", "empty_array", "messages")
    check_schema(values.get("response_format"))
    call = Call("chat", model, values, stream=bool(stream), include_usage=bool(options.get("include_usage")))
    for number, message in enumerate(values["messages"]):
        content = message.get("content") or []
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        said = []
        for place, part in enumerate(parts):
            name = f"messages[{number}].content[{place}].image_url"
            if part["type"] == "text":
                said.append(part["text"])
            elif part["type"] == "image_url" and message["role"] == "user":
                mime, data = openai_checks.data_url(part["image_url"]["url"], name)
                call.inputs.append(take(record, data, mime, name))
            else:
                raise refuse(f"Invalid content part '{part['type']}'.", "invalid_value", name)
        call.texts += said
        record.texts += said
        if message["role"] == "user":
            record.prompt = "\n".join(said)
    return call


def check_schema(form: dict | None) -> None:
    if not form or form.get("type") != "json_schema":
        return
    spec = form["json_schema"]
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", spec["name"]):
        raise refuse("Invalid 'response_format.json_schema.name'.", "invalid_value", "response_format.json_schema.name")

    def walk(schema, where):
        if isinstance(schema, dict):
            if "properties" in schema and schema.get("type") == "object":
                missing = set(schema["properties"]) - set(schema.get("required", ()))
                if schema.get("additionalProperties") is not False or missing:
                    text = f"Invalid schema for response_format '{spec['name']}': In context={where}, "
                    why = "'additionalProperties' must be false and 'required' must have every key in properties."
                    raise refuse(text + why, None, "response_format")
            for key, part in schema.items():
                walk(part, (*where, key))
        elif isinstance(schema, list):
            for part in schema:
                walk(part, where)

    if spec.get("strict"):
        walk(spec.get("schema", {}), ())
