import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from studiolo.albums.records import Reason
from studiolo.albums.sources import AlbumSource, folders_of, is_junk, list_albums, read_bytes
from studiolo.errors import PhotoError, SettingsError
from studiolo.keys import unit_key
from studiolo.settings import PerceptionSettings, SelectionSettings


def write(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def memory() -> Iterator[str]:
    """URL of an empty folder of fsspec's in-memory file system."""
    url = f"memory://{uuid.uuid4().hex}"
    yield url
    fs = fsspec.filesystem("memory")
    if fs.exists(url):
        fs.rm(url, recursive=True)


def put(url: str, data: bytes = b"x") -> None:
    with fsspec.open(url, "wb") as file:
        file.write(data)


def uris(album: AlbumSource) -> list[str]:
    return [uri for uri, _ in album.photos]


def reason_of(uri: str) -> Reason:
    with pytest.raises(PhotoError) as caught:
        read_bytes(uri)
    return Reason(caught.value.reason)


def test_a_folder_of_folders_is_sorted_and_complete(tmp_path: Path) -> None:
    for name in ("zoe/2.jpg", "zoe/1.jpg", "anna/holiday/sea/3.heic", "anna/b.png", "anna/a.jpg.json"):
        write(tmp_path / name, name.encode())
    (tmp_path / "empty").mkdir()
    albums = list_albums(str(tmp_path))
    assert [album.album_id for album in albums] == ["anna", "empty", "zoe"]
    assert uris(albums[0]) == ["a.jpg.json", "b.png", "holiday/sea/3.heic"]
    assert albums[1].photos == ()
    assert all(read_bytes(uri) == f"anna/{name}".encode() for name, uri in albums[0].photos)
    assert list_albums(f"file://{tmp_path}") == albums
    assert list_albums(f"{tmp_path}/") == albums


def test_leftovers_of_cameras_are_not_photos_and_all_else_is(tmp_path: Path) -> None:
    junk = (".DS_Store", "Thumbs.db", "desktop.ini", "._IMG_1.jpg", "__MACOSX/IMG_1.jpg", "@eaDir/x.jpg")
    for name in (*junk, ".hidden.jpg", "notes.txt", "IMG_1.jpg"):
        write(tmp_path / "anna" / name)
    write(tmp_path / ".DS_Store")
    write(tmp_path / "__MACOSX" / "anna" / "IMG_1.jpg")
    [album] = list_albums(str(tmp_path))
    assert uris(album) == [".hidden.jpg", "IMG_1.jpg", "notes.txt"]
    assert is_junk("THUMBS.DB")
    assert not is_junk("thumbs.jpg")


@pytest.mark.parametrize(
    "name",
    [
        "with blank.jpg",
        "Zoë 日本.jpg",
        "line\nbreak.jpg",
        "100%25#1?.jpg",
        "a::b.jpg",
        "*[x].jpg",
        "~root.jpg",
    ],
)
def test_odd_names_are_listed_and_read(tmp_path: Path, name: str) -> None:
    write(tmp_path / "Café\n1" / name, b"data")
    [album] = list_albums(str(tmp_path))
    assert album.album_id == "Café\n1"
    assert uris(album) == [name]
    assert read_bytes(album.photos[0][1]) == b"data"


def test_a_name_that_is_no_utf8_is_one_unreadable_row(tmp_path: Path) -> None:
    (tmp_path / "anna").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "anna") + b"/\xff.jpg")).write_bytes(b"x")
    [album] = list_albums(str(tmp_path))
    [(relative, absolute)] = album.photos
    assert relative.encode() == b"\\xff.jpg"  # can be stored and hashed
    assert reason_of(absolute) == Reason.UNREADABLE


def test_links_are_followed_only_within_their_album(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.txt", b"secret")
    other = write(tmp_path / "albums" / "zoe" / "1.jpg", b"zoe")
    anna = write(tmp_path / "albums" / "anna" / "1.jpg", b"anna").parent
    (anna / "inside.jpg").symlink_to("1.jpg")
    for name, target in {
        "out": secret,
        "sibling": other,
        "gone": anna / "nothing",
        "folder": tmp_path,
    }.items():
        (anna / f"{name}.jpg").symlink_to(target)
    (anna / "loop.jpg").symlink_to(anna)
    os.mkfifo(anna / "pipe.jpg")
    photos = dict(list_albums(str(tmp_path / "albums"))[0].photos)
    assert sorted(photos) == [
        "1.jpg", "folder.jpg", "gone.jpg", "inside.jpg", "loop.jpg", "out.jpg", "pipe.jpg", "sibling.jpg"
    ]  # fmt: skip
    assert read_bytes(photos.pop("inside.jpg")) == read_bytes(photos.pop("1.jpg")) == b"anna"
    assert {reason_of(uri) for uri in photos.values()} == {Reason.UNREADABLE}


def test_an_album_may_itself_be_a_link(tmp_path: Path) -> None:
    write(tmp_path / "store" / "a17" / "1.jpg", b"anna")
    (tmp_path / "albums").mkdir()
    (tmp_path / "albums" / "anna").symlink_to(tmp_path / "store" / "a17")
    [album] = list_albums(str(tmp_path / "albums"))
    assert (album.album_id, uris(album)) == ("anna", ["1.jpg"])
    assert read_bytes(album.photos[0][1]) == b"anna"


def test_reading_says_why_not(tmp_path: Path) -> None:
    file = write(tmp_path / "big", b"12345")
    assert read_bytes(str(file), limit=5) == b"12345"
    with pytest.raises(PhotoError) as caught:
        read_bytes(str(file), limit=4)
    assert caught.value.reason == Reason.TOO_MANY_PIXELS
    os.mkfifo(tmp_path / "pipe")
    for uri in (tmp_path / "gone", tmp_path, tmp_path / "pipe", "memory://gone", "nosuch://x", "bad\0name"):
        assert reason_of(str(uri)) == Reason.UNREADABLE


def test_any_fsspec_url_works_like_a_folder(memory: str) -> None:
    for name in ("zoe/1 ü.jpg", "anna/in/2.jpg", "anna/1.jpg", "anna/.DS_Store", "anna/__MACOSX/1.jpg"):
        put(f"{memory}/{name}", name.encode())
    fsspec.filesystem("memory").mkdir(f"{memory}/empty")
    albums = list_albums(memory)
    assert [(album.album_id, uris(album)) for album in albums] == [
        ("anna", ["1.jpg", "in/2.jpg"]),
        ("empty", []),
        ("zoe", ["1 ü.jpg"]),
    ]
    assert read_bytes(albums[2].photos[0][1]) == "zoe/1 ü.jpg".encode()
    assert albums[0].photos[0][1] == f"memory:///{memory.removeprefix('memory://')}/anna/1.jpg"
    with pytest.raises(PhotoError):
        read_bytes(albums[2].photos[0][1], limit=3)


def test_a_chained_url_keeps_its_chain(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("albums/anna/1.jpg", b"anna")
    [album] = list_albums(f"zip://albums::{tmp_path}/a.zip")
    assert uris(album) == ["1.jpg"]
    assert read_bytes(album.photos[0][1]) == b"anna"


ROWS = [("zoe", "z/1.jpg"), ("007", "a/1.jpg"), ("zoe", "z/0.jpg"), ("none", None)]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("place", ["local", "memory"])
def test_manifests_in_every_format(tmp_path: Path, memory: str, suffix: str, place: str) -> None:
    folder = str(tmp_path) if place == "local" else memory
    for name in ("z/1.jpg", "z/0.jpg", "a/1.jpg"):
        write(tmp_path / name, name.encode())
        put(f"{memory}/{name}", name.encode())
    table = pa.table({"album_id": [row[0] for row in ROWS], "uri": [row[1] for row in ROWS]})
    with fsspec.open(f"{folder}/m.{suffix}", "wb") as file:
        if suffix == "parquet":
            pq.write_table(table, file)
        elif suffix == "csv":
            pa.csv.write_csv(table, file)
        else:
            file.write("".join(json.dumps({"album_id": a, "uri": u}) + "\n" for a, u in ROWS).encode())
    albums = list_albums(f"{folder}/m.{suffix}")
    assert [(album.album_id, uris(album)) for album in albums] == [
        ("007", ["a/1.jpg"]),
        ("none", []),
        ("zoe", ["z/0.jpg", "z/1.jpg"]),
    ]
    assert all(read_bytes(absolute) == uri.encode() for album in albums for uri, absolute in album.photos)


def test_a_manifest_may_point_anywhere(tmp_path: Path, memory: str) -> None:
    put(f"{memory}/1.jpg", b"remote")
    local = write(tmp_path / "elsewhere" / "2.jpg", b"local")
    manifest = write(tmp_path / "m" / "m.csv", f"album_id,uri\na,{memory}/1.jpg\na,{local}\n".encode())
    [album] = list_albums(str(manifest))
    assert sorted(read_bytes(uri) for _, uri in album.photos) == [b"local", b"remote"]


def test_an_album_of_a_manifest_lies_where_its_photos_lie(tmp_path: Path) -> None:
    real = write(tmp_path / "real" / "2.jpg", b"x")
    (tmp_path / "m" / "links").mkdir(parents=True)
    (tmp_path / "m" / "links" / "2.jpg").symlink_to(real)
    manifest, photos = (
        str(tmp_path / "m" / "m.csv"),
        ["links/2.jpg", "../up/1.jpg", "/abs/3.jpg", "s3://bucket/a/4.jpg"],
    )
    found = folders_of(manifest, photos)
    assert found == {manifest, *(f"{tmp_path}/{name}" for name in ("m/links", "real", "up")), "/abs", "s3://bucket/a"}
    assert folders_of("s3://bucket/b/m.parquet", ["a/1.jpg"]) == {"s3://bucket/b/m.parquet", "s3://bucket/b/a"}
    assert folders_of(f"{tmp_path}/anna", ["1.jpg"]) == {f"{tmp_path}/anna"}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.csv", "album,uri\na,1\n", "no column is called 'album'; did you mean 'album_id'"),
        ("m.csv", "album_id,uri,note\na,1,x\n", "no column is called 'note'"),
        ("m.csv", "album_id\na\n", "wanted one column 'uri'"),
        ("m.csv", "album_id,uri\n,1.jpg\n", "row 1 has no album_id"),
        ("m.csv", "album_id,uri\na,1.jpg\nb,1.jpg\na,1.jpg\n", "row 3 lists '1.jpg' of album 'a' again"),
        ("m.jsonl", '{"album_id": 7, "uri": "1.jpg"}\n', "holds int64, wanted text"),
        ("m.jsonl", '{"album_id": ', "cannot be read"),
        ("m.parquet", "no parquet", "cannot be read"),
        ("m.csv", "", "cannot be read"),
        ("m.csv", "album_id,uri\n", "holds no album"),
        ("m.txt", "album_id,uri\n", "is a file; wanted"),
        ("m.csv", "album_id,uri\nZoe\u0308,1\nZo\u00eb,2\n", "two albums are called"),
        ("m.csv", "album_id,uri\na/other-12,1\n", "'a/other-12', as a person of the album 'a' is called"),
    ],
)
def test_a_manifest_that_does_not_fit_fails_before_any_work(tmp_path: Path, name: str, data: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        list_albums(str(write(tmp_path / name, data.encode())))


def test_a_misspelt_path_names_the_nearest_one(tmp_path: Path, memory: str) -> None:
    write(tmp_path / "customers" / "albums" / "anna" / "1.jpg")
    put(f"{memory}/albums/anna/1.jpg")
    for url in (f"{tmp_path}/customers/album", f"file://{tmp_path}/customers/albmus", f"{memory}/albuns"):
        with pytest.raises(SettingsError, match="did you mean 'albums'"):
            list_albums(url)
    with pytest.raises(SettingsError, match="did you mean 'customers'"):
        list_albums(f"{tmp_path}/customer/albums")


def test_urls_that_cannot_be_listed_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no album"):
        list_albums(str(tmp_path))
    with pytest.raises(SettingsError, match="nosuch"):
        list_albums("nosuch://bucket/albums")


def test_pictures_outside_any_album_are_not_lost(tmp_path: Path, memory: str) -> None:
    write(tmp_path / "README.txt")
    write(tmp_path / "1.JPG")
    with pytest.raises(SettingsError, match=r"pictures but no album folder .*'1\.JPG'"):
        list_albums(str(tmp_path))
    write(tmp_path / "anna" / "1.jpg")
    with pytest.raises(SettingsError, match="beside the album folders"):
        list_albums(str(tmp_path))
    put(f"{memory}/1.jpg")
    with pytest.raises(SettingsError, match="pictures but no album folder"):
        list_albums(memory)
    (tmp_path / "1.JPG").unlink()
    assert [album.album_id for album in list_albums(str(tmp_path))] == ["anna"]


def test_the_number_of_people_is_in_the_key_when_it_is_more_than_one() -> None:
    album = AlbumSource("a", "/a", (("1.jpg", "/a/1.jpg"),))
    sections = {"selection": SelectionSettings()}
    keys = [replace(album, people=people).key({"1.jpg": "11"}, sections, {}) for people in (1, 2, 3)]
    assert keys[0] == unit_key("album", [["a"], ["1.jpg", "11"]], sections, {})  # as before others could be wanted
    assert len(set(keys)) == 3
    assert [replace(album, people=people).row()["people"] for people in (1, 2)] == [1, 2]


def test_the_key_of_an_album_follows_its_contents_and_settings() -> None:
    album = AlbumSource("a", "/a", (("1.jpg", "/a/1.jpg"), ("2.jpg", "/a/2.jpg")))
    moved = AlbumSource("a", "s3://b/a", (("1.jpg", "s3://b/a/1.jpg"), ("2.jpg", "s3://b/a/2.jpg")))
    contents = {"1.jpg": "11", "2.jpg": "unreadable"}
    sections = {"perception": PerceptionSettings(), "selection": SelectionSettings()}
    key = album.key(contents, sections, {"yunet": "00"})
    assert moved.key(contents, sections, {"yunet": "00"}) == key
    assert album.key({**contents, "2.jpg": "22"}, sections, {"yunet": "00"}) != key
    changed = {**sections, "selection": SelectionSettings(max_references=3)}
    assert album.key(contents, changed, {"yunet": "00"}) != key
    assert AlbumSource("b", "/a", album.photos).key(contents, sections, {"yunet": "00"}) != key
    with pytest.raises(KeyError):
        album.key({"1.jpg": "11"}, sections, {})
