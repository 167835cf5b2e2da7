"""Equation 1 and the crop on real photos with the real detector (weights of the card `yunet`)."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from studiolo.albums.decode import decode
from studiolo.albums.geometry import FACE_RATIO_MAX, FACE_RATIO_MIN, align_and_crop, alignment_deg, rotate
from studiolo.albums.sources import list_albums, read_bytes
from studiolo.settings import PerceptionSettings
from studiolo.weights.fetch import pull

SETTINGS = PerceptionSettings(working_side_px=640)


def largest_face(rgb_u8: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Box [4] and landmarks [5, 2] of the largest face."""
    [model] = pull("yunet").glob("*.onnx")
    detector = cv2.FaceDetectorYN.create(str(model), "", rgb_u8.shape[1::-1], SETTINGS.detector_score)
    _, faces = detector.detect(cv2.cvtColor(rgb_u8, cv2.COLOR_RGB2BGR))
    x, y, w, h, *rest = max(np.asarray(faces, np.float64), key=lambda face: face[2] * face[3])
    return np.array([x, y, x + w, y + h]), np.array(rest[:10]).reshape(5, 2)


def upright_deg(rgb_u8: NDArray[np.uint8]) -> float:
    """Angle that makes the face upright, by two passes: the detector's points lean towards upright ones on a
    leaning face (measured: up to 15 degrees at a lean of 25), so it looks again at the aligned crop."""
    box, landmarks = largest_face(rgb_u8)
    crop, _ = align_and_crop(rgb_u8, box, landmarks, 512, 0.33)
    return alignment_deg(landmarks) + alignment_deg(largest_face(crop)[1])


@pytest.mark.parametrize("angle_deg", [-25.0, -15.0, 15.0, 25.0])
@pytest.mark.parametrize("name", ["portrait.jpg", "selfie.jpg", "expression-01-neutral.jpg"])
def test_a_leaning_photo_is_straightened(people: Path, name: str, angle_deg: float) -> None:
    rgb_u8 = decode(read_bytes(dict(list_albums(str(people))[0].photos)[name]), SETTINGS)
    leaning_u8, _, _ = rotate(rgb_u8, [[0, 0]], angle_deg)
    assert abs(upright_deg(leaning_u8) + angle_deg - upright_deg(rgb_u8)) < 7


def test_a_real_face_is_centred_at_the_ratio(people: Path) -> None:
    rgb_u8 = decode(read_bytes(dict(list_albums(str(people))[0].photos)["portrait.jpg"]), SETTINGS)
    crop, _ = align_and_crop(rgb_u8, *largest_face(rgb_u8), 512)
    x0, y0, x1, y1 = largest_face(crop)[0] / 512
    assert abs((x0 + x1) / 2 - 0.5) < 0.03
    assert FACE_RATIO_MIN <= max(x1 - x0, y1 - y0) <= FACE_RATIO_MAX
