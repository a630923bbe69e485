"""The services that pipelines name: DataFlow-MM's words for their formats, and what each means to fastgen."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

GOOGLE = "generativelanguage.googleapis.com"


class ApiFormat(NamedTuple):
    """A format of requests. Its name is a backend's of fastgen and, for images, an `api_format` of the pipeline's."""

    name: str
    key: str
    """The variable in which fastgen looks first for the key."""
    address: str = ""
    """The vendor's own, in fastgen's form."""
    has_version: bool = True
    """Whether the version is part of the address."""
    keeps_turns: bool = False
    """Whether every turn of an edit gives an image."""
    varies: tuple[str, ...] = ()
    """How the names of models begin that make variations."""


OPENAI = ApiFormat("openai", "OPENAI_API_KEY", "https://api.openai.com/v1", varies=("dall-e-2",))
GEMINI = ApiFormat("gemini", "GEMINI_API_KEY", f"https://{GOOGLE}", has_version=False, keeps_turns=True)
VLLM = ApiFormat("vllm", "VLLM_API_KEY")
FORMATS = {one.name: one for one in (OPENAI, GEMINI)}
KEYS = {one.name: one.key for one in (OPENAI, GEMINI, VLLM)}


def endpoint_of(url: str | None, format: ApiFormat) -> str:
    """The address in fastgen's form: OpenAI's with its version, Gemini's without."""
    if not url:
        return format.address
    parts = urlsplit(url)
    path = re.sub(r"/(chat/completions|images/\w+)/?$", "", parts.path).rstrip("/")
    if format.has_version and not re.search(r"/v\d+\w*$", path):
        path += "/v1"
    return parts._replace(path=path).geturl()
