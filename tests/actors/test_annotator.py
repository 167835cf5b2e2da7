"""The actor on real models and a few pictures."""

import os
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from actors.annotator import Annotator
from studiolo.albums.records import Reason
from studiolo.datasets.listing import bring_up_to_date, parts_of
from studiolo.datasets.optout import OptOut
from studiolo.datasets.settings import AnnotationSettings
from studiolo.datasets.shards import PART_INPUT, UNIT, counts_of
from studiolo.datasets.sources.listed import Listed
from studiolo.datasets.sources.reading import synthetic_face
from studiolo.errors import PhotoError
from studiolo.settings import PerceptionSettings
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store

Row = dict[str, Any]


@pytest.fixture(scope="module")
def opened(weights: Path) -> Annotator:
    """An actor with its models, of which others are made."""
    actor = Annotator(Store("memory://nowhere"), "embedded", PerceptionSettings(), SMALL, OptOut())
    actor.open()
    return actor


SMALL = AnnotationSettings(image_side_px=128)


def actor_on(store: Store, opened: Annotator) -> Annotator:
    actor = Annotator(store, "embedded", PerceptionSettings(), SMALL, OptOut())
    actor.annotate, actor.read, actor.ledger = opened.annotate, opened.read, Ledger(store)
    return actor


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, opened: Annotator) -> tuple[Path, Row]:
    """An output of one shard, and what the actor said of it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "2.jpg").write_bytes(b"no picture")
    pictures = [
        Listed("0.jpg", synthetic_face(0, 256), "0"),
        Listed("1.jpg", synthetic_face(1, 256), "1"),
        Listed("2.jpg", str(folder / "2.jpg"), "2"),
    ]
    store = Store(folder / "out")
    bring_up_to_date(store, "faces", pictures, 8)
    (row,) = actor_on(store, opened)(part(store)).to_pylist()
    return folder / "out", row


@pytest.fixture
def store(finished: tuple[Path, Row], tmp_path: Path) -> Store:
    """A copy of it."""
    return Store(shutil.copytree(finished[0], tmp_path / "copy"))


def forget(store: Store) -> None:
    """The shard and that it was done."""
    for path in (*store.list("ledger"), *store.list("shards")):
        store.remove(path)


def part(store: Store) -> pa.Table:
    return pa.Table.from_pylist([{"part": parts_of(store)[0].path, "rows": 3}], PART_INPUT)


def shard(store: Store, row: Row) -> list[Row]:
    rows: list[Row] = store.read_table(row["shard"]).to_pylist()
    return rows


def test_every_picture_of_a_part_is_a_row_in_its_order(store: Store, finished: tuple[Path, Row]) -> None:
    row = finished[1]
    assert (row["rows"], row["ok"], row["dropped"], row["failed"]) == (3, 2, 0, 1)
    rows = shard(store, row)
    assert [one["uri"] for one in rows] == ["0.jpg", "1.jpg", "2.jpg"]
    assert [one["reason"] for one in rows] == ["", "", "not_an_image"]
    assert counts_of(rows) == {name: row[name] for name in ("rows", "ok", "dropped", "failed")}


def test_a_finished_shard_is_not_made_again_and_a_damaged_one_is(
    store: Store, opened: Annotator, finished: tuple[Path, Row]
) -> None:
    actor, row = actor_on(store, opened), finished[1]
    path = store.local_path(row["shard"])
    assert path is not None
    content, state = path.read_bytes(), os.stat(path)
    actor.annotate = None  # type: ignore[assignment]
    assert actor(part(store)).to_pylist() == [row]
    assert os.stat(path) == state
    path.write_bytes(content[:-1])
    actor.annotate = opened.annotate
    assert actor(part(store)).to_pylist() == [row]
    assert path.read_bytes() == content


def test_other_settings_are_another_shard(store: Store, opened: Annotator, finished: tuple[Path, Row]) -> None:
    actor, row = actor_on(store, opened), finished[1]
    actor.annotation = AnnotationSettings(image_side_px=128, actors=7, rows_per_shard=9)
    assert actor(part(store)).to_pylist() == [row]
    actor.perception = PerceptionSettings(min_face_px=50)
    actor.read = failing(opened, Reason.NOT_AN_IMAGE)  # type: ignore[assignment]
    assert actor(part(store)).to_pylist()[0]["shard"] != row["shard"]


def test_a_picture_that_ended_workers_is_a_row_and_the_others_go_on(store: Store, opened: Annotator) -> None:
    forget(store)
    actor = actor_on(store, opened)
    second = store.read_table(parts_of(store)[0].path).to_pylist()[1]["row_id"]
    entered = []

    @contextmanager
    def part_of(name: str) -> Any:
        entered.append(name)
        if name == second:
            raise PhotoError(Reason.CRASHED_WORKER, "2 attempts")
        yield

    actor.part = part_of
    (row,) = actor(part(store)).to_pylist()
    assert len(entered) == 3
    assert [one["reason"] for one in shard(store, row)] == ["", "crashed_worker", "not_an_image"]
    assert actor.ledger.done(UNIT, Path(row["shard"]).stem)


def failing(opened: Annotator, reason: Reason) -> Callable[[str], bytes]:
    def read(place: str) -> bytes:
        if place.startswith("synthetic"):
            raise PhotoError(reason, "for now")
        return opened.read(place)

    return read


def test_what_may_do_better_is_tried_by_a_second_run_and_no_third(
    store: Store, opened: Annotator, finished: tuple[Path, Row]
) -> None:
    actor, whole = actor_on(store, opened), finished[1]
    content = store.read_bytes(whole["shard"])
    forget(store)
    key = Path(whole["shard"]).stem
    actor.read = failing(opened, Reason.UNREADABLE)  # type: ignore[assignment]
    assert actor(part(store)).to_pylist()[0]["failed"] == 3
    assert actor.ledger.done(UNIT, key) is None
    actor.read = opened.read
    assert actor(part(store)).to_pylist() == [whole]  # the second run finds it
    assert store.read_bytes(whole["shard"]) == content

    forget(store)
    actor.read = failing(opened, Reason.UNREADABLE)  # type: ignore[assignment]
    actor(part(store))
    actor(part(store))
    assert actor.ledger.done(UNIT, key) is not None  # a dead letter


def test_a_part_that_crashed_as_a_whole_says_so(store: Store, opened: Annotator) -> None:
    actor = actor_on(store, opened)
    (row,) = part(store).to_pylist()
    (told,) = actor.crashed(row, "4 attempts").to_pylist()
    assert (told["shard"], told["failed"], told["reason"], told["detail"]) == (
        *(None, 3, "crashed_worker", "4 attempts"),
    )
    assert actor.unit(row) != actor.unit({**row, "part": "listing/000001-faces.parquet"})
