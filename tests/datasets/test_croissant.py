"""Against MLCommons' own reader."""

import hashlib
import logging

import mlcroissant as mlc
import numpy as np
import pytest

from studiolo.datasets.croissant import CROISSANT, RECORD_SET, croissant
from studiolo.datasets.figures import release_figures
from studiolo.datasets.records import DATA_SCHEMA
from studiolo.datasets.release_files import ReleaseFiles
from tests.datasets.release import NAME


def test_mlcroissant_validates_it_and_reads_every_row(described_release, caplog: pytest.LogCaptureFixture):
    store, rows = described_release
    path = store.local_path(f"releases/{NAME}/{CROISSANT}")
    with caplog.at_level(logging.WARNING):
        dataset = mlc.Dataset(jsonld=path)
    issues = dataset.metadata.ctx.issues
    assert issues.errors == set()
    (date,) = issues.warnings
    assert "datePublished" in date
    assert "@context" not in caplog.text
    read = {record[f"{RECORD_SET}/row_id"].decode(): record for record in dataset.records(RECORD_SET)}
    assert set(read) == {row["row_id"] for row in rows}
    for row in rows:
        record = read[row["row_id"]]
        assert record[f"{RECORD_SET}/split"].decode() == row["split"]
        assert record[f"{RECORD_SET}/known"] == row["known"]
        assert record[f"{RECORD_SET}/attributes.age_years"] == pytest.approx(row["attributes"]["age_years"])
        assert np.asarray(record[f"{RECORD_SET}/image"]).shape == (128, 128, 3)


def test_files_are_named_with_their_hashes(finished_release):
    store, _ = finished_release
    files = ReleaseFiles(store, NAME)
    metadata = croissant(files, release_figures(files))
    objects = [one for one in metadata["distribution"] if one["@type"] == "cr:FileObject"]
    assert len(objects) == len(files.data_paths())
    for one in objects:
        content = store.read_bytes(files.place(one["contentUrl"]))
        assert one["sha256"] == hashlib.sha256(content).hexdigest()
    fields = {field["source"]["extract"]["column"] for field in metadata["recordSet"][0]["field"]}
    assert {"image", "mask", "attributes", "identity", "split"} <= fields <= set(DATA_SCHEMA.names)
