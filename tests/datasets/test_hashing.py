import cv2
import numpy as np
from numpy.typing import NDArray

from studiolo.datasets.hashing import perceptual_hash


def scene(seed: int) -> NDArray[np.uint8]:
    """Soft random shapes, 240 x 200."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (200, 240), interpolation=cv2.INTER_CUBIC), np.uint8)


def differing(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def test_scaled_compressed_and_toned_it_is_nearly_the_same() -> None:
    for seed in range(20):
        rgb_u8 = scene(seed)
        small = cv2.resize(rgb_u8, (80, 96), interpolation=cv2.INTER_AREA)
        jpeg = cv2.imdecode(cv2.imencode(".jpg", rgb_u8, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
        toned = np.clip(rgb_u8 * 0.8 + 20, 0, 255).astype(np.uint8)
        for other in (small, jpeg, toned):
            assert differing(perceptual_hash(rgb_u8), perceptual_hash(other)) <= 6


def test_other_pictures_are_far() -> None:
    hashes = [perceptual_hash(scene(seed)) for seed in range(30)]
    assert all(len(value) == 16 for value in hashes)
    assert min(differing(one, other) for one in hashes for other in hashes if one is not other) > 7
