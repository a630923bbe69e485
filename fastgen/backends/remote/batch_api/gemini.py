"""Gemini's Batch API, by file: an uploaded file of requests, a batch of that file for one model, a file of results.
Knows the SDK; nothing of rows, states or retries.

Source: google-genai 3.4; ai.google.dev/gemini-api/docs/batch-api (2 GB per file; requests in the call itself are
limited to 20 MB, and are not used here). A number of requests is not documented, so OpenAI's is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from fastgen import providers
from fastgen.backends.remote import responses
from fastgen.backends.remote.batch_api.files import CALL_S, NO_API, download, not_done, on_one_line
from fastgen.backends.remote.batch_api.service import Look
from fastgen.backends.remote.faults import Fault
from fastgen.backends.remote.gemini_answers import provider_error
from fastgen.backends.remote.http_client import Client
from fastgen.backends.remote.sdk_transport import over
from fastgen.config.settings import Settings
from fastgen.errors import ModelError
from fastgen.output.parcels import Answer, Parcel
from fastgen.types import warm

VENDOR = "https://generativelanguage.googleapis.com"
VERSIONS = ("", "v1beta")
"""Of the API, in the order in which they are tried; "": the SDK's own."""
MIME = "jsonl"
"""As in the vendor's example."""
UNDER_WAY = ("UNSPECIFIED", "QUEUED", "PENDING", "RUNNING", "CANCELLING", "PAUSED", "UPDATING")
STATUSES = {1: 499, 3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 11: 400, 13: 500, 14: 503, 16: 401}
"""Code of gRPC -> HTTP."""


class _Line(msgspec.Struct):
    key: str
    response: msgspec.Raw = msgspec.Raw(b"")
    error: dict[str, Any] | None = None


warm(_Line)
_line = msgspec.json.Decoder(_Line).decode


class GeminiBatches:
    most_requests = 50_000
    most_bytes = 1_900_000_000

    def __init__(self, settings: Settings):
        endpoint = settings.endpoint
        self._key = providers.key_of(endpoint.key_name, needed=bool(endpoint.key_name))
        self._clean: Callable[[object], str] = partial(responses.clean, key=self._key)
        self._http = Client(endpoint.base_url or VENDOR, CALL_S, 2)
        self._base, self._version = providers.gemini_endpoint(self._http.base_url if endpoint.base_url else "")
        self._client: Any = None

    def open(self) -> None:
        from google.genai import errors

        versions = (self._version,) if self._version else VERSIONS
        for version in versions:
            self._client = self._made(version)
            try:
                self._client.batches.list(config={"page_size": 1})
                return
            except errors.APIError as error:
                if error.code not in NO_API:
                    return  # what else is wrong shows with the first batch
                code = error.code
            except Exception:
                return
        raise ModelError(
            f"--batch-api: {self._http.base_url} has no Batch API (it answers {code}); leave --batch-api out"
        )

    def _made(self, version: str) -> Any:
        from google import genai
        from google.genai import types

        self._version = version
        options = types.HttpOptions(
            base_url=self._base or None,
            api_version=version or None,
            timeout=round(CALL_S * 1000),
            retry_options=types.HttpRetryOptions(attempts=1),
            httpx_client=over(self._http, looks_into=False),
        )
        return genai.Client(api_key=self._key or "none", vertexai=False, http_options=options)

    def path_of(self, url: str) -> str:
        found = re.fullmatch(r".*/(models/[^/:]+):generateContent", url.partition("?")[0])
        return found[1] if found else ""

    def line(self, key: str, path: str, body: bytes) -> bytes:
        return b'{"key":"%s","request":%s}' % (key.encode(), on_one_line(body))

    def upload(self, parcel: Parcel, file: Path) -> str:
        with self._faults():
            made = self._client.files.upload(file=str(file), config={"display_name": parcel.name, "mime_type": MIME})
            return made.name

    def submit(self, parcel: Parcel) -> str:
        with self._faults():
            made = self._client.batches.create(
                model=parcel.endpoint, src=parcel.file, config={"display_name": parcel.name}
            )
            return made.name

    def find(self, parcel: Parcel) -> str:
        with self._faults():
            for job in self._client.batches.list(config={"page_size": 100}):
                if job.display_name == parcel.name and _state(job) != "FAILED":
                    return job.name
        return ""

    def look(self, parcel: Parcel) -> Look:
        with self._faults():
            job = self._client.batches.get(name=parcel.id)
        state = _state(job)
        if state in UNDER_WAY:
            return Look()
        files = (job.dest.file_name,) if job.dest and job.dest.file_name else ()
        said = not_done(state.lower())
        if state == "FAILED":
            said = f"the batch failed{': ' + self._clean(job.error.message) if job.error else ''}"
        return Look(True, files=files, otherwise=("unavailable", said))

    def fetch(self, file: str, to: Path) -> None:
        version = self._version or self._client._api_client._http_options.api_version
        url = f"{self._base or VENDOR}/{version}/{file}:download?alt=media"
        headers = {"x-goog-api-key": self._key} if self._key else {}
        with self._faults():
            download(self._http, url, headers, to, self._clean)

    def read(self, line: bytes) -> Answer | None:
        try:
            found = _line(line)
        except msgspec.DecodeError:
            return None
        if bytes(found.response) not in (b"", b"null"):
            return Answer(found.key, 200, found.response)
        error = found.error or {}
        code = error.get("code")
        status = code if isinstance(code, int) and code >= 400 else STATUSES.get(code or 0, 500)
        body = msgspec.json.encode({"error": {**error, "code": status}})
        return Answer(found.key, status, msgspec.Raw(body))

    def close(self) -> None:
        self._http.close()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        from google.genai import errors

        try:
            yield
        except (errors.APIError, Fault, ValueError, KeyError, AttributeError) as error:
            raise provider_error(error, self._clean, 0.0) from None


def _state(job: Any) -> str:
    return str(getattr(job.state, "value", job.state) or "").removeprefix("JOB_STATE_").removeprefix("BATCH_STATE_")
