"""The address of an API and the name of its key, from flags and the environment. Sends nothing and stores no key."""

from __future__ import annotations

import os
import re
from datetime import date
from importlib.util import find_spec
from urllib.parse import urlsplit

from fastgen.config.backends import BackendSpec
from fastgen.config.model_cards import Defaults, ModelCard
from fastgen.config.settings import Endpoint
from fastgen.errors import SettingsError
from fastgen.providers.addresses import bare, secret_in
from fastgen.providers.catalog import as_of, data, find
from fastgen.types import Task

ANY_KEY, ANY_BASE_URL = "DF_API_KEY", "DF_BASE_URL"
"""For a service that speaks both formats."""


def locate(
    spec: BackendSpec, task: Task, model: str, on_gpu: bool, base_url: str | None, command: str | None
) -> tuple[ModelCard, Endpoint, list[str]]:
    """The model's card, its endpoint, and notes for the user. Raises SettingsError."""
    service = spec.service
    assert service is not None
    try:
        there = find_spec(service.sdk) is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        package = service.sdk.replace(".", "-")
        raise SettingsError(f"--backend {spec}: the package {package} is not installed; run pip install {package}")
    url, key_name, notes = _address(spec, base_url)
    if model == "auto":
        model = data().get(spec.provider, {}).get("auto", {}).get(task, "")
        if not model:
            raise SettingsError(
                f"--model: there is no default for {task} with {service.title}; choose one with --model"
            )
    notes += _about(spec.provider, service.title, model)
    card = ModelCard(model, "", "api", "api", Defaults(edits=True), grid=1)
    return card, Endpoint(base_url=url, key_name=key_name), notes


def key_of(name: str, needed: bool = False) -> str:
    """The key in an environment variable, "" if there is none. Raises SettingsError if it could not be sent, because
    the libraries' own error messages would quote it."""
    key = os.environ.get(name, "").strip()  # keys read from a file end in a line break
    if not (key.isascii() and key.isprintable()):
        raise SettingsError(
            f"{name}: holds characters that no key has, such as a line break in its middle; set it again"
        )
    if needed and not key:
        raise SettingsError(
            f"{name}: not set in the process that sends the requests; set it and run the same command again"
        )
    return key


def _address(spec: BackendSpec, given: str | None) -> tuple[str, str, list[str]]:
    """(base URL, name of the variable with the key, notes)."""
    service = spec.service
    assert service is not None
    names = (*service.keys, ANY_KEY)
    key_name = next((name for name in names if key_of(name)), "")
    url, said = given or "", "--base-url"
    if not url and key_name == ANY_KEY:
        url, said = os.environ.get(ANY_BASE_URL, ""), ANY_BASE_URL
    if not url:
        url, said = os.environ.get(service.base_url_variable, ""), service.base_url_variable
    notes = []
    if not key_name:
        if not url:
            raise SettingsError(
                f"--backend {spec}: no key; set {' or '.join(names)} in the environment, or use --base-url with a "
                "server that needs none"
            )
        notes.append(f"{spec}: none of {', '.join(names)} is set, so requests to {url} are sent without a key")
    if not url:
        return service.base_url, key_name, notes
    path = path_of(url, said)
    parts = urlsplit(url)
    url = parts._replace(path=f"/{path}" if path else service.path).geturl()
    if service.path and not path:
        notes.append(f"{said} has no path; requests go to {url}")
    if key_name == ANY_KEY or said != "--base-url":
        notes.append(f"{spec}: requests go to {url}, with the key from {key_name or 'no variable'} ({said})")
    return url, key_name, notes


def keys_here() -> list[str]:
    """What the environment has for keys."""
    return [value.strip() for name, value in os.environ.items() if name.endswith(("_KEY", "_TOKEN"))]


_ADDED = re.compile(r"(^|/)(chat/completions|images/(generations|edits|variations))$")


def path_of(url: str, said: str) -> str:
    """The path of an address, without slashes at its ends, and without the part that each request adds itself. `said`:
    where the address came from. Raises SettingsError."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        shown = f" {bare(url)}".rstrip()
        raise SettingsError(f"{said}{shown}: not an address such as http://localhost:8000/v1")
    if found := secret_in(parts, keys_here()):
        raise SettingsError(
            f"{said}: contains {found}, which would end up in run.json; set the key in the environment instead"
        )
    return _ADDED.sub("", parts.path.strip("/"))


def gemini_endpoint(base_url: str) -> tuple[str, str]:
    """(base URL, API version), which google-genai wants separately; "" lets it decide."""
    found = re.fullmatch(r"(.*?)/(v\d+(?:alpha|beta)?\d*)/?", base_url)
    return (found[1], found[2]) if found else (base_url, "")


def _about(provider: str, title: str, name: str) -> list[str]:
    model = find(provider, name)
    if model is None:
        return [
            f"--model {name}: not among the models of {title} known here (as of {as_of()}); the name is sent as it is"
        ]
    after = f"; its successor is {model.successor}" if model.successor else ""
    if model.disputed:
        return [f"--model {name}: sources disagree about whether it still works (since {model.until}){after}"]
    if model.status == "retired" or (model.until and model.until <= date.today().isoformat()):
        return [f"--model {name}: was shut down on {model.until}{after}"]
    return [f"--model {name}: shuts down on {model.until}{after}"] if model.until else []
