"""OpenAI's Batch API: a file of requests with the purpose "batch", a batch of that file, a file of results and one of
errors. Knows the SDK; nothing of rows, states or retries.

Source: types of openai 3.52 (50,000 requests and 200 MB per file; chat completions, image generations and edits among
the endpoints); developers.openai.com/api/docs/guides/batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from fastgen import providers
from fastgen.backends.remote import responses
from fastgen.backends.remote.batch_api.files import CALL_S, NO_API, TRANSFER_S, download, not_done, on_one_line
from fastgen.backends.remote.batch_api.service import Look
from fastgen.backends.remote.faults import Fault
from fastgen.backends.remote.http_client import Client
from fastgen.backends.remote.openai_answers import provider_error
from fastgen.backends.remote.responses import ProviderError
from fastgen.backends.remote.sdk_transport import over
from fastgen.config.settings import Settings
from fastgen.errors import ModelError
from fastgen.output.parcels import Answer, Parcel
from fastgen.types import warm

VENDOR = "https://api.openai.com/v1"
PATHS = ("/chat/completions", "/images/generations", "/images/edits")
NAME = "fastgen"
"""The key of our name in a batch's metadata."""
UNDER_WAY = ("validating", "in_progress", "finalizing", "cancelling")
FULL = ("token_limit_exceeded", "rate_limit_exceeded", "batch_limit_exceeded")
"""Codes of a batch that was not begun because too much waits already."""


class _Response(msgspec.Struct):
    status_code: int = 0
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: _Error | None = None


warm(_Line)
_line = msgspec.json.Decoder(_Line).decode


class OpenAIBatches:
    most_requests = 50_000
    most_bytes = 190_000_000
    """Below 200 MB, however a megabyte is counted."""

    def __init__(self, settings: Settings):
        endpoint = settings.endpoint
        self._key = providers.key_of(endpoint.key_name, needed=bool(endpoint.key_name))
        self._clean: Callable[[object], str] = partial(responses.clean, key=self._key)
        self._http, self._slow = (Client(endpoint.base_url or VENDOR, limit_s, 2) for limit_s in (CALL_S, TRANSFER_S))
        self._client: Any = None
        self._uploads: Any = None

    def open(self) -> None:
        import openai

        self._client, self._uploads = (
            openai.OpenAI(
                api_key=self._key or "none",
                base_url=http.base_url,
                max_retries=0,
                timeout=http.timeout_s,
                http_client=over(http, looks_into=False),
            )
            for http in (self._http, self._slow)
        )
        try:
            self._client.batches.list(limit=1)
        except openai.APIStatusError as error:
            if error.status_code in NO_API:
                raise ModelError(
                    f"--batch-api: {self._http.base_url} has no Batch API (/batches answers {error.status_code}); "
                    "leave --batch-api out"
                ) from None
        except (openai.OpenAIError, Fault, ValueError):
            pass  # what else is wrong shows with the first batch

    def path_of(self, url: str) -> str:
        path = url.partition("?")[0].removeprefix(self._http.base_url)
        return path if path in PATHS else ""

    def line(self, key: str, path: str, body: bytes) -> bytes:
        words = key.encode(), path.encode(), on_one_line(body)
        return b'{"custom_id":"%s","method":"POST","url":"/v1%s","body":%s}' % words

    def upload(self, parcel: Parcel, file: Path) -> str:
        with self._faults(), file.open("rb") as data:
            return self._uploads.files.create(file=(f"{parcel.name}.jsonl", data), purpose="batch").id

    def submit(self, parcel: Parcel) -> str:
        with self._faults():
            made = self._client.batches.create(
                input_file_id=parcel.file,
                endpoint=f"/v1{parcel.endpoint}",
                completion_window="24h",
                metadata={NAME: parcel.name},
            )
            return made.id

    def find(self, parcel: Parcel) -> str:
        with self._faults():
            for batch in self._client.batches.list(limit=100):
                if (batch.metadata or {}).get(NAME) == parcel.name and batch.status != "failed":
                    return batch.id
        return ""

    def look(self, parcel: Parcel) -> Look:
        with self._faults():
            batch = self._client.batches.retrieve(parcel.id)
        counts = batch.request_counts
        done, failed = (counts.completed, counts.failed) if counts else (0, 0)
        if batch.status in UNDER_WAY:
            return Look(done=done, failed=failed)
        files = tuple(file for file in (batch.output_file_id, batch.error_file_id) if file)
        if batch.status == "failed":
            errors = (batch.errors.data if batch.errors else None) or []
            code, message = (errors[0].code or "", errors[0].message or "") if errors else ("", "the batch failed")
            if code in FULL:
                return Look(is_full=True, otherwise=("rate_limited", f"{code}: {self._clean(message)}"))
            found = responses.of_status(400, code, self._clean(message))
            return Look(True, files=files, otherwise=(found.kind, f"the service refuses the batch: {found}"))
        said = not_done(batch.status)
        return Look(True, done=done, failed=failed, files=files, otherwise=("unavailable", said))

    def fetch(self, file: str, to: Path) -> None:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        with self._faults():
            download(self._slow, f"{self._http.base_url}/files/{file}/content", headers, to, self._clean)

    def read(self, line: bytes) -> Answer | None:
        try:
            found = _line(line)
        except msgspec.DecodeError:
            return None
        if found.response is not None and found.response.status_code:
            return Answer(found.custom_id, found.response.status_code, found.response.body)
        error = found.error or _Error()
        return Answer(found.custom_id, kind="unavailable", why=self._clean(f"{error.code}: {error.message}"))

    def close(self) -> None:
        self._http.close()
        self._slow.close()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        import openai

        try:
            yield
        except (openai.OpenAIError, Fault, ValueError) as error:
            raise provider_error(error, self._clean, 0.0) from None
        except AttributeError as error:  # the SDK gives a web page as it is
            raise ProviderError("malformed", f"the answer cannot be read: {self._clean(error)}") from None
