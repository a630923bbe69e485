"""Reads one field of a row at a time: checks its type and range, and names it in the error. Does not know ids or
order."""

from __future__ import annotations

import re
from typing import Any

from fastgen.config.backends import OPTIONS
from fastgen.config.checks import check_size, parse_size
from fastgen.config.model_cards import ModelCard
from fastgen.config.settings import IMAGE_FIELDS, PROMPT_FIELDS, SYSTEM_FIELDS, Settings
from fastgen.errors import InputError, quoted
from fastgen.input import images

MAX_PROMPT_CHARACTERS = 32_000
MAX_TURNS = 64
MAX_IMAGES = 16
ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "developer": "system",
}
"""The role names of chat models, and what they are called here."""
_NO_COLUMNS = ("id", "fastgen", *PROMPT_FIELDS)
MARK = "<image>"
"""Marks the place of an image in a text."""


def read_prompts(fields: dict, task: str) -> tuple[str, ...]:
    """The user's turns: from `prompt`, else `conversations` (role, content), else `conversation` (from, value). For an
    edit without the marks of images."""
    for name in PROMPT_FIELDS:
        value = fields.get(name)
        if not _has_turns(fields, name):
            continue
        if name == "prompt":
            turns = [read_text(value, name)]
        else:
            turns = [_words(content, name) for role, content in _turns(value, name) if ROLES.get(role) == "user"]
        if task == "edit":
            turns = [_without_marks(turn) for turn in turns]
        prompts = tuple(turn for turn in turns if turn.strip())
        if not prompts:
            raise InputError("it has no text from the user; write what is wanted", name)
        if len(prompts) > MAX_TURNS:
            raise InputError(f"{len(prompts)} user turns; the most is {MAX_TURNS}, so leave some out", name)
        for prompt in prompts:
            if len(prompt) > MAX_PROMPT_CHARACTERS:
                raise InputError(
                    f"the prompt has {len(prompt):,} characters; the most is {MAX_PROMPT_CHARACTERS:,}. Shorten it",
                    name,
                )
        return prompts
    there = _others(fields, "--prompt-key")
    raise InputError(f"no prompt: give `prompt`, `conversations` or `conversation`{there}", "prompt")


def _others(fields: dict, flag: str) -> str:
    """Which columns the row has, one of which may be meant, and the flag that says so."""
    there = ", ".join(f"`{quoted(name)}`" for name in list(fields)[:8] if name not in _NO_COLUMNS)
    return f"; the row has {there}, and {flag} says which one to use" if there else ""


def _without_marks(text: str) -> str:
    """The text without `<image>` marks and the line break next to each."""
    return re.sub(rf"{MARK}[ \t]*\n?|[ \t]*\n?{MARK}\s*$", "", text) if MARK in text else text


def read_dialogue(fields: dict, pictures: int, default: str) -> tuple[tuple[str, str], ...]:
    """A caption's turns as (role, text), up to the last user turn: from `prompt`, `conversation` or `conversations`;
    `default` if the row has none. There are as many `<image>` marks as images, or none."""
    turns: list[tuple[str, str]] = []
    name = next((name for name in PROMPT_FIELDS if _has_turns(fields, name)), "prompt")
    if name == "prompt":
        if text := fields.get("prompt"):
            turns = [("user", read_text(text, name))]
    else:
        for role, content in _turns(fields[name], name):
            if role not in ROLES:
                raise InputError(f"a turn's role is one of {', '.join(ROLES)}, not '{quoted(role)}'", name)
            turns.append((ROLES[role], _words(content, name, MARK)))
    if not any(role == "system" for role, _ in turns):
        told = next(
            (field for field in SYSTEM_FIELDS if isinstance(fields.get(field), str) and fields[field].strip()), ""
        )
        turns = [("system", read_text(fields[told], told)), *turns] if told else turns
    asks = any(role == "user" for role, _ in turns)
    if not asks:
        turns = [turn for turn in turns if turn[0] == "system"] + [("user", default)]
    while turns[-1][0] != "user":  # an answer that the row already has is not asked for again
        turns.pop()
    if len(turns) > MAX_TURNS:
        raise InputError(f"{len(turns)} turns; the most is {MAX_TURNS}, so leave some out", name)
    for _, text in turns:
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise InputError(
                f"a turn has {len(text):,} characters; the most is {MAX_PROMPT_CHARACTERS:,}. Shorten it", name
            )
    words = [text.replace(MARK, "").strip() for _, text in turns]
    if asks and not words[-1]:
        turns[-1] = ("user", (turns[-1][1] + default) if MARK in turns[-1][1] else default)
    marks = sum(text.count(MARK) for _, text in turns)
    if marks and marks != pictures:
        raise InputError(f"{marks} {MARK} marks for {pictures} images; give one mark per image, or none", name)
    return tuple(turns)


def _has_turns(fields: dict, name: str) -> bool:
    """Whether the row's text is in that field. `messages` of another form are the user's own."""
    value = fields.get(name)
    if name != "messages":
        return value not in (None, "", [])
    return isinstance(value, list) and any(
        isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value
    )


def images_in(fields: dict) -> list[object]:
    """The images in the parts of the user's turns, as in OpenAI's format, Qwen-VL's or Anthropic's."""
    found: list[object] = []
    for name in filter(lambda name: name != "prompt" and _has_turns(fields, name), PROMPT_FIELDS):
        for turn in fields[name] if isinstance(fields[name], list) else ():
            content = _content(turn) if isinstance(turn, dict) else None
            for part in content if isinstance(content, list) else ():
                found += [place] if isinstance(part, dict) and (place := _place(part)) else []
        break
    return found


def _place(part: dict) -> object:
    """Where the image of a part is; None if it has none."""
    place = part.get("image_url", part.get("image")) or part.get("source")
    if isinstance(place, dict) and isinstance(data := place.get("data"), str):
        return f"data:{place.get('media_type', 'image/png')};base64,{data}"
    return place["url"] if isinstance(place, dict) and "url" in place else place


def _is_image(part: dict) -> bool:
    return part.get("type") in ("image", "image_url", "input_image") or bool(part.get("image") or part.get("image_url"))


def _content(turn: dict) -> object:
    return next((turn[name] for name in ("content", "value", "parts") if name in turn), None)


def _turns(value: object, name: str) -> list[tuple[str, object]]:
    """(role, content) of every turn, as in the row except that roles are lower-case."""
    shape = '[{"role": "user", "content": "..."}]' if name == "conversations" else '[{"from": "human", "value": "..."}]'
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise InputError(f"must be a list of turns: {shape}", name)
    turns = []
    for turn in value:
        role = turn.get("role", turn.get("from", "user"))
        if not isinstance(role, str):
            raise InputError(f"a turn's role must be a string: {shape}", name)
        turns.append((role.lower(), _content(turn)))
    return turns


def _words(content: object, name: str, mark: str = "") -> str:
    """The text of a turn, which may be a list of parts as in OpenAI's format; `mark` replaces a part that is an
    image."""
    if isinstance(content, list):
        parts = [mark if _is_image(part) else part.get("text") for part in content if isinstance(part, dict)]
        content = "\n".join(part for part in parts if isinstance(part, str) and part)
    return read_text(content, name) if content is not None else ""


def read_size(fields: dict, settings: Settings) -> tuple[int, int] | None:
    """(width, height) that the row asks for, from `size` or from `width` and `height`; None if it sets neither."""
    size, width, height = fields.get("size"), fields.get("width"), fields.get("height")
    name = "size" if size is not None else "width"
    try:
        if size == "auto" and settings.backend.is_remote:
            return None
        if size is not None:
            if isinstance(size, str) and len(size) < 40:
                wanted = parse_size(size)
            elif isinstance(size, list) and len(size) == 2 and None not in size:
                wanted = (
                    read_whole({"size": size[0]}, "size", 0, 1, 10**9),
                    read_whole({"size": size[1]}, "size", 0, 1, 10**9),
                )
            else:
                raise ValueError('write it as "1024x768", width first')
            if (width is not None and width != wanted[0]) or (height is not None and height != wanted[1]):
                raise ValueError("it contradicts `width` and `height`; give only one of them")
        elif width is not None or height is not None:
            if width is None or height is None:
                name = "height" if height is None else "width"
                raise ValueError("`width` and `height` must be given together")
            wanted = (read_whole(fields, "width", 0, 1, 10**9), read_whole(fields, "height", 0, 1, 10**9))
        else:
            return None
        if not settings.backend.is_remote:  # what an API accepts is in the data of its provider
            check_size(*wanted, settings.model)
    except ValueError as error:
        raise InputError(str(error), name) from None
    return wanted


def read_api_options(fields: dict) -> dict[str, str]:
    """The options of the row that only APIs understand."""
    api_options: dict[str, str] = {}
    for name in OPTIONS:
        if fields.get(name) not in (None, ""):
            api_options[name] = word = read_text(fields[name], name).strip()
            if len(word) > 100:
                raise InputError(f"{quoted(word)}: no service has such a long option; shorten it", name)
    return api_options


def read_contrast(fields: dict, card: ModelCard) -> dict[str, Any]:
    """`negative_prompt` and `true_cfg_scale` of the row, those that it sets. Refuses them where the model has no true
    classifier-free guidance."""
    found: dict[str, Any] = {}
    if fields.get("negative_prompt") is not None:
        found["negative_prompt"] = text = read_text(fields["negative_prompt"], "negative_prompt")
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise InputError(
                f"it has {len(text):,} characters; the most is {MAX_PROMPT_CHARACTERS:,}. Shorten it", "negative_prompt"
            )
    if fields.get("true_cfg_scale") is not None:
        found["true_cfg_scale"] = read_real(fields, "true_cfg_scale", 1.0)
    if found and not card.defaults.true_cfg:
        name = next(iter(found))
        raise InputError(
            f"{card.name} has no true classifier-free guidance, because it is distilled; remove `{name}`, or use a "
            "base model",
            name,
        )
    return found


def read_images(fields: dict, root: str | images.Places, task: str) -> tuple[str, tuple[str, ...]]:
    """The field, `images` or `image`, and the absolute paths of the row's images. It may be a path or a list of
    paths, and each may be anything that `Places.locate` takes."""
    name = next((name for name in IMAGE_FIELDS if fields.get(name) not in (None, "", [])), None)
    found = [] if name else images_in(fields)
    if found:
        name = next(one for one in PROMPT_FIELDS if one != "prompt" and _has_turns(fields, one))
    if name is None:
        others = _others({name: value for name, value in fields.items() if name not in IMAGE_FIELDS}, "--image-key")
        raise InputError(
            f"no image to {task}: give a path, or a list of paths, in `images` or `image`{others}", "images"
        )
    value = found or fields[name]
    paths = value if isinstance(value, list) else [value]
    if len(paths) > MAX_IMAGES:
        raise InputError(f"{len(paths)} images; the most is {MAX_IMAGES}, so leave some out", name)
    places = images.Places(root) if isinstance(root, str) else root
    return name, tuple(places.locate(path if isinstance(path, dict) else read_text(path, name), name) for path in paths)


def read_text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"must be a string, not {type_name(value)}", field)
    if not is_unicode(value):
        if any("\udc80" <= character <= "\udcff" for character in value):  # Python's form of bytes that are not UTF-8
            raise InputError(f"{quoted(value)} is not UTF-8; rename the file", field)
        raise InputError("contains half of a character (a lone surrogate such as \\ud83d); fix the text", field)
    return value


def is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_flag(fields: dict, name: str) -> bool:
    """Whether the field is true; any other value under that name is the user's own."""
    return fields.get(name) is True


def read_whole(fields: dict, name: str, default: int, least: int, most: int) -> int:
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"must be a whole number, not {type_name(value)}", name)
    if not least <= value <= most:
        raise InputError(f"{quoted(value)} is out of range: from {least} to {most}", name)
    return value


def read_real(fields: dict, name: str, default: float) -> float:
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"must be a number, not {type_name(value)}", name)
    if not 0 <= value <= 100:  # NaN gives False here
        raise InputError(f"{quoted(value)} is out of range: from 0 to 100", name)
    return float(value)


def type_name(value: object) -> str:
    """The type of a value in the words of JSON, for a message; of a number, the number."""
    names = {bool: "true or false", str: "a string", list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value)) or quoted(value)
