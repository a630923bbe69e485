"""Files in object storage (s3://, gs://, hf:// and others) through fsspec. Waits for a server that is away. Does not
know rows or runs.

Keys come from where each file system looks for them, such as AWS_* in the environment; none is ever written down.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, sleep_using_event
from tenacity import wait_exponential as growing

from fastgen.config.cache import cache_folder
from fastgen.errors import SettingsError, StorageError

SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "memory")
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""Scheme -> the extra of this package that brings its file system."""
_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}
DEADLINE_S = 900.0
"""So long a server may be away in the middle of a run."""
FIRST_DEADLINE_S = 20.0
"""So long before a run has begun: then it is more likely the address that is wrong."""
LONGEST_PAUSE_S = 10.0
_ADDRESS = re.compile(rf"({'|'.join(SCHEMES)}):/+(?=[^/])", re.IGNORECASE)
_SECRET = re.compile(r"[^/@]*:[^/@]*@")
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_NO_KEYS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "DefaultCredentialsError",
    "RefreshError",
}
_VERSION = (
    "ETag",
    "etag",
    "md5Hash",
    "crc32c",
    "blob_id",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "created",
)
"""What file systems call the thing that changes with a file."""
_T = TypeVar("_T")


def is_address(given: object) -> bool:
    """Whether a path is an address in object storage. A `Path` of one has lost a slash, and counts."""
    return _ADDRESS.match(os.fspath(given) if isinstance(given, os.PathLike) else str(given)) is not None


def address(given: object) -> str:
    """The address, with both slashes and none at its end. Raises SettingsError if there is a password in it."""
    text = os.fspath(given) if isinstance(given, os.PathLike) else str(given)
    found = _ADDRESS.match(text)
    assert found
    rest = text[found.end() :].rstrip("/")
    if _SECRET.match(rest):
        raise SettingsError(
            f"{found[1].lower()}://...@{rest.partition('@')[2]}: has a password in it, which would be written to logs; "
            "leave it out and set it in the environment"
        )
    return f"{found[1].lower()}://{rest}"


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path in it. Raises SettingsError if its package is missing."""
    scheme, _, rest = url.partition("://")
    try:
        system = _system(scheme)
    except ImportError as error:
        extra = EXTRAS.get(scheme)
        fix = f"add it with pip install 'fastgen-mm[{extra}]'" if extra else f"add it: {error}"
        raise SettingsError(f"{url}: the package for {scheme}:// is missing; {fix}") from None
    except ValueError as error:
        raise SettingsError(f"{url}: {scheme}:// cannot be opened: {error}; copy the files to a disk") from None
    return system, system._strip_protocol(url) if scheme != "memory" else "/" + rest


@cache
def _system(scheme: str) -> Any:
    import fsspec
    import fsspec.asyn

    more: dict[str, Any] = {}
    if scheme in ("s3", "s3a"):  # the waiting is done here
        more = {"config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 0}}}
    system = fsspec.filesystem(scheme, use_listings_cache=False, **more)
    if hasattr(system, "retries"):
        system.retries = 1
    if getattr(system, "async_impl", False):  # what a lost connection leaves behind in its loop is no news
        fsspec.asyn.get_loop().set_exception_handler(lambda loop, context: None)
    return system


def is_passing(error: BaseException) -> bool:
    """Whether the same call may succeed later: the server is away, or too busy."""
    if isinstance(error, _FINAL) or type(error).__name__ in _NO_KEYS or isinstance(error, SettingsError):
        return False
    return isinstance(error, OSError | EOFError) or type(error).__module__ != "builtins"


def reason(error: BaseException) -> str:
    """Why a call failed, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return f"access is denied: {text}" if isinstance(error, PermissionError) else text


def _fix(url: str, error: BaseException) -> str:
    """What to do about an error that waiting does not end; "" if nobody knows."""
    if not isinstance(error, PermissionError) and type(error).__name__ not in _NO_KEYS:
        return ""
    names = _KEYS.get(EXTRAS.get(url.partition("://")[0], ""), "those that its tools read")
    return f"; check the keys in the environment ({names}) and what they allow"


class Patience:
    """How long calls wait for a server that is away. Several threads may share one.

    Args:
        deadline_s: without an answer for so long, a call gives up. It may change meanwhile.
    """

    def __init__(self, deadline_s: float = FIRST_DEADLINE_S):
        self.deadline_s = deadline_s
        self.given_up = threading.Event()
        """Set it, and no call waits any more."""
        self._reasons: dict[int, str] = {}
        """Number of a call that waits -> why."""
        self._calls = itertools.count()

    @property
    def waiting(self) -> str:
        """Why a call is waiting now; "" if none is."""
        return next(iter(list(self._reasons.values())), "")

    def call(self, what: str, function: Callable[..., _T], *args: Any, **more: Any) -> _T:
        """The function's result. Raises StorageError once the deadline is over or waiting is of no use;
        FileNotFoundError, FileExistsError as they are.

        Args:
            what: an address, for the message.
        """
        number = next(self._calls)

        def note(state: RetryCallState) -> None:
            if state.outcome and (error := state.outcome.exception()):
                self._reasons[number] = reason(error)

        retrying = Retrying(
            retry=retry_if_exception(is_passing),
            stop=self._is_over,
            wait=growing(multiplier=0.2, max=LONGEST_PAUSE_S),
            sleep=sleep_using_event(self.given_up),
            before_sleep=note,
            reraise=True,
        )
        try:
            return retrying(function, *args, **more)
        except (FileNotFoundError, FileExistsError, SettingsError):
            raise
        except Exception as error:
            silent = f" does not answer (waited {self.deadline_s:.0f} s)" if is_passing(error) else ""
            raise StorageError(f"{what}{silent}: {reason(error)}{_fix(what, error)}") from error
        finally:
            self._reasons.pop(number, None)

    def _is_over(self, state: RetryCallState) -> bool:
        return self.given_up.is_set() or (state.seconds_since_start or 0.0) >= self.deadline_s


def expand(url: str) -> list[tuple[str, int]]:
    """The files that an address or a pattern stands for, in the order of their names: (address, bytes) each; none if
    there is no such file. Raises SettingsError, StorageError."""
    system, path = file_system(url)
    scheme = url.partition("://")[0]
    if re.search(r"[*?\[]", path):
        found = Patience().call(url, system.glob, path, detail=True)
        files = [(name, about) for name, about in sorted(found.items()) if about["type"] == "file"]
    else:
        try:
            about = Patience().call(url, system.info, path)
        except FileNotFoundError:
            return []
        files = [(path, about)] if about["type"] == "file" else []
    return [(f"{scheme}://{name.lstrip('/')}", int(about.get("size") or 0)) for name, about in files]


def below(url: str) -> list[tuple[str, int]]:
    """All files below an address, in the order of their names: (path from there, bytes) each. Raises SettingsError,
    StorageError."""
    system, path = file_system(url)
    try:
        found = Patience().call(url, system.find, path, detail=True)
    except FileNotFoundError:
        return []
    start = path.rstrip("/") + "/"
    return [(name[len(start) :], int(about.get("size") or 0)) for name, about in sorted(found.items()) if name > start]


def local_copy(url: str) -> Path:
    """A copy of a file in the cache folder; the one that is there, if the file has not changed since. Raises OSError
    (there is no such file, or the disk is full), StorageError, SettingsError."""
    system, path = file_system(url)
    about = Patience().call(url, system.info, path)
    version = repr([about.get("size"), *(about.get(name) for name in _VERSION)])
    folder = cache_folder() / "storage" / blake2b(f"{url}\0{version}".encode(), digest_size=12).hexdigest()
    place = folder / url.rpartition("/")[2]
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{secrets.token_hex(4)}"
        try:
            Patience(DEADLINE_S).call(url, system.get_file, path, str(partial))
            os.replace(partial, place)
        finally:
            with suppress(OSError):
                partial.unlink()
    return place


def read(url: str, most_bytes: int, patience: Patience) -> bytes:
    """A whole file. Raises FileNotFoundError, StorageError, SettingsError; ValueError if it is larger."""
    system, path = file_system(url)
    size = int(patience.call(url, system.info, path).get("size") or 0)
    if size > most_bytes:
        raise ValueError(f"it has more than {most_bytes >> 20} MiB")
    return patience.call(url, system.cat_file, path)
