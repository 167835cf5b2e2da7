"""How a finished portrait is judged: seen again by the same perception as the customer's photos.

FaceChain compares a portrait with one template face (section 2.4). We compare it with all references, so that
no single photo decides: see `studiolo.metrics.identity.reference_distance_l2` for the aggregate (the median
distance) and why.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from studiolo.albums.people import Similarity
from studiolo.albums.records import Verdict
from studiolo.metrics.identity import Floats, reference_distance_l2
from studiolo.perception.perceive import perceive_photo
from studiolo.perception.suite import Suite
from studiolo.settings import PerceptionSettings


@dataclass(frozen=True)
class Score:
    """What was seen in one portrait. Without a face: similarity, share and quality 0, verdict different, no embedding
    and no landmarks.
    """

    similarity: float  # calibrated, 0..1, to the references
    verdict: Verdict
    faces: int
    face_share: float  # height of the largest face's box over the picture's
    quality_score: float  # 0..1, of the largest face
    unsafe_score: float  # 0..1
    embedding: npt.NDArray[np.float32] | None  # [128], of the largest face
    landmarks_px: npt.NDArray[np.float32] | None  # [5, 2], its own


def score_portrait(
    rgb_u8: npt.NDArray[np.uint8],
    suite: Suite,
    references_embeddings: Floats,
    similarity: Similarity,
    settings: PerceptionSettings,
    within: npt.NDArray[np.bool_] | None = None,
) -> Score:
    """Score of a portrait [H, W, 3] against its person's reference embeddings [N, 128]; like nobody when N is 0.

    With several faces the largest is compared; ranking rejects such a portrait by `faces`. Faces with a side
    under `settings.min_face_px` do not count, nor does any that is seen only after turning the picture: a
    portrait is upright. Of a picture that shows others as well, only faces whose middle lies `within` [S, S], a
    mask of the whole picture at any size, count.
    """
    unsafe_score = float(suite.safety.score(rgb_u8))
    seen = perceive_photo(suite, rgb_u8, settings)
    faces = [face for face in seen.faces if _short_side_px(face) >= settings.min_face_px]
    if within is not None:
        faces = [face for face in faces if _lies(face, within, rgb_u8.shape[:2])]
    if not faces or seen.rotation_deg != 0:
        return Score(0.0, Verdict.DIFFERENT, 0, 0.0, 0.0, unsafe_score, None, None)
    face = max(faces, key=_area_px2)
    embedding = np.asarray(face["embedding"], np.float32)
    references = np.asarray(references_embeddings)
    distance_l2 = reference_distance_l2(embedding, references) if len(references) else math.inf
    return Score(
        similarity=similarity.score(distance_l2),
        verdict=similarity.verdict(distance_l2),
        faces=len(faces),
        face_share=_sides_px(face)[1] / rgb_u8.shape[0],
        quality_score=float(face["quality"]["score"]),
        unsafe_score=unsafe_score,
        embedding=embedding,
        landmarks_px=np.asarray(face["landmarks_px"], np.float32).reshape(5, 2),
    )


def similarity_to(embedding_D: Floats, references_ND: Floats, similarity: Similarity) -> float:
    """Calibrated similarity (0..1) of one face [128] to a person's references [N, 128]."""
    return similarity.score(reference_distance_l2(embedding_D, references_ND))


def _sides_px(face: Mapping[str, Any]) -> tuple[float, float]:
    left, top, right, bottom = face["bbox_xyxy_px"]
    return right - left, bottom - top


def _lies(face: Mapping[str, Any], within: npt.NDArray[np.bool_], hw_px: Sequence[int]) -> bool:
    left, top, right, bottom = face["bbox_xyxy_px"]
    y, x = ((bottom + top) / 2 / hw_px[0], (right + left) / 2 / hw_px[1])
    rows, columns = within.shape
    return 0 <= y < 1 and 0 <= x < 1 and bool(within[int(y * rows), int(x * columns)])


def _short_side_px(face: Mapping[str, Any]) -> float:
    return min(_sides_px(face))


def _area_px2(face: Mapping[str, Any]) -> float:
    width, height = _sides_px(face)
    return width * height
