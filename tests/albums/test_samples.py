import hashlib
import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from studiolo.albums import samples
from studiolo.albums.samples import EXPRESSIONS, NOTHING_USABLE, PEOPLE
from studiolo.errors import SettingsError, WeightsError
from studiolo.weights import fetch


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    samples.sample_albums(folder, people=2)
    return folder


@pytest.fixture(scope="module")
def truth(out):
    return json.loads((out / samples.GROUND_TRUTH).read_text())["albums"]


@pytest.fixture(scope="module")
def detector():
    model = fetch.pull("yunet") / "face_detection_yunet_2023mar.onnx"
    return cv2.FaceDetectorYN.create(str(model), "", (320, 320), 0.6)


def count_faces(detector, image: Image.Image) -> int:
    image = image.convert("RGB")
    image.thumbnail((640, 640))
    detector.setInputSize(image.size)
    faces = detector.detect(np.ascontiguousarray(np.asarray(image)[:, :, ::-1]))[1]
    return 0 if faces is None else len(faces)


def sharpness(image: Image.Image) -> float:
    grey = np.asarray(image.convert("L").resize((512, 512)))
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_ground_truth_names_exactly_the_files(out, truth):
    assert set(truth) == {"P001", "P002", NOTHING_USABLE}
    for album_id, album in truth.items():
        assert set(album["photos"]) == {path.name for path in (out / album_id).iterdir()}
    assert [len(album["photos"]) for album in truth.values()] == [24, 20, 8]
    assert truth["P001"]["sex"] == "female"
    assert truth["P001"]["age_range_years"] == [35, 45]


def test_the_first_album_has_the_spoilers(out, truth):
    album, photos = out / "P001", truth["P001"]["photos"]
    assert (album / "portrait (1).jpg").read_bytes() == (album / "portrait.jpg").read_bytes()
    assert photos["friend.jpg"]["person_id"] not in ("P001", None)
    with Image.open(album / "selfie-sideways.jpg") as stored, Image.open(album / "selfie.jpg") as selfie:
        shown = np.asarray(ImageOps.exif_transpose(stored), np.int16)
        as_stored = np.asarray(stored, np.int16)
        wanted = np.asarray(selfie.crop((0, 0, selfie.width, selfie.width)), np.int16)
    assert np.abs(shown - wanted).mean() < 2 < 20 < np.abs(as_stored - wanted).mean()


@pytest.mark.parametrize("person_id", PEOPLE)
def test_every_sheet_cuts_into_sixteen_frameless_cells_with_one_face(person_id, detector):
    sheet = Image.open(fetch.pull("openpeople") / person_id / "emotions_sheet.jpg").convert("RGB")
    cells = samples.cut_sheet(np.asarray(sheet))
    assert len(cells) == len(EXPRESSIONS) == 16
    for cell in cells:
        upper = cell[: cell.shape[0] // 2].min(axis=2)  # shirts may reach the lower half
        edges = np.concatenate([upper[0], upper[:, 0], upper[:, -1]])
        assert (edges > 200).mean() < 0.02
        assert 1.3 < cell.shape[1] / cell.shape[0] < 1.8
        assert count_faces(detector, Image.fromarray(cell)) == 1


def test_something_else_is_not_a_sheet():
    with pytest.raises(WeightsError, match="found 0 frames"):
        samples.cut_sheet(np.full((400, 500, 3), 128, np.uint8))


def test_nothing_is_usable_in_the_last_album(out, truth, detector):
    for name, photo in truth[NOTHING_USABLE]["photos"].items():
        data = (out / NOTHING_USABLE / name).read_bytes()
        assert photo["person_id"] is None
        if photo["kind"] in ("damaged", "not-an-image", "empty"):
            with pytest.raises(OSError, match=r"truncated|cannot identify"):
                Image.open(io.BytesIO(data)).load()
        elif photo["kind"] == "too-small":
            assert max(Image.open(io.BytesIO(data)).size) < 64
        elif photo["kind"] == "blurred":
            with Image.open(out / "P002" / "portrait.jpg") as portrait:
                assert sharpness(Image.open(io.BytesIO(data))) < 0.01 * sharpness(portrait)
        else:
            assert count_faces(detector, Image.open(io.BytesIO(data))) == 0, name


def test_the_same_files_come_out_again(out, tmp_path):
    samples.extract_people(tmp_path, 1)
    samples.extract_nothing_usable(tmp_path)
    for album_id in ("P001", NOTHING_USABLE):
        assert digests(tmp_path / album_id) == digests(out / album_id)


@pytest.mark.parametrize("count", [0, 11])
def test_only_ten_people_exist(tmp_path, count):
    with pytest.raises(SettingsError, match="wanted 1 to 10"):
        samples.extract_people(tmp_path, count)
