from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from studiolo.albums.decode import decode
from studiolo.albums.records import Verdict
from studiolo.perception.similarity import Similarity
from studiolo.perception.suite import Suite, open_suite
from studiolo.portraits.scoring import Score, score_portrait, similarity_to
from studiolo.settings import PerceptionSettings

SEEING = PerceptionSettings(working_side_px=768)
SIMILARITY = Similarity.load()
NOBODY = np.zeros((1, 128), np.float32)

Seen = dict[str, list[tuple[NDArray[np.uint8], Score]]]


@pytest.fixture(scope="module")
def suite() -> Suite:
    return open_suite("embedded")


@pytest.fixture(scope="module")
def seen(people: Path, suite: Suite) -> Seen:
    """Portrait, selfie and two expressions of two people, each with what was seen in it."""
    found: Seen = {}
    for album in sorted(folder for folder in people.iterdir() if (folder / "selfie.jpg").is_file())[:2]:
        paths = [album / "portrait.jpg", album / "selfie.jpg", *sorted(album.glob("expression-*.jpg"))[:2]]
        pictures = [decode(path.read_bytes(), SEEING) for path in paths]
        found[album.name] = [(rgb_u8, score_portrait(rgb_u8, suite, NOBODY, SIMILARITY, SEEING)) for rgb_u8 in pictures]
    return found


def embeddings(seen: Seen, name: str, start: int = 0) -> NDArray[np.float32]:
    return np.array([score.embedding for _, score in seen[name][start:]])


def test_one_clear_face_is_counted_and_embedded(seen: Seen):
    for _, score in [item for items in seen.values() for item in items]:
        assert score.faces == 1
        assert score.embedding is not None
        assert score.embedding.shape == (128,)
        assert 0.0 < score.quality_score <= 1.0
        assert 0.0 <= score.unsafe_score < 0.5


def test_own_references_are_nearer_than_others(seen: Seen, suite: Suite):
    one, two = sorted(seen)
    portrait = seen[one][0][0]
    own = score_portrait(portrait, suite, embeddings(seen, one, 1), SIMILARITY, SEEING)
    other = score_portrait(portrait, suite, embeddings(seen, two), SIMILARITY, SEEING)
    assert own.similarity > 0.5 > other.similarity
    assert own.verdict != Verdict.DIFFERENT
    assert other.verdict != Verdict.SAME


def test_score_is_repeatable_and_equals_similarity_to(seen: Seen, suite: Suite):
    one, two = sorted(seen)
    rgb_u8, score = seen[one][0]
    assert score.embedding is not None
    again = score_portrait(rgb_u8, suite, embeddings(seen, two), SIMILARITY, SEEING)
    assert again.similarity == similarity_to(score.embedding, embeddings(seen, two), SIMILARITY)
    np.testing.assert_array_equal(again.embedding, score.embedding)


def test_two_faces_are_counted(seen: Seen, suite: Suite):
    one, two = sorted(seen)
    left, right = (seen[name][0][0] for name in (one, two))
    height_px = min(len(left), len(right))
    both = np.concatenate([left[:height_px], right[:height_px]], axis=1)
    assert score_portrait(both, suite, NOBODY, SIMILARITY, SEEING).faces == 2


def test_who_is_outside_the_mask_does_not_count(seen: Seen, suite: Suite):
    one, two = sorted(seen)
    large, small = (seen[name][0][0] for name in (one, two))
    height, width = large.shape[:2]
    both = np.zeros((height, width + width // 2, 3), np.uint8)  # the other is half as large
    both[:, :width], both[: height // 2, width:] = large, cv2.resize(small, (width // 2, height // 2))
    beside = np.zeros((12, 12), bool)
    beside[:, 8:] = True
    for within, name in ((~beside, one), (beside, two)):
        score = score_portrait(both, suite, embeddings(seen, name), SIMILARITY, SEEING, within)
        assert score.faces == 1
        assert score.similarity > 0.5
    assert score_portrait(both, suite, NOBODY, SIMILARITY, SEEING, np.zeros((4, 4), bool)).faces == 0


def test_no_face_is_no_likeness(suite: Suite):
    score = score_portrait(np.full((256, 256, 3), 128, np.uint8), suite, NOBODY, SIMILARITY, SEEING)
    assert (score.faces, score.similarity, score.quality_score) == (0, 0.0, 0.0)
    assert (score.verdict, score.embedding) == (Verdict.DIFFERENT, None)


def test_a_portrait_on_its_side_is_no_portrait(seen: Seen, suite: Suite):
    turned = np.ascontiguousarray(np.rot90(next(iter(seen.values()))[0][0]))
    assert score_portrait(turned, suite, NOBODY, SIMILARITY, SEEING).faces == 0


def test_small_faces_do_not_count(seen: Seen, suite: Suite):
    rgb_u8 = next(iter(seen.values()))[0][0]
    large_only = SEEING.model_copy(update={"min_face_px": max(rgb_u8.shape)})
    assert score_portrait(rgb_u8, suite, NOBODY, SIMILARITY, large_only).faces == 0
