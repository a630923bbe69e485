"""Remembers encoded prompts, each distinct one encoded once. Does not know how a family encodes them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from PIL import Image

from fastgen.backends.diffusion.family import Family
from fastgen.opt.offload import onload

CHUNK = 16
"""Prompts that go through the text encoders together."""


class PromptEncoder:
    """Encodes prompts and remembers the most recent ones, up to `memory` bytes: on the device, or in main memory if the
    text encoders come and go, because then the results of many prompts wait for their turn."""

    def __init__(self, family: Family, memory: int = 1 << 30):
        self.family = family
        self.memory = memory
        self._known: OrderedDict[str, Any] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        """Tokenizers are not thread-safe, and no prompt should be encoded twice."""

    def encode(self, prompts: list[str]) -> list[Any]:
        """One `Prompt` of the family per text, in order. Thread-safe."""
        with self._lock:
            return self._encode(prompts)

    def encode_seen(self, prompts: list[tuple[str, tuple[Image.Image, ...]]]) -> list[Any]:
        """One `Prompt` of the family per text with its images, in order. They are not remembered, because images are
        rarely the same. Thread-safe."""
        with self._lock, onload(self.family.modules, *self.family.text_parts):
            return self.family.encode_seen(prompts)

    def _encode(self, prompts: list[str]) -> list[Any]:
        found: dict[str, Any] = {}
        for prompt in prompts:
            if prompt in self._known:
                self._known.move_to_end(prompt)
                found[prompt] = self._known[prompt]
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in found]
        with onload(self.family.modules, *(self.family.text_parts if new else ())):
            for start in range(0, len(new), CHUNK):
                chunk = new[start : start + CHUNK]
                for prompt, encoded in zip(chunk, self.family.encode_prompts(chunk), strict=True):
                    found[prompt] = self._known[prompt] = encoded
                    self._bytes += encoded.nbytes
        while self._bytes > self.memory and len(self._known) > 1:
            _, oldest = self._known.popitem(last=False)
            self._bytes -= oldest.nbytes
        return [found[prompt] for prompt in prompts]
