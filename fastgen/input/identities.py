"""Which row is which. Does not know what a row asks for.

A row is known by its own `id`, else by the id that an earlier run gave it (`fastgen.id`), else by a hash of its
content. Its position never counts, so rows may be inserted, removed or moved between runs. Equal rows are told apart by
a counter.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from fastgen.errors import InputError, quoted
from fastgen.input.int_map import IntMap
from fastgen.input.readers import python_rows
from fastgen.input.readers.rows import Row
from fastgen.input.row_schema import is_unicode, read_text, type_name

_encode_sorted = msgspec.json.Encoder(order="sorted").encode


class Identity(msgspec.Struct, frozen=True, gc=False):
    """Which row this is, and a hash of what it says."""

    id: str
    content: str
    """Hash of what the row says, in hex."""
    fields: dict
    """The row under the names of fields; see `Columns`."""
    error: InputError | None = None
    columns: dict[str, str] = {}
    """Field -> the user's column that it is read from, where their names differ."""


class Identities:
    """Identifies rows in order. One instance sees the input once. To count repeats it keeps two integers per row in
    memory.

    Args:
        output_key: the field for the result, which is no content until it is filled.
        id_key: the column with the rows' own ids.
    """

    def __init__(self, output_key: str, id_key: str = ""):
        self._output_key = output_key
        self._id_key = id_key or "id"
        self._ids = {"id", "fastgen", self._id_key}
        self._no_content = {*self._ids, output_key}
        """Fields that may be no content."""
        self._seen = IntMap()
        """hash(id) -> hash of the content that first had this id; 0 if the id itself is the hash, as it is without an
        own one."""
        self._repeats: dict[int, int] = {}

    def identify(self, row: Row) -> Identity:
        """The row's identity; its `error` is set if the row itself is bad."""
        error: InputError | None = None
        fields: dict = {}
        try:
            own = row.fields()
            error = python_rows.problem(own) if "fastgen" in own else None
        except InputError as broken:
            digest = blake2b(row.raw, digest_size=8).digest()
            id = content_digest = digest.hex()
            error = broken
        else:
            names, content = self._no_content, own
            if not names.isdisjoint(own):
                filled_in = self._output_key not in self._ids and filled(own.get(self._output_key))
                content = {k: v for k, v in own.items() if k not in names or (filled_in and k == self._output_key)}
            digest = blake2b(_canonical(content), digest_size=8).digest()
            fields = own
            content_digest = digest.hex()
            try:
                id = _own_id(fields, self._id_key) or content_digest
            except InputError as bad_id:
                id, error = content_digest, error or bad_id
        content_hash = int.from_bytes(digest, "big") >> 1
        said = 0 if id == content_digest else content_hash
        if self._seen.get(hash(id)) not in (None, said):
            error = error or InputError(
                f"the id '{quoted(id)}' was used by an earlier row with different content; give each row its own id, "
                "or none",
                "id",
            )
            id = f"{id}!{content_digest}"
        slot = hash(id)
        if slot not in self._seen:
            self._seen[slot] = said
            return Identity(id, content_digest, fields, error)
        count = self._repeats.get(slot, 1) + 1
        while hash(f"{id}#{count}") in self._seen:  # somebody's own id
            count += 1
        self._repeats[slot] = count
        self._seen[hash(f"{id}#{count}")] = content_hash
        return Identity(f"{id}#{count}", content_digest, fields, error)


def filled(value: object) -> bool:
    """Whether an output field has a result. Placeholders such as [""], [], "" and null are not results."""
    if isinstance(value, list):
        return bool(value) and filled(value[0])
    return bool(value.strip()) if isinstance(value, str) else value is not None


def _own_id(fields: dict, key: str) -> str:
    """The row's own id, else the id that an earlier run gave it, else ""."""
    value = fields.get(key)
    earlier = fields.get("fastgen")
    given = earlier.get("id") if isinstance(earlier, dict) else None
    given = given.partition("!")[0] if isinstance(given, str) and is_unicode(given) else ""
    if value is None:
        return given  # without what was added to tell it from a row with the same id
    if given.startswith(f"{value}#"):
        return given  # one of several equal rows
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"must be a string or a whole number, not {type_name(value)}", "id")
    text = read_text(str(value), "id")
    if not text.strip() or len(text) > 512:
        raise InputError("must have 1 to 512 characters", "id")
    return text


def _canonical(content: dict) -> bytes:
    try:
        return _encode_sorted(content)
    except (UnicodeEncodeError, OverflowError, ValueError, TypeError):
        return repr(sorted(content.items())).encode("utf-8", "surrogatepass")
