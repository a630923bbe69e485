"""The services that are reached over HTTP: which models they have, what those can do and cost, and how they are
reached.

known.py    the data, services.toml: ids, limits, prices, with a date
place.py    keys and addresses
wishes.py   what a row may ask for
costs.py    upper bounds and bills
Imports no SDK and sends nothing.
"""

from fastgen.providers.capabilities import PIXELS, WORDS, refuse, refuse_flags, shape
from fastgen.providers.catalog import NAMES, OVERRIDE, Model, Price, as_of, data, find
from fastgen.providers.endpoints import connect, gemini_endpoint, key_of
from fastgen.providers.pricing import cost_of, estimate, price

CLIENT_PROCESSES = {"vllm": 2, "openai": 1, "gemini": 1}
"""Client processes of one endpoint."""
MAX_INFLIGHT = {"vllm": 256, "openai": 64, "gemini": 64}
TIMEOUT_S = {"t2i": 600.0, "edit": 600.0, "caption": 120.0}

__all__ = [
    "LANES",
    "MAX_INFLIGHT",
    "NAMES",
    "OVERRIDE",
    "PIXELS",
    "TIMEOUT_S",
    "WORDS",
    "Model",
    "Price",
    "as_of",
    "connect",
    "cost_of",
    "data",
    "estimate",
    "find",
    "gemini_endpoint",
    "key_of",
    "price",
    "refuse",
    "refuse_flags",
    "shape",
]
