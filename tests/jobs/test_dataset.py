"""The whole dataset job on real models, on the session's cluster."""

import io
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.dataset as pa_dataset
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from jobs import dataset_job
from jobs.__main__ import app
from studiolo.datasets import releases
from studiolo.datasets.settings import DatasetSettings
from studiolo.datasets.sources.reading import PictureReader, synthetic_face
from studiolo.errors import SettingsError, StudioloError
from studiolo.storage.store import Store

SMALL = {
    "annotation": {"image_side_px": 128, "rows_per_shard": 4, "actors": 1},  # each opens all models
    "captions": {"actors": 1},
    "release": {"min_quality": 0.05, "validation_share": 0.3, "test_share": 0.3, "rows_per_file": 3},
}


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """Five faces, one of them twice and once more smaller, a picture of nothing, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("faces")
    read = PictureReader()
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(read(synthetic_face(number, 256)))
    (folder / "copy-of-0.jpg").write_bytes((folder / "0.jpg").read_bytes())
    smaller = cv2.resize(cv2.imread(str(folder / "1.jpg")), (200, 200), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / "smaller-1.jpg"), smaller)
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "noise.png"), noise)
    (folder / "text.jpg").write_bytes(b"no picture")
    return folder


def run(out: Path, *sources: str, **more: Any) -> int:
    settings = DatasetSettings.load(None, {**SMALL, "sources": list(sources), "out": str(out), **more})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset_job, "stop", lambda: None)
        return dataset_job.run(settings)


@pytest.fixture(scope="module")
def finished(faces: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: float) -> tuple[Path, int]:
    """Output and exit code of one finished job."""
    out = tmp_path_factory.mktemp("out")
    return out, run(out, f"{faces};name=faces;licence=CC0")


ALL = ("listing", "shards", "captions", "releases", "ledger")


def contents(out: Path, *folders: str) -> dict[str, bytes]:
    store = Store(out)
    return {path: store.read_bytes(path) for folder in folders for path in store.list(folder)}


def decisions(out: Path, name: str = "0001") -> dict[str, dict[str, Any]]:
    """By place within the source."""
    store = Store(out)
    uris = {row["row_id"]: row["uri"] for path in store.list("listing") for row in store.iter_rows(path)}
    return {uris[row["row_id"]]: row for row in store.iter_rows(f"releases/{name}/decisions.parquet")}


def test_every_picture_has_a_fate(finished: tuple[Path, int], faces: Path) -> None:
    out, code = finished
    found = decisions(out)
    assert code == 3  # text.jpg
    assert set(found) == {path.name for path in faces.iterdir()}
    assert {uri: row["reason"] for uri, row in found.items() if not row["keep"]} == {
        "copy-of-0.jpg": "exact_duplicate",
        "smaller-1.jpg": "near_duplicate",
        "noise.png": "not_annotated",
        "text.jpg": "not_annotated",
    }
    assert found["copy-of-0.jpg"]["duplicate_of"] == found["0.jpg"]["row_id"]
    assert found["noise.png"]["detail"] == "no_face"


def test_the_same_again_changes_nothing(finished: tuple[Path, int], faces: Path) -> None:
    out, code = finished
    before = contents(out, *ALL)
    assert run(out, f"{faces};name=faces;licence=CC0") == code
    assert contents(out, *ALL) == before
    assert Store(out).list("attempts") == []


def test_another_source_annotates_and_says_nothing_again(finished: tuple[Path, int], faces: Path) -> None:
    out, _ = finished
    before = contents(out, "shards", "captions", "releases/0001")
    sources = (f"{faces};name=faces;licence=CC0", "synthetic:count=2,seed=5,side=256;weight=0.5")
    run(out, *sources, formats=["consistentid", "webdataset"])
    more = contents(out, "shards", "captions", "releases/0001")
    assert more.items() > before.items()
    assert len(more) == len(before) + 2  # a shard and its captions
    both = decisions(out, "0002")
    assert both["0000000.jpg"]["weight"] == 0.5
    assert {uri: row for uri, row in both.items() if uri in decisions(out)} == decisions(out)
    entries = Store(out).read_json("releases/0002/consistentid/JSON_all.json")
    assert len(entries) == sum(row["keep"] for row in both.values())
    assert all(entry["vqa_llva"] and entry["vqa_llva_more_face_detail"] for entry in entries)
    told = CliRunner().invoke(app, ["dataset", "compare", str(out), "0001", "0002"])
    assert told.exit_code == 0
    assert "\tabsent\ttrain" in told.output


def test_verify_finds_sound_releases_sound(finished: tuple[Path, int]) -> None:
    for name in releases.finished(Store(finished[0])):
        told = CliRunner().invoke(app, ["dataset", "verify", str(finished[0]), "--release", name])
        assert (told.exit_code, told.stdout) == (0, "")


def test_a_release_says_what_it_holds(finished: tuple[Path, int]) -> None:
    out, _ = finished
    card = (out / "releases/0001/README.md").read_text()
    assert "5 faces of 5 identities" in card
    assert "| faces | 9 | 5 | 1 | CC0 | unknown |" in card
    rows = pa_dataset.dataset(str(out / "releases/0001/data")).to_table(["captions", "captioner"]).to_pylist()
    assert len({row["captioner"] for row in rows}) == 1
    for row in rows:
        assert row["captions"][0]["part"] == "whole"
        assert {"face", "eyes", "nose", "mouth"} <= {caption["part"] for caption in row["captions"]}
    assert (out / "releases/0001/index.html").exists()


class Faces(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Pictures and masks of a release, as the README shows it."""

    def __init__(self, folder: Path, split: str) -> None:
        files = sorted(map(str, folder.glob(f"{split}-*.parquet")))
        self.rows = pa_dataset.dataset(files).to_table(["image", "mask"])

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        row = self.rows.slice(index, 1).to_pylist()[0]
        image, mask = (np.array(Image.open(io.BytesIO(row[name]["bytes"]))) for name in ("image", "mask"))
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)


def test_a_dataloader_reads_the_files(finished: tuple[Path, int]) -> None:
    _, record = releases.find(Store(finished[0]), "0001")
    read = 0
    for split, count in record["counts"]["splits"].items():
        if count:
            loader = torch.utils.data.DataLoader(Faces(finished[0] / "releases/0001/data", split), batch_size=2)
            for images, masks in loader:
                assert images.shape[1:] == (3, 128, 128)
                assert masks.shape[1:] == (128, 128)
                assert int(masks.max()) >= 5
                read += len(images)
    assert read == record["counts"]["kept"] == 5


def rows_with_pictures(out: Path) -> list[dict[str, Any]]:
    store = Store(out)
    tables = [*store.list("shards"), *(path for path in store.list("releases") if "/data/" in path)]
    return [row for path in tables for row in store.iter_rows(path, ["uri", "image"]) if row["image"]]


def test_who_is_erased_or_opts_out_later_is_gone_and_does_not_come_back(
    finished: tuple[Path, int], faces: Path, tmp_path: Path
) -> None:
    out, source = tmp_path / "out", f"{faces};name=faces;licence=CC0"
    shutil.copytree(finished[0], out)
    seen = {row["uri"] for row in rows_with_pictures(out)}
    assert {"3.jpg", "4.jpg"} <= seen
    told = CliRunner().invoke(app, ["dataset", "erase", str(out), "--identity", decisions(out)["4.jpg"]["identity"]])
    assert (told.exit_code, told.stdout) == (0, "erasures/0001.json\n")
    assert CliRunner().invoke(app, ["dataset", "verify", str(out)]).exit_code == 0
    assert {row["uri"] for row in rows_with_pictures(out)} == seen - {"4.jpg"}
    assert "4 faces of 4 identities" in (out / "releases/0001/README.md").read_text()

    (row,) = [row for path in Store(out).list("shards") for row in Store(out).iter_rows(path) if row["uri"] == "3.jpg"]
    (tmp_path / "list.jsonl").write_text(f'{{"content_sha256": "{row["content_sha256"]}"}}\n')
    assert run(out, source, opt_out=str(tmp_path / "list.jsonl")) == 3
    last = decisions(out, releases.find(Store(out))[0])
    assert {uri for uri, row in last.items() if row["reason"] == "opted_out"} == {"3.jpg", "4.jpg"}
    assert {row["uri"] for row in rows_with_pictures(out)} == seen - {"3.jpg", "4.jpg"}
    assert Store(out).read_json("erasures/0002.json")["rows"] == [row["row_id"]]
    told = CliRunner().invoke(app, ["dataset", "erase", str(out), "--identity", "faces/nobody"])
    assert isinstance(told.exception, SettingsError)


def test_a_source_of_which_all_fails_stops_the_job(tmp_path: Path, ray_cluster: float, weights: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(b"no picture")
    with pytest.raises(StudioloError, match="3 of 3 pictures could not be read or decoded"):
        run(tmp_path / "out", f"{tmp_path}/in;name=faces")
    assert not Store(tmp_path / "out").exists("releases")


def test_requests_that_cannot_be_carried_out_are_refused(tmp_path: Path, faces: Path) -> None:
    for more, message in [
        ({"sources": [str(faces)], "out": str(faces / "out")}, "neither lies in the other"),
        ({"sources": [str(faces), str(faces)]}, "two sources are called"),
        ({"sources": []}, "at least 1 item"),
        ({"sources": ["synthetic:count=1"], "suite": "modelscope"}, "has no perception yet"),
        ({"sources": ["synthetic:count=1"], "out": "memory://out"}, "give --tracking-uri"),
        ({"sources": ["synthetic:count=1;name=unknown"]}, "wanted another name"),
        ({"sources": [str(faces)], "opt_out": str(tmp_path / "no.jsonl")}, "cannot be read"),
    ]:
        with pytest.raises(SettingsError, match=message):
            dataset_job.run(DatasetSettings.load(None, {"out": str(tmp_path / "out"), **more}))
    assert not (tmp_path / "out").exists()
