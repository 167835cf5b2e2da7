"""Faces in a photo: a box, five points and a score each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import cv2
import numpy as np
from numpy.typing import NDArray

RgbU8 = NDArray[np.uint8]

_SIDES_PX = (224, 672)
_LAST_SIDE_PX = 1344
_PAD = 0.15
_SAME_FACE_OVERLAP = 0.4


@dataclass(frozen=True, eq=False)
class Detection:
    """One face."""

    bbox_xyxy_px: NDArray[np.float32]
    """[4]; may reach a little beyond the picture."""
    landmarks_px: NDArray[np.float32]
    """[5, 2]: the person's right eye, left eye, nose tip, right and left mouth corner."""
    score: float
    """0..1."""

    @property
    def area_px2(self) -> float:
        """Area of the box."""
        return float(np.prod(self.bbox_xyxy_px[2:] - self.bbox_xyxy_px[:2]))

    @property
    def short_side_px(self) -> float:
        """Shorter side of the box."""
        return float((self.bbox_xyxy_px[2:] - self.bbox_xyxy_px[:2]).min())

    @property
    def roll_deg(self) -> float:
        """Angle of the face in the picture, -180..180, 0 = upright, positive = turned clockwise as seen."""
        down = self.landmarks_px[3:].mean(axis=0) - self.landmarks_px[:2].mean(axis=0)
        return float(np.degrees(np.arctan2(-down[0], down[1])))


class Detector(Protocol):
    """Finds faces."""

    def __call__(self, rgb_u8: RgbU8, min_score: float) -> list[Detection]:
        """Faces of `rgb_u8` [H, W, 3] with a score of at least `min_score` (0..1), the largest first; none is []."""
        ...


class EmbeddedDetector:
    """YuNet through OpenCV.

    YuNet knows faces of about 10 to 300 px, so the photo is looked at twice: at a longest side of 224 px with a
    margin, where a face that fills the photo fits, and of 672 px for small ones; at 1344 px only where both found
    nothing. Of two boxes that overlap by 0.4 or more the one with the higher score stays, or, with nearly equal
    scores, the one seen larger: its points are more exact.
    """

    def __init__(self, model: cv2.FaceDetectorYN) -> None:
        self._model = model

    @classmethod
    def open(cls, folder: Path) -> Self:
        """From the weights folder of card `yunet`."""
        path = folder / "face_detection_yunet_2023mar.onnx"
        before = cv2.utils.logging.setLogLevel(
            cv2.utils.logging.LOG_LEVEL_ERROR
        )  # it warns that it has one target, the CPU
        try:
            return cls(cv2.FaceDetectorYN.create(str(path), "", (320, 320), score_threshold=0.5, nms_threshold=0.3))
        finally:
            cv2.utils.logging.setLogLevel(before)

    def __call__(self, rgb_u8: RgbU8, min_score: float) -> list[Detection]:
        """See `Detector`."""
        side = max(rgb_u8.shape[:2])
        sides = [_SIDES_PX[0], *(size for size in _SIDES_PX[1:] if side > _SIDES_PX[0])]
        found = [face for size in sides for face in self._at(rgb_u8, size, min_score)]
        if not found and side > _SIDES_PX[-1]:
            found = self._at(rgb_u8, _LAST_SIDE_PX, min_score)
        return sorted(_distinct(found), key=lambda face: (-face.area_px2, *map(float, face.bbox_xyxy_px)))

    def _at(self, rgb_u8: RgbU8, side_px: int, min_score: float) -> list[Detection]:
        """Faces with the photo scaled so that its longest side is at most `side_px`."""
        height, width = rgb_u8.shape[:2]
        scale = min(1.0, side_px / max(height, width))
        small = rgb_u8
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            small = cv2.resize(rgb_u8, size, interpolation=cv2.INTER_AREA)
        pad = round(_PAD * max(small.shape[:2])) if side_px == _SIDES_PX[0] else 0
        canvas = cv2.copyMakeBorder(small, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=(128, 128, 128))
        self._model.setInputSize((canvas.shape[1], canvas.shape[0]))
        self._model.setScoreThreshold(min_score)
        _, rows = self._model.detect(np.ascontiguousarray(canvas[..., ::-1]))
        stretch = np.array([width / small.shape[1], height / small.shape[0]])
        faces = [] if rows is None else [_detection(row, pad, stretch) for row in np.asarray(rows, np.float64)]
        return [face for face in faces if _in_picture(face, height, width)]


def _detection(row: NDArray[np.float64], pad_px: int, stretch: NDArray[np.float64]) -> Detection:
    corner = (row[:2] - pad_px) * stretch
    box = np.concatenate([corner, corner + row[2:4] * stretch])
    points = (row[4:14].reshape(5, 2) - pad_px) * stretch
    return Detection(box.astype(np.float32), points.astype(np.float32), float(np.clip(row[14], 0, 1)))


def _in_picture(face: Detection, height: int, width: int) -> bool:
    """Whether the box has an area and at least half of it shows."""
    x0, y0, x1, y1 = map(float, face.bbox_xyxy_px)
    shown = max(0.0, min(x1, width) - max(x0, 0)) * max(0.0, min(y1, height) - max(y0, 0))
    return x1 > x0 and y1 > y0 and shown >= 0.5 * face.area_px2


def _distinct(faces: list[Detection]) -> list[Detection]:
    """Greedy suppression. Scores are compared in steps of 0.05: within one, the sight that came later (larger) wins."""
    order = sorted(range(len(faces)), key=lambda i: (-round(faces[i].score / 0.05), -i))
    kept: list[Detection] = []
    for i in order:
        if all(_overlap(faces[i], other) < _SAME_FACE_OVERLAP for other in kept):
            kept.append(faces[i])
    return kept


def _overlap(one: Detection, two: Detection) -> float:
    """Shared area over the smaller box's: a close-up's fragment lies inside the whole face."""
    low = np.maximum(one.bbox_xyxy_px[:2], two.bbox_xyxy_px[:2])
    high = np.minimum(one.bbox_xyxy_px[2:], two.bbox_xyxy_px[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / max(min(one.area_px2, two.area_px2), 1e-6)
