import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from studiolo.albums.records import Reason
from studiolo.errors import PhotoError, SettingsError
from studiolo.portraits.template_files import Templates, read_template
from studiolo.settings import PerceptionSettings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, and what is none."""
    for name in ("wedding.jpg", "Zoë & ich.png"):
        Image.fromarray(np.full((80, 90, 3), len(name), np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / ".DS_Store").write_bytes(b"")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "other.jpg").write_bytes(b"")
    return tmp_path


def test_a_template_is_ordered_by_its_files_name_and_maybe_a_face(folder: Path) -> None:
    whole, face = (Templates(str(folder)).ordered(name) for name in ("wedding", "wedding@0.31x.5"))
    assert (whole.file, whole.face_xy, face.file, face.face_xy) == ("wedding", None, "wedding", (0.31, 0.5))
    assert whole.sha256 == face.sha256
    assert (face.style.name, face.style.title) == ("wedding@0.31x.5", "In wedding (31% across, 50% down)")
    assert face.row() == {"uri": face.uri, "sha256": face.sha256, "face_xy": [0.31, 0.5]}
    assert read_template(whole.uri, whole.sha256, PerceptionSettings(min_side_px=32)).shape == (80, 90, 3)
    assert Templates(f"file://{folder}").ordered("Zoë & ich").face_xy is None


def test_any_file_system_has_them(folder: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/templates/wedding.jpg", (folder / "wedding.jpg").read_bytes())
    memory.pipe("/templates/._wedding.jpg", b"")
    found = Templates("memory://templates").ordered("wedding")
    assert found.uri == "memory:///templates/wedding.jpg"
    assert found.sha256 == Templates(str(folder)).ordered("wedding").sha256
    assert read_template(found.uri, found.sha256, PerceptionSettings(min_side_px=32)).shape == (80, 90, 3)
    memory.rm("/templates", recursive=True)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("weding", "no picture is called 'weding'; did you mean 'wedding'"),
        ("other", "no picture is called 'other'"),
        ("notes", "no picture is called 'notes'"),
        ("wedding@2x0.5", "got the point '2x0.5', wanted shares such as 0.31x0.42"),
        ("weding@0.2x0.5", "no picture is called 'weding'; did you mean 'wedding'"),
        ("../wedding", "no picture is called '../wedding'"),
    ],
)
def test_what_is_not_there_is_refused(folder: Path, name: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Templates(str(folder)).ordered(name)


def test_a_folder_without_pictures_or_with_twins_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="wanted a folder with pictures"):
        Templates(str(folder / "wedding.jpg"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match="holds no picture"):
        Templates(str(tmp_path / "empty"))
    (folder / "wedding.png").write_bytes(b"")
    with pytest.raises(SettingsError, match="two pictures are called 'wedding'"):
        Templates(str(folder))


def test_a_link_out_of_the_folder_is_not_followed(folder: Path) -> None:
    os.symlink("/etc/hostname", folder / "host.jpg")
    with pytest.raises(SettingsError, match=r"'host' cannot be read: a link that leaves the album"):
        Templates(str(folder)).ordered("host")


def test_a_file_that_changed_meanwhile_is_not_drawn_into(folder: Path) -> None:
    found = Templates(str(folder)).ordered("wedding")
    (folder / "wedding.jpg").write_bytes((folder / "wedding.jpg").read_bytes() + b"\0")
    with pytest.raises(PhotoError) as caught:
        read_template(found.uri, found.sha256, PerceptionSettings())
    assert caught.value.reason == Reason.UNREADABLE
