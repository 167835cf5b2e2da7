"""Albums in a bucket: the same rows as from a disk, and the reasons that only a bucket has."""

from pathlib import Path

import fsspec
import pytest

from studiolo.albums.records import Reason
from studiolo.albums.sources import list_albums, read_bytes
from studiolo.errors import PhotoError, SettingsError


@pytest.fixture
def bucket(s3: str, tmp_path: Path) -> str:
    """Two albums, with the same files under `tmp_path`."""
    for name in ("anna/1.jpg", "anna/holiday/2 ö.jpg", "bert/1.jpg", "bert/.DS_Store"):
        for place in (f"{s3}/albums/{name}", str(tmp_path / "albums" / name)):
            with fsspec.open(place, "wb", **({} if place.startswith("s3") else {"auto_mkdir": True})) as file:
                file.write(name.encode())
    return s3


def test_a_bucket_lists_what_a_disk_lists(bucket: str, tmp_path: Path) -> None:
    on_disk, in_bucket = list_albums(str(tmp_path / "albums")), list_albums(f"{bucket}/albums")
    assert [album.album_id for album in in_bucket] == ["anna", "bert"]
    for here, there in zip(on_disk, in_bucket, strict=True):
        assert [uri for uri, _ in here.photos] == [uri for uri, _ in there.photos]
        for (_, disk_place), (_, bucket_place) in zip(here.photos, there.photos, strict=True):
            assert bucket_place.startswith("s3://")
            assert read_bytes(bucket_place) == read_bytes(disk_place)


def test_a_manifest_in_a_bucket_names_photos_in_it(bucket: str) -> None:
    with fsspec.open(f"{bucket}/albums.csv", "w") as file:
        file.write(f"album_id,uri\nzoe,{bucket}/albums/anna/1.jpg\nzoe,{bucket}/albums/bert/1.jpg\n")
    (album,) = list_albums(f"{bucket}/albums.csv")
    assert album.album_id == "zoe"
    assert [read_bytes(place) for _, place in album.photos] == [b"anna/1.jpg", b"bert/1.jpg"]


def test_an_object_that_is_gone_is_a_reason(bucket: str) -> None:
    with pytest.raises(PhotoError) as caught:
        read_bytes(f"{bucket}/albums/anna/9.jpg")
    assert caught.value.reason == Reason.UNREADABLE


def test_a_bucket_that_is_not_there_is_an_error(s3: str) -> None:
    with pytest.raises(SettingsError, match="no-such-bucket"):
        list_albums("s3://no-such-bucket/albums")
