"""In-plane alignment of a face and the square crop around it (FaceChain, section 2.1.1, "Face Rotation" and
"Face Region Crop").

Coordinates are pixels, x right, y down, the centre of the first pixel at (0, 0). A matrix [2, 3] maps a point
of the photo to a point of the crop: `crop_xy = matrix @ (x, y, 1)`. Angles are degrees; on the screen a
positive one turns clockwise, because y points down.

Legend: N = 5 landmarks in the order of `records.FACE`; P1, P2, R, theta as in the paper.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

FACE_RATIO_MIN, FACE_RATIO_MAX = 0.35, 0.45
"""The paper's range of the face's side as a share of the crop's side."""

FACE_CENTRE = (0.5, 0.54)
"""Where the middle of the face lies in the views that a base learns from, as a share of their side: a little low, for
the hair above it."""

TEMPLATE_N2 = np.array(
    [[30.2946, 51.6963], [65.5318, 51.5014], [48.0252, 71.7366], [33.5493, 92.3655], [62.7299, 92.2041]]
)
"""Standard five-point face of 96x112 px: right eye, left eye, nose, right and left mouth corner, upright."""


def alignment_deg(landmarks_px: ArrayLike) -> float:
    """Angle theta in (-180, 180] by which the photo must be turned to make the face upright (FaceChain,
    equation 1).

    `landmarks_px` [5, 2] or [10]. Both point sets are normalised by mean and standard deviation; with R =
    ((P1^T P1)^-1 P1^T P2)^T the least-squares map of P1 to P2, theta = arctan(R21 / R22). We use atan2(R21,
    R22): arctan of the quotient folds a face hanging upside down (cos theta < 0) onto an upright one and
    divides by zero at 90 degrees. Only the second row of R is used, and it turns with the landmarks, so the
    angle is exact under rotation although R itself is a general 2x2 matrix. Raises `ValueError` for points on
    one line, which have no solution.
    """
    p1 = _normalise(np.asarray(landmarks_px, np.float64).reshape(5, 2))
    p2 = _normalise(TEMPLATE_N2)
    gram = p1.T @ p1
    if not np.isfinite(gram).all() or np.linalg.cond(gram) > 1e9:
        raise ValueError("landmarks on one line or not finite; wanted two eyes, a nose and two mouth corners")
    r = (np.linalg.inv(gram) @ p1.T @ p2).T
    return float(np.degrees(np.arctan2(r[1, 0], r[1, 1])))


def _normalise(points_N2: NDArray[np.float64]) -> NDArray[np.float64]:
    deviation = points_N2.std()
    return (points_N2 - points_N2.mean(axis=0)) / (deviation if deviation > 0 else np.nan)


def map_points(matrix: ArrayLike, points_px: ArrayLike) -> NDArray[np.float64]:
    """`points_px` [..., 2] carried through `matrix` [2, 3]."""
    m = np.asarray(matrix, np.float64)
    return np.asarray(points_px, np.float64) @ m[:, :2].T + m[:, 2]


def invert(matrix: ArrayLike) -> NDArray[np.float64]:
    """The matrix [2, 3] that undoes `matrix` [2, 3]."""
    m = np.asarray(matrix, np.float64)
    turn = np.linalg.inv(m[:, :2])
    return np.concatenate([turn, -(turn @ m[:, 2])[:, None]], axis=1)


def affine_between(from_N2: ArrayLike, to_N2: ArrayLike) -> NDArray[np.float64]:
    """The affine matrix M [2, 3] that carries `from_N2` closest to `to_N2`, both [N, 2]: it warps a generated face's
    landmarks onto those of a template (FaceChain, section 2.5.1).

    The paper wants M to align both "perfectly" and gives it no number. Six unknowns cannot do that for more than three
    points, so M is the least-squares solution: argmin_M sum_i |M (x_i, y_i, 1) - x'_i|^2. What M leaves over is what
    tells the two faces apart. Raises `ValueError` for points on one line, which have no solution.
    """
    source, target = (np.asarray(points, np.float64).reshape(-1, 2) for points in (from_N2, to_N2))
    centre, spread = source.mean(axis=0), max(float(source.std()), 1e-12)
    ones = np.concatenate([(source - centre) / spread, np.ones((len(source), 1))], axis=1)
    if not (np.isfinite(ones).all() and np.isfinite(target).all()) or np.linalg.matrix_rank(ones, 1e-6) < 3:
        raise ValueError("landmarks on one line or not finite; wanted at least three that span a plane")
    solved = np.linalg.lstsq(ones, target, rcond=None)[0].T
    turn = solved[:, :2] / spread
    return np.concatenate([turn, (solved[:, 2] - turn @ centre)[:, None]], axis=1)


def rotate(
    rgb_u8: NDArray[np.uint8], points_px: ArrayLike, angle_deg: float
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """The whole photo turned by `angle_deg` on a canvas just large enough, its points, and the matrix [2, 3].

    Multiples of 90 degrees move pixels and change none. Corners the photo does not reach are
    filled from it.
    """
    height, width = rgb_u8.shape[:2]
    turn = _turn(angle_deg)
    outline = np.array([[0, 0], [width, 0], [0, height], [width, height]]) - 0.5
    corners = map_points(turn, outline)
    low, high = corners.min(axis=0), corners.max(axis=0)
    size = np.ceil(high - low - 1e-6).astype(int)
    turn[:, 2] = (size - (low + high) - 1) / 2
    points = map_points(turn, points_px)
    if angle_deg % 90 == 0:
        return np.ascontiguousarray(np.rot90(rgb_u8, -int(angle_deg // 90))), points, turn
    return _warp(rgb_u8, turn, (int(size[0]), int(size[1]))), points, turn


def _turn(angle_deg: float) -> NDArray[np.float64]:
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])


def crop_matrix(
    bbox_xyxy_px: ArrayLike, landmarks_px: ArrayLike, side_px: int, face_ratio: float
) -> NDArray[np.float64]:
    """Matrix [2, 3] from the photo to an upright square crop of `side_px` around the face.

    The face's side is the longer side of its box. It becomes `face_ratio` (0..1) of the crop's side, and the
    box's centre the crop's centre. `bbox_xyxy_px` [4] is the detector's box in the photo as given, not in the
    turned one. Raises `ValueError` for an empty box or a ratio outside 0..1.
    """
    x0, y0, x1, y1 = np.asarray(bbox_xyxy_px, np.float64).reshape(4)
    face_side_px = max(x1 - x0, y1 - y0)
    if not (x1 > x0 and y1 > y0 and 0 < face_ratio <= 1):
        wanted = "x0 < x1, y0 < y1 and 0 < ratio <= 1"
        raise ValueError(f"got box {[x0, y0, x1, y1]} and face ratio {face_ratio}, wanted {wanted}")
    matrix = _turn(alignment_deg(landmarks_px)) * (side_px * face_ratio / face_side_px)
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    matrix[:, 2] = (side_px - 1) / 2 - matrix[:, :2] @ centre
    return matrix


def align_and_crop(
    rgb_u8: NDArray[np.uint8],
    bbox_xyxy_px: ArrayLike,
    landmarks_px: ArrayLike,
    side_px: int,
    face_ratio: float = 0.40,
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The upright square crop [side_px, side_px, 3] around a face, and its `crop_matrix` [2, 3].

    Where the crop reaches beyond the photo it fades into the colours around: there is no black wedge, no
    streak and no mirrored second face for a LoRA to learn. `inside_mask` tells which pixels are real.
    """
    matrix = crop_matrix(bbox_xyxy_px, landmarks_px, side_px, face_ratio)
    return cut(rgb_u8, matrix, side_px), matrix


def cut(rgb_u8: NDArray[np.uint8], matrix: NDArray[np.float64], side_px: int) -> NDArray[np.uint8]:
    """The square [side_px, side_px, 3] that `matrix` [2, 3] maps the photo to, filled as `align_and_crop` says."""
    return _warp(rgb_u8, matrix, (side_px, side_px))


def inside_mask(photo_hw_px: tuple[int, int], matrix: ArrayLike, side_px: int) -> NDArray[np.bool_]:
    """Which pixels [side_px, side_px] of a crop show the photo and not the filling beyond its border."""
    return _inside(photo_hw_px, np.asarray(matrix, np.float64), (side_px, side_px))


def _inside(photo_hw_px: tuple[int, int], matrix: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    source = map_points(invert(matrix), np.stack([x, y], axis=-1))
    limits = np.array([photo_hw_px[1], photo_hw_px[0]]) - 0.5
    return np.asarray(((source >= -0.5) & (source <= limits)).all(axis=-1))


def _warp(rgb_u8: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """`rgb_u8` through `matrix` on a canvas of `size` (width, height): no aliasing, no black corners."""
    shrink = 1.0 / np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    # Bilinear sampling skips pixels when it shrinks: warp at the photo's scale, then average whole blocks.
    k = max(1, min(int(np.ceil(shrink)), 16))
    fine = matrix * k
    fine[:, 2] += (k - 1) / 2
    wide = cv2.warpAffine(
        rgb_u8, fine, (size[0] * k, size[1] * k), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    canvas = wide if k == 1 else cv2.resize(wide, size, interpolation=cv2.INTER_AREA)
    inside = _inside(rgb_u8.shape[:2], matrix, size)
    return np.asarray(canvas, np.uint8) if inside.all() else _fill(np.asarray(canvas, np.uint8), inside)


def _fill(canvas: NDArray[np.uint8], inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """`canvas` with all that is not `inside` filled by push-pull (Gortler et al., The Lumigraph, 1996).

    Averages of the known pixels are pushed down a pyramid and pulled up into the holes, so that a hole is the
    colour of its surroundings and blurs with the distance to them. Continuing the border line by line instead
    drew a pillar of hair over every head that touches the photo's edge; mirroring it draws a second face.
    """
    if not inside.any():
        return canvas
    weight, known = inside.astype(np.float32), canvas.astype(np.float32)
    levels = [(weight, known)]
    while max(weight.shape) > 1:
        sums = cv2.pyrDown(known * weight[..., None]).reshape(*cv2.pyrDown(weight).shape, 3)
        weight = cv2.pyrDown(weight)
        known = sums / np.maximum(weight, 1e-12)[..., None]
        # A few known pixels settle a coarse one: a hole looks like its own border, not like the whole photo.
        weight = 1 - (1 - np.clip(weight, 0, 1)) ** 4
        levels.append((weight, known))
    filled = known
    for weight, known in levels[-2::-1]:
        wide = cv2.resize(filled, weight.shape[::-1], interpolation=cv2.INTER_LINEAR).reshape(known.shape)
        filled = wide + (known - wide) * weight[..., None]
    return np.clip(np.rint(filled), 0, 255).astype(np.uint8)
