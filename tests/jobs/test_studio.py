"""The whole job on real models, on the session's cluster."""

import json
from pathlib import Path

import psutil
import pytest
from PIL import Image
from typer.testing import CliRunner

from jobs import studio_job
from jobs.__main__ import app
from studiolo.albums.records import Reason
from studiolo.errors import LicenceError, SettingsError
from studiolo.identities.references import CROP_SIDE_PX
from studiolo.portraits.files import decode_portrait
from studiolo.settings import StudioSettings
from studiolo.storage.store import Store

DRIVER_GIB = 0.8
"""What a driver of its own takes; this process is one, and holds what other tests have loaded besides."""


@pytest.fixture(scope="module")
def finished(small_albums, quick_config, tmp_path_factory, ray_cluster):
    """Settings, exit code and store of one finished job; the session's cluster stays up."""
    out = tmp_path_factory.mktemp("out")
    settings = StudioSettings.load(quick_config, {"albums": str(small_albums), "out": str(out), "seed": 7})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studio_job, "stop", lambda: None)
        code = studio_job.run(settings)
    return settings, code, Store(str(out))


def test_a_job_with_a_failed_identity_ends_with_3(finished):
    assert finished[1] == 3


def test_nothing_is_lost(finished, small_albums):
    summary = finished[2].read_json("summary.json")
    files = [path for path in small_albums.rglob("*") if path.is_file()]
    assert summary["photos_in"] == len(files)
    assert summary["photos_in"] == summary["photos_ok"] + summary["photos_dropped"] + summary["photos_failed"]
    assert summary["identities"] == 3
    assert summary["identities_failed"] >= 1
    others_gib = summary["peak_rss_gib"] - psutil.Process().memory_info().rss / 2**30
    assert 0 < others_gib < 6 - DRIVER_GIB
    assert set(summary["seconds_by_stage"]) == set(studio_job.STAGES) - {"prints"}
    assert min(summary["seconds_by_stage"].values()) > 0


def test_every_identity_says_why_it_failed(finished):
    rows = finished[2].read_table("identities.parquet").to_pylist()
    nobody = next(row for row in rows if row["identity_id"] == "nobody")
    assert (nobody["status"], nobody["reason"]) == ("failed", Reason.NOTHING_USABLE)
    assert "not_an_image" in nobody["detail"]
    assert "empty_file" in nobody["detail"]


def test_every_candidate_is_recorded_and_on_disk(finished):
    settings, _, store = finished
    rows = store.read_table("portraits.parquet").to_pylist()
    assert len(rows) == 2 * settings.per_style * settings.generation.candidates_per_portrait
    assert len({row["seed"] for row in rows}) == len(rows)
    for row in rows:
        pixels, inside = decode_portrait(store.read_bytes(row["path"]))
        assert pixels.ndim == 3
        assert inside["seed"] == row["seed"]
        assert inside["prompt"] == row["prompt"]
        assert row["status"] == "ok" or row["reason"]
        assert row["fusion"] in ("done", "no_face")
        assert row["fusion"] == "done" or row["similarity"] == row["similarity_unfused"]


def test_references_are_crops_with_captions(finished):
    store = finished[2]
    rows = store.read_table("references.parquet").to_pylist()
    assert rows
    for row in rows:
        for path in (row["crop_path"], row["mask_path"]):
            with Image.open(store.local_path(path)) as picture:
                assert picture.size == (CROP_SIDE_PX, CROP_SIDE_PX)
        assert row["caption"].startswith(row["trigger"])


def test_the_gallery_and_the_tracking_are_there(finished):
    store = finished[2]
    html = store.read_bytes("gallery/index.html").decode()
    assert "P001" in html
    assert "nobody" in html
    assert store.exists("mlflow.db")


def test_running_again_does_nothing_again(finished):
    settings, code, store = finished
    before = {path: store.read_bytes(path) for path in store.list("identities")}
    tables = {name: store.read_table(name) for name in ("portraits.parquet", "references.parquet")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studio_job, "stop", lambda: None)
        assert studio_job.run(settings) == code
    assert {path: store.read_bytes(path) for path in store.list("identities")} == before
    assert {name: store.read_table(name) for name in tables} == tables
    assert all(row["resumed"] for row in store.read_table("face_loras.parquet").to_pylist())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--styles", "studoi"], "studio"),
        (["--suite", "embeded"], "embedded"),
        (["--albums", "/nowhere/at/all"], "nothing is there"),
        (["--commercial"], "commercial"),
    ],
)
def test_a_request_that_cannot_be_carried_out_fails_before_any_work(small_albums, tmp_path, options, says):
    out = tmp_path / "out"
    defaults = {"--albums": str(small_albums), "--out": str(out)}
    if options[0] in defaults:
        del defaults[options[0]]
    arguments = ["studio", *[part for pair in defaults.items() for part in pair], *options]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SettingsError | LicenceError)
    assert says in str(result.exception)
    assert not out.exists()


def test_a_misspelt_option_is_told_the_right_one():
    result = CliRunner().invoke(app, ["studio", "--stlyes", "studio"])
    assert result.exit_code == 2
    assert "--styles" in result.output


def test_summary_is_json_people_can_read(finished):
    store = finished[2]
    text = store.read_bytes("summary.json").decode()
    assert json.loads(text)["versions"]["studiolo"]
    assert str(Path.home()) not in text
