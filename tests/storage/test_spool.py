"""Rows that wait on the disk come back as they were, in the order of their keys."""

import tempfile
import tracemalloc
from contextlib import suppress

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studiolo.errors import StoreError
from studiolo.storage.spool import Spool, beside, portions

SCHEMA = pa.schema([("name", pa.string()), ("index", pa.int32()), ("vector", pa.list_(pa.float32(), 4))])

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
            "index": st.integers(0, 3),
            "vector": st.none() | st.lists(st.floats(width=32, allow_nan=False), min_size=4, max_size=4),
        }
    )
)


@settings(deadline=None)
@given(ROWS)
def test_rows_come_back_sorted_and_again(rows):
    spool = Spool(SCHEMA, "name", "index")
    for row in rows:
        spool.append(row)
    expected = sorted(rows, key=lambda row: (row["name"], row["index"]))
    assert len(spool) == len(rows)
    assert list(spool) == expected
    assert list(zip(spool, spool, strict=True)) == list(zip(expected, expected, strict=True))


def test_a_spool_grows_while_it_is_read():
    spool = Spool(SCHEMA, "name")
    for name in "bd":
        spool.append({"name": name, "index": 0, "vector": None})
    reading = iter(spool)
    assert next(reading)["name"] == "b"
    spool.append({"name": "a", "index": 1, "vector": [0.0, 1.0, 2.0, 3.0]})
    assert next(reading)["name"] == "d"
    assert [row["name"] for row in spool] == ["a", "b", "d"]


def test_memory_does_not_grow_with_what_the_rows_hold():
    wide = pa.schema([("name", pa.string()), ("text", pa.string())])
    spool = Spool(wide, "name")
    tracemalloc.start()
    for number in range(2000):
        spool.append({"name": f"{number:05d}", "text": "x" * 10_000})
    assert sum(len(row["text"]) for row in spool) == 20_000_000
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_portions_are_made_when_they_are_asked_for():
    taken = []

    def rows():
        for number in range(7):
            taken.append(number)
            yield {"name": str(number), "index": number, "vector": None}

    tables = portions(rows(), SCHEMA, size=3)
    assert next(tables).num_rows == 3
    assert taken == [0, 1, 2]
    assert [table["index"].to_pylist() for table in tables] == [[3, 4, 5], [6]]
    assert list(portions([], SCHEMA)) == []


def test_each_row_with_those_that_belong_to_it():
    people = [{"identity_id": name} for name in "abcd"]
    made = [{"identity_id": name, "index": index} for name, index in (("b", 0), ("b", 1), ("d", 0))]
    assert [len(rows) for _, rows in beside(people, made)] == [0, 2, 0, 1]
    assert [row for _, rows in beside(people, made) for row in rows] == made
    with pytest.raises(ValueError, match="'d' is not among the rows"):
        list(beside(people[:3], made))
    with pytest.raises(ValueError, match="not in one order"):
        list(beside(people, made[::-1]))


def test_a_full_disk_says_where_room_is_wanted(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool = Spool(SCHEMA, "name")
    full = spool._file = open("/dev/full", "w+b")  # noqa: SIM115
    with pytest.raises(StoreError, match=f"cannot keep a row in {tmp_path}: No space left on device; make room"):
        spool.append({"name": "a", "index": 0, "vector": None})
    assert len(spool) == 0
    with suppress(OSError):
        full.close()
