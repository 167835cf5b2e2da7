"""The job under load: many customers, over a thousand photos, none of them usable, every one accounted for."""

import json
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.processes import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ALBUMS = 150
REASONS = {"empty.jpg": "empty_file", "text.jpg": "not_an_image", "tiny.png": "too_small", "blank.png": "no_face"}


@pytest.fixture(scope="module")
def albums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Albums of eight photos: four that cannot be used and a copy of each."""
    folder = tmp_path_factory.mktemp("albums")
    Image.new("RGB", (40, 40), "grey").save(folder.parent / "tiny.png")
    Image.new("RGB", (96, 96), "grey").save(folder.parent / "blank.png")
    content = {"empty.jpg": b"", "text.jpg": b"this is no picture"}
    content |= {name: (folder.parent / name).read_bytes() for name in ("tiny.png", "blank.png")}
    for number in range(ALBUMS):
        album = folder / f"customer {number:03d}"
        album.mkdir()
        for name, data in content.items():
            (album / name).write_bytes(data)
            (album / f"again-{name}").write_bytes(data)
    return folder


LIMIT_S = 1500.0


def written(out: Path) -> dict[str, int]:
    """When each record of the ledger was written, in ns: a unit done again would write it again."""
    return {str(path): path.stat().st_mtime_ns for path in (out / "ledger").rglob("*.json")}


def test_every_photo_of_many_albums_ends_with_a_reason(albums: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs", "studio", "--albums", str(albums), "--out", str(tmp_path / "out")]
    finished = run(command, LIMIT_S)
    assert finished.returncode == 3, finished.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    photos = 2 * len(REASONS) * ALBUMS
    assert summary["photos_in"] == photos == summary["photos_dropped"] + summary["photos_failed"]
    assert summary["identities"] == summary["identities_failed"] == ALBUMS
    rows = [
        photo | {"album": album["album_id"]}
        for album in pq.read_table(tmp_path / "out" / "albums.parquet").to_pylist()
        for photo in album["photos"]
    ]
    assert len({(row["album"], row["uri"]) for row in rows}) == photos
    reasons = Counter((row["uri"].removeprefix("again-"), row["reason"]) for row in rows)
    expected = {item: 2 * ALBUMS for item in REASONS.items()}
    expected |= {("blank.png", "no_face"): ALBUMS, ("blank.png", "duplicate"): ALBUMS}  # copies of photos that open
    assert reasons == expected

    assert (tmp_path / "out" / "gallery" / "index.html").stat().st_size > 0

    records = written(tmp_path / "out")
    again = run(command, LIMIT_S)
    assert again.returncode == 3, again.stderr
    assert written(tmp_path / "out") == records
    unchanged = ("photos_in", "photos_dropped", "photos_failed", "identities", "identities_failed")
    summary_again = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {name: summary_again[name] for name in unchanged} == {name: summary[name] for name in unchanged}
