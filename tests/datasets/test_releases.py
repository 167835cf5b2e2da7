"""A release from made-up shards, written by the actor itself."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pyarrow.parquet as pq
import pytest

from actors.exporter import Exporter
from studiolo.datasets import releases
from studiolo.datasets.decide import decide
from studiolo.datasets.measures import Shard, gather
from studiolo.datasets.records import DATA_SCHEMA, DECISION_SCHEMA
from studiolo.datasets.settings import ReleaseSettings, SourceSettings
from studiolo.errors import SettingsError
from studiolo.storage.store import Store
from tests.datasets.rows import CAPTIONER, Row, listed, make_output

SOURCES = {"faces": SourceSettings(kind="folder", place="/faces", name="faces", licence="CC0")}
SETTINGS = ReleaseSettings(rows_per_file=5, rows_per_group=2, validation_share=0.3, test_share=0.3)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Shard]]:
    """An output of shards."""
    folder = tmp_path_factory.mktemp("made")
    return folder, make_shards(Store(folder))


@pytest.fixture
def store(made: tuple[Path, list[Shard]], tmp_path: Path) -> Store:
    return Store(shutil.copytree(made[0], tmp_path / "copy"))


def of_person(person: int) -> Row:
    return {"person": person}


def make_shards(store: Store, said: Callable[[int], Row] = of_person) -> list[Shard]:
    """Thirty pictures of fifteen people, of which one is unsafe; `said` of the person beside."""
    rows: list[tuple[Any, Row]] = [
        (listed(f"{number:02d}", f"p{number // 2}"), {**said(number // 2), "unsafe_score": float(number == 3)})
        for number in range(30)
    ]
    return make_output(store, "faces", rows)


@pytest.fixture
def shards(made: tuple[Path, list[Shard]]) -> list[Shard]:
    return made[1]


def release(store: Store, shards: list[Shard], settings: ReleaseSettings = SETTINGS) -> Row:
    """As the job does it, in this process."""
    measures = gather(store, shards)
    key = releases.release_key(measures, settings, SOURCES, CAPTIONER)
    name, record = releases.name_of(store, key)
    if record is not None:
        return record
    decisions = decide(measures, settings)
    releases.write_decisions(store, name, measures, decisions, settings, SOURCES)
    counts = releases.counted(store.iter_rows(f"releases/{name}/decisions.parquet"))
    exporter = Exporter(store)
    exporter.open()
    table = pa.Table.from_pylist(
        list(releases.data_files(store, name, counts["splits"], settings, CAPTIONER)), releases.FILE_INPUT
    )
    said = {
        "key": key,
        "captioner": CAPTIONER,
        "merged_across_splits": decisions.across_splits,
        "settings": settings.model_dump(mode="json"),
        "sources": [releases.source_row(source) for source in SOURCES.values()],
        "counts": counts,
    }
    return releases.complete(store, name, said, exporter(table).to_pylist())


def data(store: Store, record: Row, split: str) -> pa.Table:
    folder = store.local_path(f"releases/{record['name']}/data")
    assert folder is not None
    files = sorted(str(path) for path in folder.glob(f"{split}-*.parquet"))
    return pa_dataset.dataset(files).to_table() if files else DATA_SCHEMA.empty_table()


def test_the_kept_rows_are_in_the_files_of_their_splits(store: Store, shards: list[Shard]) -> None:
    record = release(store, shards)
    decisions = store.read_table("releases/0001/decisions.parquet")
    assert decisions.schema == DECISION_SCHEMA
    for split in ("train", "validation", "test"):
        wanted = [row for row in decisions.to_pylist() if row["split"] == split]
        rows = data(store, record, split).to_pylist()
        assert [row["row_id"] for row in rows] == [row["row_id"] for row in wanted]
        assert [row["identity"] for row in rows] == [row["identity"] for row in wanted]
        assert {row["licence"] for row in rows} == {"CC0"}
        assert {row["captioner"] for row in rows} == {CAPTIONER}
        assert [row["captions"][0]["text"] for row in rows] == [f"Picture {row['uri']}." for row in rows]
        assert all(row["image"]["bytes"] == b"image of " + row["uri"].encode() for row in rows)
        assert len(rows) == record["counts"]["splits"][split] > 5


def test_files_are_named_and_grouped_for_readers_that_stream(store: Store, shards: list[Shard]) -> None:
    record = release(store, shards)
    trains = [file["path"] for file in record["files"] if file.get("split") == "train"]
    assert trains == [f"data/train-{number:05d}-of-{len(trains):05d}.parquet" for number in range(len(trains))]
    file = pq.ParquetFile(store.local_path(f"releases/0001/{trains[0]}"))
    assert file.schema_arrow.equals(DATA_SCHEMA)
    assert [file.metadata.row_group(number).num_rows for number in range(3)] == [2, 2, 1]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_the_same_again_is_the_same_release(store: Store, shards: list[Shard]) -> None:
    record = release(store, shards)
    before = {path: store.read_bytes(path) for path in store.list()}
    assert release(store, shards) == record
    assert {path: store.read_bytes(path) for path in store.list()} == before


def test_another_threshold_is_another_release_and_the_first_stays(store: Store, shards: list[Shard]) -> None:
    first = release(store, shards)
    before = {path: store.read_bytes(path) for path in store.list()}
    second = release(store, shards, SETTINGS.model_copy(update={"unsafe_above": 1.0}))
    assert (first["name"], second["name"]) == ("0001", "0002")
    assert second["counts"]["kept"] == first["counts"]["kept"] + 1
    after = {path: store.read_bytes(path) for path in store.list()}
    assert after.items() >= before.items()
    assert list(releases.finished(store)) == ["0001", "0002"]
    assert releases.find(store)[0] == "0002"
    with pytest.raises(SettingsError, match="no release is called '0003'"):
        releases.find(store, "0003")


@pytest.mark.parametrize("written", [0, 1, 3])
def test_an_interrupted_release_is_made_again_under_its_number(
    store: Store, shards: list[Shard], tmp_path: Path, written: int
) -> None:
    whole = Store(shutil.copytree(str(store.url), tmp_path / "whole"))
    wanted = release(whole, shards)
    measures = gather(store, shards)
    other = SETTINGS.model_copy(update={"rows_per_file": 3})
    decisions = decide(measures, other)
    releases.write_decisions(store, "0001", measures, decisions, other, SOURCES)
    exporter = Exporter(store)
    exporter.open()
    counts = releases.counted(store.iter_rows("releases/0001/decisions.parquet"))
    planned = list(releases.data_files(store, "0001", counts["splits"], other, CAPTIONER))
    exporter(pa.Table.from_pylist(planned[:written], releases.FILE_INPUT))
    with pytest.raises(SettingsError, match="there is no release"):
        releases.find(store)
    assert release(store, shards) == wanted
    for path in whole.list("releases"):
        assert store.read_bytes(path) == whole.read_bytes(path)
    assert store.list("releases") == whole.list("releases")
