"""A release in one line of `datasets`."""

from pathlib import Path

import pytest

from studiolo.storage.store import Store
from tests.datasets.test_releases import make_shards, release
from tests.datasets.test_verify import whole


def test_load_dataset_reads_a_release_with_its_splits_and_decodes_pictures(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    store = Store(tmp_path / "out")
    record = release(store, make_shards(store, whole))
    found = datasets.load_dataset(str(tmp_path / "out" / "releases" / "0001"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in found.items()} == record["counts"]["splits"]
    row = found["train"][0]
    assert row["image"].size == row["mask"].size == (16, 16)
    assert row["mask"].mode == "L"
    assert row["identity"].startswith("faces/")
    stream = datasets.load_dataset(str(tmp_path / "out" / "releases" / "0001"), split="test", streaming=True)
    assert next(iter(stream))["image"].size == (16, 16)
