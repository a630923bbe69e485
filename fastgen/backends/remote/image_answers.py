"""Answers of images endpoints in the form of OpenAI's: gateways have the images in other fields, in a stream of events,
or as the body itself. Does not decode images, and fetches none.
"""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from typing import Any

import msgspec

from fastgen.backends.remote.http_client import Answer
from fastgen.input import embedded_pictures

_LISTS = ("data", "images", "output", "results", "artifacts", "predictions", "image")
"""Fields with the images of an answer."""
_PACKED = ("b64_json", "b64_image", "base64", "image_base64", "bytesBase64Encoded", "b64")
_PLACES = ("url", "image_url", "image")
_JSON = "application/json"


def in_usual_form(answer: Answer) -> Answer:
    """The answer as `{"data": [{"b64_json" or "url"}]}` if its images are elsewhere, else as it is."""
    if answer.status >= 300:
        return answer
    if embedded_pictures.kind(answer.data[:32]):
        return _with(answer, {"data": [{"b64_json": base64.b64encode(answer.data).decode()}]})
    if answer.data[:16].lstrip().startswith((b"data:", b"event:", b":")):
        return _of_events(answer)
    try:
        fields = msgspec.json.decode(answer.data, type=dict[str, msgspec.Raw])
        if _is_usual(bytes(fields.get("data", b""))):
            return answer
        body = msgspec.json.decode(answer.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return answer
    found = _images(body)
    return _with(answer, body | {"data": found}) if found else answer


def _is_usual(data: bytes) -> bool:
    return re.match(rb'\s*\[\s*\{\s*"(b64_json|url|revised_prompt)"\s*:\s*["n]', data[:200]) is not None


def _of_events(answer: Answer) -> Answer:
    """The finished images of a stream; drafts come before them."""
    found, usage = list[dict[str, Any]](), None
    for line in answer.data.split(b"\n"):
        if not line.startswith(b"data:"):
            continue
        try:
            event = msgspec.json.decode(line[5:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(event, dict) and "partial" not in str(event.get("type", "")):
            found += _images(event) or [one for one in [_image(event)] if one]
            usage = event.get("usage") or usage
    return _with(answer, {"data": found, "usage": usage}) if found else answer


def _images(body: Any) -> list[dict[str, Any]]:
    for name in _LISTS:
        value = body.get(name) if isinstance(body, dict) else None
        if isinstance(value, dict):
            value = _images(value) or [value]
        found = [_image(one) for one in (value if isinstance(value, list) else [value])]
        if found and all(found):
            return [one for one in found if one]
    return []


def _image(item: Any) -> dict[str, Any] | None:
    """An image of an answer in the usual form; None if it is none."""
    if isinstance(item, str) and item:
        try:
            is_packed = not item.startswith("data:") and embedded_pictures.in_text(item) is not None
        except ValueError:
            is_packed = False
        is_address = item.startswith(("data:", "http:", "https:")) or re.fullmatch(r"[\w%-]*[/.][\w./%-]{1,2000}", item)
        return {"b64_json": item} if is_packed else {"url": item} if is_address else None
    if not isinstance(item, dict):
        return None
    for name in _PACKED:
        if isinstance(item.get(name), str) and item[name]:
            return {"b64_json": item[name]}
    for name in _PLACES:
        place = item.get(name)
        place = place.get("url") if isinstance(place, dict) else place
        if isinstance(place, str) and (found := _image(place)):
            return found
    return None


def _with(answer: Answer, body: dict[str, Any]) -> Answer:
    headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-type"}
    return replace(answer, headers={**headers, "content-type": _JSON}, data=msgspec.json.encode(body))
