"""The user's rows come back as they were: order, types, number formats, 64-bit and larger integers, nulls."""

from __future__ import annotations

import json
import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgen.errors import InputError, SettingsError
from fastgen.input.readers import source
from fastgen.input.readers.python_rows import write_jsonl
from fastgen.input.readers.rows import Row, RowReader, read, splice

raw_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1])
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=8
)


@given(
    fields=st.dictionaries(text | st.sampled_from(["images", "fastgen"]), values, max_size=6),
    ascii=st.booleans(),
    indent=st.none() | st.just(1),
    out=text,
)
def test_a_spliced_row_keeps_every_field(fields, ascii, indent, out):
    raw = json.dumps(fields, ensure_ascii=ascii, indent=indent).encode()
    added = {"images": [out], "fastgen": {"id": out}}
    line = splice(Row(1, raw), added)
    assert b"\n" not in line and b"\r" not in line
    expected = {**fields, **added}
    assert json.loads(line, object_pairs_hook=list) == json.loads(json.dumps(expected), object_pairs_hook=list)
    before, after = raw_fields(raw), raw_fields(line)
    assert list(after) == list(expected), "the order of the fields changed"
    for key in fields.keys() - added.keys():
        was = bytes(before[key]).replace(b"\n", b" ")
        assert bytes(after[key]) == was, "a value was written anew instead of passed on"


@pytest.mark.parametrize(
    "value",
    [
        "1.0e5",
        "1E5",
        "-0.0",
        "0.10",
        "1.00",
        "12345678901234567890123456789",
        "1e400",
        r'"\u00e9\/"',
        "[1,  2]",
        "null",
    ],
)
def test_values_are_passed_on_as_written(value):
    assert splice(Row(1, f'{{"a":{value},"b":1}}'.encode()), {"c": 2}) == f'{{"a":{value},"b":1,"c":2}}'.encode()


def test_an_added_field_takes_the_place_of_the_old_and_a_dropped_one_leaves():
    row = Row(1, b'{"images":[""],"prompt":"a","fastgen":1}')
    assert splice(row, {"fastgen": {}}, dropped=["images"]) == b'{"prompt":"a","fastgen":{}}'
    assert splice(row, {"images": ["x"]}) == b'{"images":["x"],"prompt":"a","fastgen":1}'


def test_a_nan_leaves_the_other_fields_as_they_were():
    line = splice(Row(1, b'{"z":18446744073709551617,"width":NaN,"a":"\xc3\xa9"}'), {"fastgen": 1})
    fields = json.loads(line)
    assert list(fields) == ["z", "width", "a", "fastgen"]
    assert (fields["z"], fields["a"]) == (18446744073709551617, "é")


almost_rows = st.binary(max_size=24) | st.builds(
    lambda fields, junk, at: (raw := json.dumps(fields).encode())[: at % len(raw)] + junk + raw[at % len(raw) :],
    st.dictionaries(text, scalars, max_size=3),
    st.binary(max_size=3),
    st.integers(0, 99),
)


@given(almost_rows)
def test_whatever_a_row_holds_its_line_in_the_table_is_json(raw):
    raw = raw.replace(b"\n", b"").strip()
    line = splice(Row(1, raw), {"fastgen": 1, "line": raw.decode("utf-8", "replace")})
    assert b"\n" not in line
    assert json.loads(line.decode("utf-8"))["fastgen"] == 1


@pytest.mark.parametrize(
    "raw",
    [b'{"prompt":"\xff"}', b'{"\xff":1}', rb'{"prompt":"\ud83d"}', b'{"a":"\xed\xa0\x80"}'],
    ids=["value", "key", "escaped-surrogate", "surrogate"],
)
def test_text_that_is_not_unicode_does_not_reach_the_table(raw):
    """Half of a surrogate pair may be written as an escape in JSON; as bytes it would spoil the whole table."""
    line = splice(Row(1, raw), {"fastgen": 1})
    assert json.loads(line.decode("utf-8"))["fastgen"] == 1


@given(almost_rows)
def test_a_row_is_a_dict_or_the_fault_of_its_owner(raw):
    try:
        assert isinstance(Row(1, raw).fields(), dict)
    except InputError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"prompt": "a"', "column"),
        (b"{'prompt': 'a'}", "column"),
        (b'["a"]', "a row is a JSON object"),
        (b"7", "a row is a JSON object"),
        (b'{"prompt": "\xff"}', "not UTF-8 at byte 12"),
        (b'{"a":' + b"[" * 100_000, "not valid JSON"),
        (b'{"a":' + b"1" * 10_000 + b"}", "not valid JSON"),
    ],
)
def test_a_broken_row_says_what_is_wrong(raw, words):
    with pytest.raises(InputError, match=words):
        Row(3, raw).fields()


def test_lines_keep_their_numbers(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a":1}\r\n\r\n  {"a":2}  \n\n{"a":3}')
    assert [(row.number, row.fields()["a"]) for row in read(path)] == [(1, 1), (3, 2), (5, 3)]
    assert [row.number for row in read(path, limit=2)] == [1, 3]


def test_a_json_list_is_rows_too(tmp_path):
    path = tmp_path / "rows.json"
    path.write_bytes(b'\xef\xbb\xbf[\n {"a": 12345678901234567890},\n {"b": "\\u00e9"}, 5]')
    rows = list(read(path))
    assert [row.number for row in rows] == [1, 2, 3]
    assert rows[0].raw == b'{"a": 12345678901234567890}'
    assert rows[1].fields() == {"b": "é"}
    with pytest.raises(InputError):
        rows[2].fields()


def test_a_nan_in_a_json_list_harms_its_row_alone(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[{"a": 1, "z": 1.5}, {"width": NaN}]')
    first, second = read(path)
    assert first.fields() == {"a": 1, "z": 1.5}
    assert second.fields()["width"] != second.fields()["width"]


@pytest.mark.parametrize("content", ['{"a": 1}', '[{"a": 1}', '{"a": 1}\n{"a": 2}\n'])
def test_a_json_file_that_is_not_a_list_is_refused_whole(tmp_path, content):
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(SettingsError, match=r"one list of rows.*\.jsonl"):
        list(read(path))


def test_the_number_of_rows_is_judged_by_those_read_so_far(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a":1}\n' * 7)
    reader = RowReader(path)
    assert reader.expected == 0
    rows = iter(reader)
    next(rows)
    assert reader.expected == 7
    list(rows)
    assert reader.expected == 7
    for limit in (3, 9):
        reader = RowReader(path, limit)
        next(iter(reader))
        assert reader.expected == min(limit, 7)


def test_rows_from_python_are_spooled(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": "é", "id": 2**64 + 1, "note": None}, {"prompt": "b\nc"}]
    assert write_jsonl(path, iter(rows), tmp_path) == 2
    assert [row.fields() for row in read(path)] == rows
    with pytest.raises(SettingsError, match="row 2"):
        write_jsonl(path, [{}, "no row"], tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "bom+utf-16-be"])
def test_what_windows_writes_is_read(tmp_path, encoding):
    path = tmp_path / "rows.jsonl"
    text = '{"a": "café 🍵"}\r\n\r\n{"a": "一\u0a0d\u0d0a"}\r\n{"a": 3}'
    bom = "\ufeff" if encoding.startswith("bom") else ""
    path.write_bytes((bom + text).encode(encoding.removeprefix("bom+")))
    assert [(row.number, row.fields()["a"]) for row in read(path)] == [(1, "café 🍵"), (3, "一\u0a0d\u0d0a"), (4, 3)]


def test_utf_16_that_is_cut_or_broken_harms_its_own_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    good = '{"a": 1}\n'.encode("utf-16")
    path.write_bytes(
        good + '{"a": "'.encode("utf-16-le") + b"\x3d\xd8" + '"}\n{"a": 2}\n{"a": 3'.encode("utf-16-le") + b"x"
    )
    first, broken, second, cut = read(path)
    assert (first.fields(), second.fields()) == ({"a": 1}, {"a": 2})
    assert broken.fields() == {"a": "\ud83d"}
    with pytest.raises(InputError, match="not valid JSON"):
        cut.fields()


def test_a_line_that_is_too_long_is_named_and_the_next_ones_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_LINE", 1 << 20)
    path = tmp_path / "rows.jsonl"
    long = b'{"a": "' + b"x" * (5 << 20) + b'"}'
    for encoding in ("utf-8", "utf-16"):
        path.write_bytes(b"\n".join([b'{"a": 1}', long, b'{"a": 2}', long]).decode().encode(encoding))
        first, second, third, fourth = read(path)
        assert (first.fields(), third.fields()) == ({"a": 1}, {"a": 2}) and (third.number, fourth.number) == (3, 4)
        for row in (second, fourth):
            assert len(row.raw) <= 1000
            with pytest.raises(InputError, match="longer than 1 MiB"):
                row.fields()


def test_a_list_with_one_item_that_is_nested_too_deep(tmp_path):
    path = tmp_path / "rows.json"
    deep = "[" * 100_000 + "]" * 100_000
    path.write_text('[{"a": "],[\\""}, {"b": ' + deep + '}, {"c": [1, {"d": 2}]} , 5]')
    first, bad, third, fourth = read(path)
    assert first.fields() == {"a": '],["'} and third.fields() == {"c": [1, {"d": 2}]} and fourth.raw == b"5"
    with pytest.raises(InputError, match="not valid JSON"):
        bad.fields()
    for text in (deep, '{"a": ' + deep + "}", "[" * 100_000):
        path.write_text(text)
        try:
            assert len(list(read(path))) == 1
        except SettingsError as error:
            assert "one list of rows" in str(error)


def test_a_file_name_that_is_no_text_is_a_row_too(tmp_path):
    (tmp_path / "a.png").touch()
    open(os.fsencode(tmp_path) + b"/bad\xff.png", "wb").close()
    rows = list(read(tmp_path))
    assert sorted(row.fields()["image"] for row in rows) == ["a.png", "bad\udcff.png"]


def test_half_a_character_in_a_list_harms_its_row_alone(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[{"a": "\\ud83d", "b": NaN}, {"a": 1}]')
    first, second = read(path)
    assert first.fields()["a"] == "\ud83d" and second.fields() == {"a": 1}
