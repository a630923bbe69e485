"""A JSON schema in the form that a server's grammar takes: without keywords that few grammars have. The whole schema
is checked here anyway, when the answer has come. Sends nothing."""

from __future__ import annotations

import json
from typing import Any

LACKING = (
    "multipleOf",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "format",
    "propertyNames",
    "patternProperties",
    "unevaluatedProperties",
    "unevaluatedItems",
    "minProperties",
    "maxProperties",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "if",
    "then",
    "else",
    "not",
)
"""Keywords that grammars such as xgrammar's or OpenAI's do not have."""
_NAMED = ("properties", "$defs", "definitions")
"""Keywords whose own keys are names of the user's."""


def simplified(schema: Any) -> Any:
    """The schema without what grammars lack. It accepts all that the schema accepts, and more."""
    if isinstance(schema, list):
        return [simplified(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {}
    for key, value in schema.items():
        if key in LACKING or (key in ("minLength", "maxLength") and "pattern" in schema):
            continue
        if key in _NAMED and isinstance(value, dict):
            found[key] = {name: simplified(part) for name, part in value.items()}
        else:
            found[key] = value if key in ("enum", "const", "default", "examples") else simplified(value)
    return found


def put_into(messages: list[dict], form: dict[str, Any]) -> list[dict]:
    """The messages with the schema of a `response_format` at the end of the last user turn."""
    if "json_schema" not in form:
        return messages
    schema = json.dumps(form["json_schema"]["schema"], ensure_ascii=False)
    said = f"Answer with JSON that fits this JSON schema, and with nothing else: {schema}"
    last = max(i for i, message in enumerate(messages) if message["role"] == "user")
    content = messages[last]["content"]
    longer = f"{content}\n\n{said}" if isinstance(content, str) else [*content, {"type": "text", "text": said}]
    return [*messages[:last], {**messages[last], "content": longer}, *messages[last + 1 :]]


def is_strict(schema: object) -> bool:
    """Whether every object in a schema is closed and requires all its keys: OpenAI's strict mode accepts no others."""
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, dict):
        return True
    named = schema.get("properties")
    closed = schema.get("additionalProperties") is False and not set(named or ()) - set(schema.get("required") or ())
    if (isinstance(named, dict) or schema.get("type") == "object") and not closed:
        return False
    return all(map(is_strict, schema.values()))
