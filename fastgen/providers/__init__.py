"""The services that are reached over HTTP: their models, what these can do and cost, and how to reach them.

catalog        the data, services.toml: ids, limits, prices, with a date
endpoints      keys and addresses
capabilities   what a row may ask for
pricing        upper bounds and actual costs
vllm           where vLLM's program is, and `fastgen setup vllm`
Imports no SDK and sends nothing.
"""

from fastgen.providers.capabilities import PIXELS, refuse, refuse_flags, shape
from fastgen.providers.catalog import OVERRIDE, Model, Price, as_of, data, find
from fastgen.providers.endpoints import gemini_endpoint, key_of
from fastgen.providers.pricing import ask_of, cost_of, cost_of_another, estimate, price

__all__ = [
    "OVERRIDE",
    "PIXELS",
    "Model",
    "Price",
    "as_of",
    "ask_of",
    "cost_of",
    "cost_of_another",
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
