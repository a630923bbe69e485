"""A text with named placeholders for values of a row. Does not know rows."""

from __future__ import annotations

from collections.abc import Iterable


class NamedPlaceholderPromptTemplate:
    """Args: template: with placeholders such as {type}; join_list_with: the separator between items of a list."""

    def __init__(self, template: str, join_list_with: str = "\n"):
        self.template = template
        self.join_list_with = join_list_with

    def build_prompt(self, need_fields: Iterable[str] = (), **values: object) -> str:
        """The text with the values of `need_fields` filled in. Raises KeyError for a placeholder without a value."""
        return self.template.format(**{name: self._text(values.get(name, "")) for name in need_fields})

    def _text(self, value: object) -> str:
        """A cell as text; an empty one gives ""."""
        if isinstance(value, list | tuple):
            return self.join_list_with.join(self._text(one) for one in value if one is not None)
        return "" if value is None else str(value)
