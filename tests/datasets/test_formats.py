import hashlib
import io
import json
import tarfile
from pathlib import Path

import cv2
import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from studiolo.datasets.captions.markers import MARKER, Marked, unmark
from studiolo.datasets.formats import (
    FOLDERS,
    RESIZED_PX,
    details_of,
    parsing_mask,
    write_consistentid,
    write_tar,
    write_webdataset,
)
from studiolo.datasets.masks import COLOURS, outlines, painted, picture_and_mask
from studiolo.datasets.records import WHOLE
from studiolo.datasets.release_files import caption_of
from studiolo.perception.regions import Region
from tests.datasets.release import NAME

KEYS = [
    *("origin_IMG", "resize_IMG", "parsing_color_IMG", "parsing_mask_IMG", "vqa_llva", "vqa_llva_more_face_detail"),
    *("id_embed_file_resize", "id_embed_file_origin"),
]
"""As published (facts of the release: one JSON list of these)."""


def test_consistentids_json_has_the_published_keys_and_its_files(release):
    store, rows = release
    assert write_consistentid(store, NAME) == len(rows)
    base = f"releases/{NAME}/consistentid"
    entries = json.loads(store.read_bytes(f"{base}/JSON_all.json"))
    assert [list(entry) for entry in entries] == [KEYS] * len(rows)
    row_of = {row["row_id"]: row for row in rows}
    for entry in entries:
        row = row_of[Path(entry["origin_IMG"]).stem]
        for folder in FOLDERS[:-1]:
            assert store.exists(f"{base}/{folder}/{entry[folder]}")
        assert store.read_bytes(f"{base}/origin_IMG/{entry['origin_IMG']}") == row["image"]["bytes"]
        assert entry["vqa_llva"] == caption_of(row, WHOLE)
        assert entry["vqa_llva_more_face_detail"] == " ".join(details_of(row))
        assert MARKER not in json.dumps(entry)
    resized = Image.open(io.BytesIO(store.read_bytes(f"{base}/resize_IMG/{entries[0]['resize_IMG']}")))
    mask = Image.open(io.BytesIO(store.read_bytes(f"{base}/parsing_mask_IMG/{entries[0]['parsing_mask_IMG']}")))
    assert resized.size == mask.size == (RESIZED_PX, RESIZED_PX)
    assert (resized.mode, mask.mode) == ("RGB", "L")
    for kind in ("resize", "origin"):
        content = store.read_bytes(f"{base}/all_faceID/{entries[0][f'id_embed_file_{kind}']}")
        embedding = torch.load(io.BytesIO(content), weights_only=True)
        assert embedding.shape == (1, 128)
        row = row_of[Path(entries[0]["origin_IMG"]).stem]
        assert embedding[0].numpy() == pytest.approx(np.asarray(row["face_embedding"], np.float32))
    assert len(store.list(base)) == 1 + 5 * len(rows)


def test_a_mask_gets_the_published_class_ids(finished_release):
    _, rows = finished_release
    parsing, (_, regions) = parsing_mask(rows[0]), picture_and_mask(rows[0])
    pairs = {Region.SKIN: {1}, Region.BROWS: {2, 3}, Region.EYES: {4, 5}, Region.NOSE: {10}, Region.LIPS: {12, 13}}
    pairs |= {Region.HAIR: {17}, Region.BODY: {16}, Region.BACKGROUND: {0}}
    for region, ids in pairs.items():
        assert set(np.unique(parsing[regions == region]).tolist()) == ids
    assert np.nonzero(parsing == 4)[1].max() < np.nonzero(parsing == 5)[1].min()
    assert np.nonzero(parsing == 12)[0].max() < np.nonzero(parsing == 13)[0].min()


def test_tars_hold_every_row_and_are_read_by_datasets(release):
    store, rows = release
    paths = write_webdataset(store, NAME, rows_per_tar=4)
    train = [row for row in rows if row["split"] == "train"]
    assert len(paths) == -(-len(train) // 4) + 1
    local = [str(store.local_path(path)) for path in paths]
    loaded = datasets.load_dataset("webdataset", data_files={"all": local}, split="all", streaming=True)
    by_key = {sample["__key__"]: sample for sample in loaded}
    assert set(by_key) == {row["row_id"] for row in rows}
    for row in rows:
        sample = by_key[row["row_id"]]
        assert sample["json"]["identity"] == row["identity"]
        assert np.asarray(sample["jpg"]).shape == (128, 128, 3)
        assert np.asarray(sample["face.npy"]) == pytest.approx(np.asarray(row["face_embedding"], np.float32))
        said = Marked(sample["txt"], tuple(sample["json"]["marked_regions"]), tuple(sample["json"]["marked_words"]))
        assert unmark(said) == f"{caption_of(row, WHOLE)} {' '.join(details_of(row))}"
        assert {"face", "eyes", "nose", "mouth"} <= set(said.regions)


def test_the_same_release_gives_the_same_bytes(release):
    store, _ = release

    def written() -> dict[str, str]:
        write_consistentid(store, NAME)
        write_webdataset(store, NAME)
        folders = (f"releases/{NAME}/consistentid", f"releases/{NAME}/webdataset")
        paths = [path for folder in folders for path in store.list(folder)]
        return {path: hashlib.sha256(store.read_bytes(path)).hexdigest() for path in paths}

    assert written() == written()


def test_a_tar_depends_on_names_and_contents_only():
    first, second = io.BytesIO(), io.BytesIO()
    for file in (first, second):
        write_tar(file, [("a.txt", b"one"), ("b.json", b"{}")])
    assert first.getvalue() == second.getvalue()
    first.seek(0)
    with tarfile.open(fileobj=first) as tar:
        assert [(entry.name, entry.mtime, entry.uid, entry.uname) for entry in tar] == [
            ("a.txt", 0, 0, ""),
            ("b.json", 0, 0, ""),
        ]


def test_outlines_filled_are_the_mask(finished_release):
    _, rows = finished_release
    rgb_u8, regions = picture_and_mask(rows[0])
    rings = outlines(regions)
    assert set(rings) == set(COLOURS)
    for region, found in rings.items():
        filled = np.zeros(regions.shape, np.uint8)
        cv2.fillPoly(filled, found, 1)  # by the even-odd rule
        mask = regions == region
        assert (filled.astype(bool) & mask).sum() / (filled.astype(bool) | mask).sum() > 0.8, region
    shown = painted(rgb_u8, regions)
    assert (shown[regions == 0] == rgb_u8[regions == 0]).all()
    assert (shown[regions == Region.LIPS] != rgb_u8[regions == Region.LIPS]).any()
