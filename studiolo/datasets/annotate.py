"""One picture in, its row of `ANNOTATION_SCHEMA` out: everything the suite sees of it, in one pass."""

import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studiolo.albums.decode import content_sha256
from studiolo.albums.geometry import cut, map_points
from studiolo.albums.records import Reason, Status
from studiolo.datasets.hashing import perceptual_hash
from studiolo.datasets.optout import OptOut
from studiolo.datasets.records import ANNOTATION_SCHEMA, PARTS
from studiolo.datasets.settings import AnnotationSettings
from studiolo.errors import PhotoError
from studiolo.perception import chips
from studiolo.perception.detect import Detection
from studiolo.perception.expression import expression_of
from studiolo.perception.features import CARD as FEATURES_CARD
from studiolo.perception.features import EmbeddedFeatures, FeatureReader
from studiolo.perception.perceive import PerceivedPhoto, perceive_photo
from studiolo.perception.regions import Region, paint_regions
from studiolo.perception.similarity import Similarity
from studiolo.perception.suite import PERCEPTION_CARDS, Suite, open_suite
from studiolo.settings import PerceptionSettings
from studiolo.weights.cards import load_card
from studiolo.weights.fetch import pull

RgbU8 = NDArray[np.uint8]
Row = dict[str, Any]

OPTED_OUT = "opted_out"
"""Reason of a row of which nothing is kept; the other reasons are those of `albums.records.Reason`."""

SEEN = (Reason.NO_FACE, Reason.FACE_TOO_SMALL, OPTED_OUT)
"""Reasons of pictures that were read and are dropped rather than failed."""

_FACE_CARDS = {"embedded": "dlib-face"}
_MASK_LEVEL = 9  # of zlib: a mask of class ids is small and made once


def cards_of(suite: str) -> list[str]:
    """Ids of the models that annotate with `suite`."""
    return [*PERCEPTION_CARDS[suite], FEATURES_CARD]


@dataclass(frozen=True, eq=False)
class Models:
    """What a picture is annotated with. Open it where it is used: it cannot be sent to another process."""

    suite: Suite
    features: FeatureReader
    similarity: Similarity
    face_model: str
    image_model: str

    @classmethod
    def open(cls, suite: str) -> Self:
        """The models of `suite`, one thread each. Raises as `perception.suite.open_suite`."""
        return cls(
            suite=open_suite(suite),
            features=EmbeddedFeatures.open(pull(FEATURES_CARD)),
            similarity=Similarity.load(suite),
            face_model=model_id(_FACE_CARDS[suite]),
            image_model=model_id(FEATURES_CARD),
        )


def model_id(card_id: str) -> str:
    """Card id and the first digits of its hash: embeddings of other models cannot be compared."""
    return f"{card_id}@{load_card(card_id).key()[:16]}"


@dataclass(frozen=True, eq=False)
class Annotate:
    """Annotates pictures; what is wrong with one ends in its row."""

    models: Models
    decode: Callable[[bytes], RgbU8]
    """The upright picture; `PhotoError` for what is none."""
    perception: PerceptionSettings
    annotation: AnnotationSettings
    opt_out: OptOut

    def __call__(self, listed: Mapping[str, Any], content: bytes) -> Row:
        """The row of a `listed` picture (of `LISTED_SCHEMA`) whose file is `content`."""
        row = blank(listed)
        row["content_sha256"] = content_sha256(content)
        try:
            if self.opt_out.has_content(row["content_sha256"]):
                return opted_out(listed, row["content_sha256"])
            rgb_u8 = self.decode(content)
            photo = perceive_photo(self.models.suite, rgb_u8, self.perception)
            within = self.models.similarity.same_below
            if any(self.opt_out.has_face(face["embedding"], within) for face in photo.faces):
                raise PhotoError(OPTED_OUT, "a face in it is on the list")
            row.update(self._whole(photo))
            if not photo.faces:
                raise self._no_face(photo)
            row.update(self._face(photo))
        except PhotoError as error:
            row.update(refusal(error))
        return row

    def _whole(self, photo: PerceivedPhoto) -> Row:
        height, width = photo.rgb_u8.shape[:2]
        sides = [_longer_side_px(face["bbox_xyxy_px"]) for face in photo.faces]
        return {
            "phash": perceptual_hash(photo.rgb_u8),
            "width_px": width,
            "height_px": height,
            "rotation_deg": photo.rotation_deg,
            "unsafe_score": self.models.suite.safety.score(photo.rgb_u8),
            "faces": len(sides),
            "second_face_share": sides[1] / sides[0] if len(sides) > 1 else 0.0,
        }

    def _no_face(self, photo: PerceivedPhoto) -> PhotoError:
        if not photo.too_small_px:
            return PhotoError(Reason.NO_FACE)
        return PhotoError(
            Reason.FACE_TOO_SMALL, f"{photo.too_small_px:.0f} px across, wanted {self.perception.min_face_px}"
        )

    def _face(self, photo: PerceivedPhoto) -> Row:
        """What is said of the largest face, in the square around it."""
        face, side_px = photo.faces[0], self.annotation.image_side_px
        landmarks = np.asarray(face["landmarks_px"], np.float32).reshape(5, 2)
        found = Detection(np.asarray(face["bbox_xyxy_px"], np.float32), landmarks, face["detector_score"])
        hw_px = (photo.rgb_u8.shape[0], photo.rgb_u8.shape[1])
        matrix = chips.square_matrix(hw_px, found.bbox_xyxy_px, found.roll_deg, side_px, self.annotation.face_ratio)
        square_rgb_u8 = cut(photo.rgb_u8, matrix, side_px)
        square_landmarks = map_points(matrix, landmarks)
        mesh = self.models.suite.mesher(square_rgb_u8, square_landmarks)
        regions_u8 = paint_regions(mesh, self.models.suite.person_mask(square_rgb_u8))
        regions_u8[~chips.inside(hw_px, matrix, side_px)] = Region.BACKGROUND
        return {
            "image": {"bytes": _jpeg(square_rgb_u8, self.annotation.jpeg_quality), "path": None},
            "mask": {"bytes": _png(regions_u8), "path": None},
            "parts": parts_in(regions_u8),
            "crop_matrix": matrix.reshape(-1).tolist(),
            "photo_bbox_xyxy_px": face["bbox_xyxy_px"],
            "bbox_xyxy_px": _box_through(matrix, found.bbox_xyxy_px),
            "landmarks_px": square_landmarks.reshape(-1).tolist(),
            "mesh_px": mesh.points_px[:, :2].reshape(-1).tolist(),
            "detector_score": face["detector_score"],
            "mesh_score": face["mesh_score"],
            "face_embedding": face["embedding"],
            "face_model": self.models.face_model,
            "image_embedding": self.models.features(square_rgb_u8).tolist(),
            "image_model": self.models.image_model,
            "attributes": face["attributes"],
            "pose": face["pose"],
            "quality": face["quality"],
            "expression": asdict(expression_of(mesh.points_px)),
            "tags": face["tags"],
        }


def blank(listed: Mapping[str, Any]) -> Row:
    """The row of a picture of which nothing is known yet."""
    known = {name: listed[name] for name in ("row_id", "source", "uri", "version")}
    return {**dict.fromkeys(ANNOTATION_SCHEMA.names), **known, "status": Status.OK.value, "reason": "", "detail": ""}


def opted_out(listed: Mapping[str, Any], content_sha256: str) -> Row:
    """The row of a picture whose content is on the opt-out list: nothing but that."""
    refused = refusal(PhotoError(OPTED_OUT, "its content is on the list"))
    return {**blank(listed), "content_sha256": content_sha256, **refused}


def refusal(error: PhotoError) -> Row:
    """What a row says of why its picture is not annotated."""
    status = Status.DROPPED if error.reason in SEEN else Status.FAILED
    return {"status": status.value, "reason": str(error.reason), "detail": error.detail}


def parts_in(regions_u8: NDArray[np.uint8]) -> list[Row]:
    """The parts that a mask [H, W] of class ids shows, each with its box and area."""
    found = []
    for part, regions in PARTS.items():
        mask = np.isin(regions_u8, [int(region) for region in regions])
        if mask.any():
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            box = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
            found.append({"part": part, "bbox_xyxy_px": box, "area_px": int(mask.sum())})
    return found


def _longer_side_px(bbox_xyxy_px: Any) -> float:
    x0, y0, x1, y1 = bbox_xyxy_px
    return float(max(x1 - x0, y1 - y0))


def _box_through(matrix: NDArray[np.float64], bbox_xyxy_px: NDArray[np.float32]) -> list[float]:
    """The upright box around a box that was turned."""
    x0, y0, x1, y1 = bbox_xyxy_px.tolist()
    corners = map_points(matrix, [[x0, y0], [x1, y0], [x0, y1], [x1, y1]])
    return [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()]


def _jpeg(rgb_u8: RgbU8, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb_u8).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def _png(class_ids_u8: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(class_ids_u8).save(buffer, "PNG", compress_level=_MASK_LEVEL)
    return buffer.getvalue()
