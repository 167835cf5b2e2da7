"""The whole job with albums and output in a bucket: exit 0, and the same again finds everything done."""

import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from studiolo.storage.store import Store
from tests.processes import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SETTINGS = """
per_style: 1
generation: {steps: 2, accept_similarity: 0, retries: 0, candidates_per_portrait: 4, upscale: 1}
face_lora: {steps: 4, batch_size: 2}
"""


def studio(bucket: str, folder: Path) -> subprocess.CompletedProcess[str]:
    options = ["--albums", f"{bucket}/albums", "--out", f"{bucket}/out", "--config", str(folder / "studio.yaml")]
    options += ["--tracking-uri", f"sqlite:///{folder / 'runs.db'}"]
    command = [sys.executable, "-m", "jobs", "studio", *options]
    return run(command, limit_s=1200)


def test_albums_and_output_in_a_bucket(s3: str, people: Path, tmp_path: Path) -> None:
    for photo in sorted((people / "P001").iterdir())[:6]:
        with fsspec.open(f"{s3}/albums/Zoë & co/{photo.name}", "wb") as file:
            file.write(photo.read_bytes())
    (tmp_path / "studio.yaml").write_text(SETTINGS)
    first = studio(s3, tmp_path)
    assert first.returncode == 0, first.stderr
    store = Store(f"{s3}/out")
    summary = store.read_json("summary.json")
    assert summary["photos_in"] == 6
    assert summary["portraits_accepted"] == 1
    assert store.exists("gallery/index.html")
    images = {row["path"]: row["image_sha256"] for row in store.read_table("portraits.parquet").to_pylist()}
    assert all(store.read_bytes(path).startswith(b"\x89PNG") for path in images)
    second = studio(s3, tmp_path)
    assert second.returncode == 0, second.stderr
    again = {row["path"]: row["image_sha256"] for row in store.read_table("portraits.parquet").to_pylist()}
    assert again == images
    assert sum(store.read_json("summary.json")["seconds_by_stage"].values()) < sum(summary["seconds_by_stage"].values())
