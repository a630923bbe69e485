"""Images from a service in OpenAI's or Gemini's format. Knows its address and key, but nothing about requests."""

from __future__ import annotations

import os
from typing import Any, ClassVar
from urllib.parse import urlsplit

from fastgen.dataflow import get_logger
from fastgen.dataflow.io import ImageIO
from fastgen.dataflow.services import FORMATS, GOOGLE, OPENAI, endpoint_of
from fastgen.dataflow.serving.pictures import PictureServing

RENAMED = {
    "gemini-3-pro-image-preview": "gemini-3-pro-image",
    "gemini-3.1-flash-image-preview": "gemini-3.1-flash-image",
}
"""Models that Google's own service no longer has (since 2026-06-25)."""


class APIImageGenServing(PictureServing):
    """Text to image, or edits.

    Args:
        api_url: with or without the version at its end; "" or None: the vendor's own address.
        api_key: None: DF_API_KEY. It appears in no file, message or log.
        batch_size: requests that are under way at the same time, at most: so many pictures a kill can cost. A larger
            one is faster; more than the service takes are held back.
        connect_timeout: accepted.
        timeout: seconds for one request.
        stream: where pictures come out of chats, because the address has no images endpoints: ask for streams.
        strict: raise an error if inputs failed, after all others are done.
        progress: show how far a call is, on stderr or in a notebook.
        flags: of `fastgen.resolve`, such as max_cost=5.0, max_inflight=8 or fallback="gemini".

    Raises:
        ValueError: no key.
    """

    parameters: ClassVar = {"model": "model_name", "base-url": "api_url", "max-inflight": "batch_size"}

    def __init__(
        self,
        api_url: str | None,
        image_io: ImageIO,
        Image_gen_task: str = "text2image",
        batch_size: int = 4,
        timeout: int = 300,
        connect_timeout: int = 30,
        api_format: str = OPENAI.name,
        api_key: str | None = None,
        model_name: str = "dall-e-3",
        *,
        stream: bool = False,
        strict: bool = False,
        progress: bool = True,
        **flags: Any,
    ):
        if api_format not in FORMATS:
            raise ValueError(f"api_format {api_format!r}: one of {', '.join(FORMATS)}")
        key = api_key or os.environ.get("DF_API_KEY", "")
        if not key:
            raise ValueError("API key is required: give api_key, or set the environment variable DF_API_KEY")
        format = FORMATS[api_format]
        url = endpoint_of(api_url, format)
        if urlsplit(url).hostname == GOOGLE and model_name in RENAMED:
            get_logger().warning(
                "%s is not available since 2026-06-25; %s is used instead", model_name, RENAMED[model_name]
            )
            model_name = RENAMED[model_name]
        super().__init__(
            image_io,
            Image_gen_task,
            key=key,
            stream=stream,
            keeps_turns=format.keeps_turns,
            has_variations=bool(format.varies) and model_name.startswith(format.varies),
            strict=strict,
            progress=progress,
            backend=api_format,
            base_url=url,
            model=model_name,
            timeout=timeout,
            **{"max_inflight": batch_size, **flags},
        )
