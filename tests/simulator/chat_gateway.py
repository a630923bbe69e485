"""What gateways do to OpenAI's chat: answers as a stream, and pictures in the answer of a chat, in the forms that there
are. Such a gateway has no images endpoints."""

from __future__ import annotations

import base64
import json

from tests.simulator import drawing
from tests.simulator.http import Answer
from tests.simulator.records import About, Call

FORMS = ("markdown", "link", "url", "images", "parts", "base64", "words")
"""Markdown with the data, with an address, a bare address, beside the text, as parts of the content, nothing but the
data, and no picture at all."""
SIDE = 96
PIECE = 50_000
"""Characters of a stream's event."""


def message(call: Call, about: About) -> dict:
    """The message of an answer that draws."""
    prompt = call.texts[-1] if call.texts else ""
    size = call.inputs[0].size if call.inputs else (SIDE, SIDE)
    packed = drawing.encode(drawing.paint(prompt, size, call.inputs), "png")
    data = f"data:image/png;base64,{base64.b64encode(packed).decode()}"
    said = {"role": "assistant", "content": "Here it is.", "refusal": None}
    form = about.draws
    if form == "markdown":
        said["content"] = f"Here it is:\n\n![made]({data})\n"
    elif form == "link":
        address = about.put(packed)
        said["content"] = f"![made]({address})\n\n[download]({address}) at http://127.0.0.1:9/advertisement"
    elif form == "url":
        said["content"] = f"It is at {about.put(packed)}."
    elif form == "images":
        said["images"] = [{"type": "image_url", "image_url": {"url": data}}]
    elif form == "parts":
        picture = {"type": "image_url", "image_url": {"url": data}}
        said["content"] = [{"type": "text", "text": "Here it is."}, picture]
    elif form == "base64":
        said["content"] = data.partition(",")[2]
    return said


def stream(body: dict, include_usage: bool) -> Answer:
    """A whole answer in the events of a stream."""
    (choice,) = body["choices"]
    said = choice["message"]
    pieces: list[dict] = [{"role": "assistant", "content": ""}]
    if isinstance(said["content"], str):
        pieces += [{"content": said["content"][at : at + PIECE]} for at in range(0, len(said["content"]), PIECE)]
    elif said["content"]:
        pieces.append({"content": said["content"]})
    pieces += [{name: said[name]} for name in ("images", "refusal") if said.get(name)]
    about = {name: body[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    events = [about | {"choices": [{"index": 0, "delta": piece, "finish_reason": None}]} for piece in pieces]
    events.append(about | {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    if include_usage:
        events.append(about | {"choices": [], "usage": body["usage"]})
    lines = [": processing", *(f"data: {json.dumps(event)}" for event in events), "data: [DONE]"]
    return Answer(200, "".join(f"{line}\n\n" for line in lines).encode(), {"content-type": "text/event-stream"})
