import numpy as np
from numpy.typing import NDArray

from studiolo.perception import chips
from studiolo.perception.detect import RgbU8
from studiolo.perception.embed import CHIP_SIDE_PX, EmbeddedEmbedder
from studiolo.perception.perceive import PerceivedPhoto
from studiolo.perception.suite import Suite

Photos = dict[tuple[str, str], RgbU8]
Perceived = dict[tuple[str, str], PerceivedPhoto]


def _split(embeddings: NDArray[np.float64], people: list[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = np.triu_indices(len(people), 1)
    distances = np.linalg.norm(embeddings[first] - embeddings[second], axis=1)
    same = np.array([people[i] == people[j] for i, j in zip(first, second, strict=True)])
    return distances[same], distances[~same]


def test_one_person_is_nearer_than_two(perceived: Perceived):
    people = [person for person, _ in perceived]
    own, other = _split(np.array([seen.faces[0]["embedding"] for seen in perceived.values()]), people)
    assert np.median(own) < 0.5 < np.median(other)
    assert own.max() < other.min()


def test_alignment_separates_better_than_the_bare_box(suite: Suite, photos: Photos, perceived: Perceived):
    assert isinstance(suite.embedder, EmbeddedEmbedder)
    people, bare = [person for person, _ in perceived], []
    for key, seen in perceived.items():
        x0, y0, x1, y1 = seen.faces[0]["bbox_xyxy_px"]
        scale = CHIP_SIDE_PX / max(x1 - x0, y1 - y0)
        matrix = np.array([[scale, 0, -scale * x0], [0, scale, -scale * y0]])
        bare.append(chips.warp(photos[key], matrix, CHIP_SIDE_PX))
    own, other = _split(np.array([seen.faces[0]["embedding"] for seen in perceived.values()]), people)
    bare_own, bare_other = _split(suite.embedder.embed_chips(bare).astype(np.float64), people)
    assert np.median(other) - np.median(own) > np.median(bare_other) - np.median(bare_own)


def test_no_faces_give_no_rows_and_neighbours_do_not_matter(suite: Suite, photos: Photos, perceived: Perceived):
    photo, seen = photos["P001", "portrait.jpg"], perceived["P001", "portrait.jpg"]
    five = seen.faces[0]["landmarks_px"]
    assert suite.embedder(photo, []).shape == (0, 128)
    batch = suite.embedder(photo, [five, np.array(five) + 3, five])
    assert np.array_equal(batch[0], batch[2])
    assert np.array_equal(batch[0], np.array(seen.faces[0]["embedding"], np.float32))
