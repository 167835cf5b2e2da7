"""Exit codes of `python -m jobs studio` as a shell sees them; 3 is in test_studio_killed.py."""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from jobs.studio_job import require_photos
from studiolo.albums.records import Reason
from studiolo.errors import StudioloError
from studiolo.storage.store import Store
from tests.processes import run


@pytest.fixture
def albums(tmp_path: Path, weights: Path) -> Path:
    """Two albums of one empty file."""
    for name in ("anna", "ben"):
        (tmp_path / "albums" / name).mkdir(parents=True)
        (tmp_path / "albums" / name / "photo.jpg").write_bytes(b"")
    return tmp_path / "albums"


def studio(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs", "studio", *map(str, options)]
    return run(command)


def says(result: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    assert result.returncode == code, result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_2_for_what_is_misspelt(albums: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "bad.yaml").write_text("genration: {steps: 3}")
    says(studio("--albums", albums, "--out", out, "--config", tmp_path / "bad.yaml"), 2, "'generation'")
    says(studio("--albums", albums, "--out", out, "--config", tmp_path / "bda.yaml"), 2, "'bad.yaml'")
    says(studio("--albums", albums, "--out", out, "--styles", "stduio"), 2, "'studio'")
    says(studio("--albums", tmp_path / "ablums", "--out", out), 2, "'albums'")
    assert not out.exists()


def test_2_for_a_plan_that_does_not_fit(albums: Path, tmp_path: Path) -> None:
    (tmp_path / "studio.yaml").write_text("{cpus: 1, object_store_mib: 100, perception: {cpus_per_actor: 2}}")
    result = studio("--albums", albums, "--out", tmp_path / "out", "--config", tmp_path / "studio.yaml")
    says(result, 2, "perception.cpus_per_actor")


def test_1_for_a_job_that_cannot_go_on(albums: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "out").lock("another"):
        says(studio("--albums", albums, "--out", tmp_path / "out"), 1, "wanted no other live job")


def test_1_for_albums_of_which_too_many_photos_failed(albums: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    says(studio("--albums", albums, "--out", out), 1, "2 of 2 photos could not be read or decoded (2 empty_file)")
    (row, _) = Store(out).read_table("albums.parquet").to_pylist()
    assert [photo["reason"] for photo in row["photos"]] == [Reason.EMPTY_FILE]
    assert not (out / "face_loras.parquet").exists()


@pytest.mark.parametrize(
    ("reasons", "share", "message"),
    [
        (
            ["damaged", "unreadable", "unreadable", ""],
            0.5,
            r"3 of 4 .* \(2 unreadable, 1 damaged\), wanted at most 50%",
        ),
        (["damaged", "unreadable", "", ""], 0.5, None),
        (["damaged", "", "", ""], 0.0, "1 of 4"),
        (["damaged", "damaged"], 1.0, None),
        ([], 0.0, None),
    ],
)
def test_the_share_of_failed_photos_counts_over_all_albums(
    reasons: list[str], share: float, message: str | None
) -> None:
    photos = [{"status": "failed" if reason else "dropped", "reason": reason or "no_face"} for reason in reasons]
    albums = [{"photos": photos[:1]}, {"photos": photos[1:]}]
    with pytest.raises(StudioloError, match=message) if message else nullcontext():
        require_photos(albums, share)
