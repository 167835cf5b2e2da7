import io
import json
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from studiolo.datasets.settings import SourceSettings
from studiolo.datasets.sources import licence_of, list_pictures
from studiolo.datasets.sources.listed import ABSENT, Listed
from studiolo.datasets.sources.reading import PictureReader
from studiolo.errors import PhotoError, SettingsError


def picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


def put(root: Path, *uris: str) -> None:
    for shade, uri in enumerate(uris):
        path = root / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(shade))


def listed(line: str) -> list[Listed]:
    return list(list_pictures(SourceSettings.parse(line)))


def uris(line: str) -> list[str]:
    return [one.uri for one in listed(line)]


def test_a_line_says_kind_place_and_options() -> None:
    source = SourceSettings.parse("celeba:s3://bucket/celeba;weight=0.5;limit=30000;licence=by agreement")
    assert (source.kind, source.place, source.name) == ("celeba", "s3://bucket/celeba", "celeba")
    assert (source.weight, source.limit, source.licence) == (0.5, 30000, "by agreement")
    assert SourceSettings.parse("s3://bucket/some faces/").model_dump(include={"kind", "name"}) == {
        "kind": "folder",
        "name": "some-faces",
    }
    assert SourceSettings.parse("/data/shards-*.tar").name == "data"
    assert SourceSettings.parse("/data/people.jsonl").kind == "manifest"
    assert SourceSettings.parse("synthetic:count=3,seed=7").name == "synthetic-7"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/data;wieght=2", "wanted NAME=VALUE with one of name, licence, weight"),
        ("/data;weight", "wanted NAME=VALUE"),
        ("/data;weight=0", "greater than 0"),
        ("/data;name=a/b", "pattern"),
        ("folder:", "at least 1 character"),
    ],
)
def test_a_line_that_does_not_fit_is_refused(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SourceSettings.parse(line)


def test_a_folder_lists_its_pictures_and_nothing_else(tmp_path: Path) -> None:
    put(tmp_path, "b/2.jpg", "a/1.PNG", "a/.DS_Store", "a/notes.txt", "top.webp")
    assert uris(str(tmp_path)) == ["a/1.PNG", "b/2.jpg", "top.webp"]
    assert [one.label for one in listed(f"{tmp_path};labels=folders")] == ["a", "b", None]
    assert uris(f"{tmp_path}/*/*.jpg") == ["b/2.jpg"]


def test_a_version_follows_the_content_and_only_that(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "2.png")
    before = listed(str(tmp_path))
    assert listed(str(tmp_path)) == before
    (tmp_path / "2.png").write_bytes(picture(9) + b"\0")
    after = listed(str(tmp_path))
    assert (after[0].version == before[0].version, after[1].version == before[1].version) == (True, False)


def test_a_link_out_of_the_folder_is_listed_and_fails_when_it_is_read(tmp_path: Path) -> None:
    put(tmp_path, "in/1.png", "out.png")
    (tmp_path / "in" / "2.png").symlink_to(tmp_path / "out.png")
    one, other = listed(str(tmp_path / "in"))
    assert other.version == ABSENT != one.version
    with pytest.raises(PhotoError, match="leaves the album"):
        PictureReader()(other.place)


def test_an_object_store_is_listed_as_a_disk_is() -> None:
    fs = fsspec.filesystem("memory")
    for uri in ("a/1.png", "a/2.png", "b/3.png", "b/4.txt"):
        fs.pipe_file(f"/faces/{uri}", picture(1))
    found = listed("memory://faces")
    assert [one.uri for one in found] == ["a/1.png", "a/2.png", "b/3.png"]
    assert uris("memory://faces/b/*.png") == ["3.png"]
    assert PictureReader()(found[2].place) == picture(1)
    assert listed("memory://faces") == found


def test_a_manifest_names_pictures_labels_and_licences(tmp_path: Path) -> None:
    put(tmp_path, "faces/1.png", "faces/2.png")
    rows = [{"uri": "faces/1.png", "label": 7, "licence": "CC0"}, {"uri": str(tmp_path / "faces/2.png")}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, other = listed(str(tmp_path / "rows.jsonl"))
    assert (one.uri, one.label, one.licence) == ("faces/1.png", "7", "CC0")
    assert (other.label, other.licence) == (None, None)
    assert [PictureReader()(place) for place in (one.place, other.place)] == [picture(0), picture(1)]

    table = pa.table({"uri": ["faces/1.png", "gone.png"], "sha256": ["ab" * 32, None]})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert [row.version for row in listed(str(tmp_path / "rows.parquet"))] == ["sha256-" + "ab" * 32, ABSENT]
    pq.write_table(pa.table({"url": ["x"]}), tmp_path / "wrong.parquet")
    with pytest.raises(SettingsError, match="wanted 'uri'"):
        listed(str(tmp_path / "wrong.parquet"))


def tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_members_of_tars_are_read_in_place(tmp_path: Path, where: str) -> None:
    said = json.dumps({"identity": 12, "license": "CC-BY"}).encode()
    tar(tmp_path / "b.tar", {"x/1.jpg": picture(3), "x/1.json": said, "x/2.png": picture(4), "x/2.cls": b"9\n"})
    tar(tmp_path / "a.tar", {"0.json": said, "0.png": picture(5), "3.txt": b"no picture"})
    place = str(tmp_path)
    if where == "memory":
        place = f"memory://tars-{tmp_path.name}"
        for name in ("a.tar", "b.tar"):
            fsspec.filesystem("memory").pipe_file(f"/tars-{tmp_path.name}/{name}", (tmp_path / name).read_bytes())
    found = listed(f"tar:{place}")
    assert [one.uri for one in found] == ["a.tar#0.png", "b.tar#x/1.jpg", "b.tar#x/2.png"]
    assert [one.label for one in found] == ["12", "12", "9"]
    assert [one.licence for one in found] == ["CC-BY", "CC-BY", None]
    assert [PictureReader()(one.place) for one in found] == [picture(5), picture(3), picture(4)]
    assert uris(f"{place}/b.tar") == ["b.tar#x/1.jpg", "b.tar#x/2.png"]


def test_a_tar_that_ends_too_early_is_no_tar(tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 300)
    with pytest.raises(SettingsError, match="is no tar"):
        listed(str(tmp_path / "bad.tar"))
    with pytest.raises(SettingsError, match="no tar is at"):
        listed(str(tmp_path / "absent.tar"))


def test_a_stretch_beyond_its_file_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"0123456789")
    assert PictureReader()(f"stretch:2+3:{tmp_path / 'short'}") == b"234"
    with pytest.raises(PhotoError, match="ends at 10, wanted 12"):
        PictureReader()(f"stretch:2+10:{tmp_path / 'short'}")


def test_ffhq_as_published(tmp_path: Path) -> None:
    put(tmp_path, "images1024x1024/00000/00001.png", "in-the-wild-images/00000/00001.png")
    put(tmp_path, "thumbnails128x128/00000/00001.png", "LICENSE.txt")
    assert uris(f"ffhq:{tmp_path}") == ["images1024x1024/00000/00001.png"]
    assert licence_of(SourceSettings.parse(f"ffhq:{tmp_path}")) == "CC-BY-NC-SA-4.0"


def test_celeba_as_published_has_identities(tmp_path: Path) -> None:
    put(tmp_path, "Img/img_align_celeba/000001.jpg", "Img/img_align_celeba/000002.jpg", "Img/img_celeba/000001.jpg")
    with pytest.raises(SettingsError, match="identity_CelebA"):
        listed(f"celeba:{tmp_path}")
    (tmp_path / "Anno").mkdir()
    (tmp_path / "Anno" / "identity_CelebA.txt").write_text("000001.jpg 2880\n000002.jpg 17\n")
    assert [one.label for one in listed(f"celeba:{tmp_path}")] == ["2880", "17"]
    (tmp_path / "Anno" / "identity_CelebA.txt").write_text("000001.jpg\n")
    with pytest.raises(SettingsError, match="line 1"):
        listed(f"celeba:{tmp_path}")


def test_sfhq_as_published(tmp_path: Path) -> None:
    put(tmp_path, "pt1/images/images/SFHQ_pt1_00000001.jpg", "pt2/images/SFHQ_pt2_00000002.jpg")
    put(tmp_path, "pt1/segmentations/segmentations/SFHQ_pt1_00000001.png", "pt1/sample.jpg")
    assert uris(f"sfhq:{tmp_path}") == [
        "pt1/images/images/SFHQ_pt1_00000001.jpg",
        "pt2/images/SFHQ_pt2_00000002.jpg",
    ]


def test_a_limit_takes_the_same_pictures_and_more(tmp_path: Path) -> None:
    few, more = uris("synthetic:count=200;limit=20"), uris("synthetic:count=200;limit=50")
    assert len(few) == 20
    assert set(few) < set(more)
    assert more == sorted(more)
    assert len(uris("synthetic:count=5;limit=50")) == 5


def test_synthetic_faces_are_the_same_each_time(weights: Path) -> None:
    one, other = listed("synthetic:count=2,seed=3,side=128")
    read = PictureReader()
    first = read(one.place)
    assert read(one.place) == first != read(other.place)
    assert Image.open(io.BytesIO(first)).size == (128, 128)
    assert listed("synthetic:count=1,seed=4,side=128")[0].version != one.version
    assert "non-commercial" in licence_of(SourceSettings.parse("synthetic:count=1"))


@pytest.mark.parametrize("place", ["count=x", "seed=1", "count=0", "count=1,side=4096", "people=3"])
def test_synthetic_refuses_what_does_not_fit(place: str) -> None:
    with pytest.raises(SettingsError, match=r"source 'synthetic-.': got"):
        listed(f"synthetic:{place}")


def test_nothing_there_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    with pytest.raises(SettingsError, match="holds no picture"):
        listed(str(tmp_path / "faces"))
    with pytest.raises(SettingsError, match="did you mean 'faces'"):
        listed(str(tmp_path / "facse"))
