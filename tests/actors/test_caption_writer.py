"""The actor on drawn faces, with the captioner that needs no model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from actors.caption_writer import CaptionWriter
from studiolo.albums.records import Reason
from studiolo.datasets.captions.grammar import Grammar
from studiolo.datasets.captions.settings import CaptionSettings
from studiolo.datasets.captions.shards import CAPTION_INPUT, CAPTIONED_SCHEMA, IN_PARTS
from studiolo.datasets.records import ANNOTATION_SCHEMA, CAPTION_SCHEMA, WHOLE
from studiolo.errors import PhotoError
from studiolo.storage.store import Store
from tests.datasets.drawn import annotation

Row = dict[str, Any]

SHARD = f"shards/{'a' * 64}.parquet"


def failed(number: int) -> Row:
    return {**annotation(number), "status": "failed", "reason": "unreadable"}


def write_shard(store: Store, rows: list[Row]) -> pa.Table:
    """What the actor is given of it."""
    store.write_table(SHARD, pa.Table.from_pylist(rows, ANNOTATION_SCHEMA))
    return pa.Table.from_pylist([{"shard": SHARD, "rows": len(rows)}], CAPTION_INPUT)


class Counting(Grammar):
    """Counts the rows that it is asked for, and keeps its parts when told to."""

    def __init__(self, rows_per_part: int | None = None) -> None:
        super().__init__()
        self.rows_per_part = rows_per_part
        self.asked = 0

    def __call__(self, rows: Any) -> list[list[Row]]:
        self.asked += len(rows)
        return super().__call__(rows)


def writer(store: Store, rows_per_part: int | None = None) -> tuple[CaptionWriter, Counting]:
    actor = CaptionWriter(store, "grammar", CaptionSettings())
    actor.captioner = counting = Counting(rows_per_part)
    actor.open()
    return actor, counting


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_annotated_rows_have_their_captions_in_order(store: Store) -> None:
    batch = write_shard(store, [annotation(0), failed(1), annotation(2)])
    (done,) = writer(store)[0](batch).to_pylist()
    assert (done["rows"], done["silent"], done["requests"], done["reason"]) == (2, 0, 0, "")
    table = store.read_table(done["captions"])
    assert table.schema.equals(CAPTION_SCHEMA)
    rows = table.to_pylist()
    assert [row["row_id"] for row in rows] == [annotation(number)["row_id"] for number in (0, 2)]
    assert [[one["text"] for one in row["captions"]] for row in rows] == [
        [one["text"] for one in captions] for captions in Grammar()([annotation(0), annotation(2)])
    ]
    assert {row["captions"][0]["part"] for row in rows} == {WHOLE}
    assert {row["captioner"] for row in rows} == {Grammar().id}


def test_what_is_done_is_not_done_again_and_a_new_row_alone_is(store: Store) -> None:
    batch = write_shard(store, [annotation(0), failed(1)])
    first = writer(store)[0](batch).to_pylist()
    before = {path: store.read_bytes(path) for path in store.list()}
    actor, counting = writer(store)
    assert actor(batch).to_pylist() == first
    assert counting.asked == 0
    assert {path: store.read_bytes(path) for path in store.list()} == before

    actor(write_shard(store, [annotation(0), annotation(1)]))  # read at a second try
    assert counting.asked == 1
    whole = Store(str(store.local_path("whole")))
    writer(whole)[0](write_shard(whole, [annotation(0), annotation(1)]))
    (path,) = whole.list("captions")
    assert store.read_bytes(path) == whole.read_bytes(path)


def test_parts_are_kept_until_the_shard_is_done(store: Store) -> None:
    batch = write_shard(store, [annotation(number) for number in range(5)])
    actor, counting = writer(store, rows_per_part=2)
    seen: list[str] = []

    class Killed(BaseException):
        pass

    @contextmanager
    def killing(name: str) -> Iterator[None]:
        seen.append(name)
        if len(seen) == 3:
            raise Killed
        yield

    actor.part = killing
    with pytest.raises(Killed):
        actor(batch)
    assert (counting.asked, len(store.list(IN_PARTS))) == (4, 2)
    actor, counting = writer(store, rows_per_part=2)
    (done,) = actor(batch).to_pylist()
    assert (counting.asked, done["rows"]) == (1, 5)
    assert store.list(IN_PARTS) == []


def test_a_part_that_ended_workers_has_no_captions(store: Store) -> None:
    batch = write_shard(store, [annotation(number) for number in range(4)])
    actor, _ = writer(store, rows_per_part=2)
    seen: list[str] = []

    @contextmanager
    def refusing(name: str) -> Iterator[None]:
        seen.append(name)
        if len(seen) == 1:
            raise PhotoError(Reason.CRASHED_WORKER, "2 attempts")
        yield

    actor.part = refusing
    (done,) = actor(batch).to_pylist()
    assert (done["rows"], done["silent"]) == (4, 2)
    said = [bool(row["captions"]) for row in store.iter_rows(done["captions"])]
    assert said == [False, False, True, True]


def test_a_shard_that_ends_its_workers_says_so(store: Store) -> None:
    actor, _ = writer(store)
    row = {"shard": SHARD, "rows": 7}
    table = actor.crashed(row, "2 attempts")
    assert table.schema.equals(CAPTIONED_SCHEMA)
    (failure,) = table.to_pylist()
    assert (failure["captions"], failure["reason"], failure["rows"]) == (None, "crashed_worker", 7)
    other = CaptionWriter(store, "openai", CaptionSettings())
    assert actor.unit(row) == writer(store)[0].unit(row) != other.unit(row)
