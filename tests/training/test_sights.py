from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from studiolo.albums.decode import decode
from studiolo.albums.geometry import align_and_crop
from studiolo.errors import TrainingError
from studiolo.generation.tiny import tiny_base
from studiolo.perception.suite import Suite, open_suite
from studiolo.settings import PerceptionSettings
from studiolo.training.faces import View
from studiolo.training.sights import Examples, make_examples, see

SEEING = PerceptionSettings(min_side_px=64, min_face_px=24)
SIDE = 128


@pytest.fixture(scope="module")
def suite() -> Suite:
    return open_suite("embedded")


@pytest.fixture(scope="module")
def face(people: Path, suite: Suite) -> NDArray[np.uint8]:
    photo = decode((people / "P001" / "portrait.jpg").read_bytes(), PerceptionSettings())
    found = suite.detector(photo, 0.7)[0]
    return align_and_crop(photo, found.bbox_xyxy_px, found.landmarks_px, SIDE, 0.66)[0]


def test_a_wider_reach_hides_more(face: NDArray[np.uint8], suite: Suite) -> None:
    narrow, wide = (see(face, reach, suite.detector, suite.mesher, SEEING) for reach in (0.05, 0.2))
    assert narrow is not None
    assert wide is not None
    assert wide.face[narrow.face].all()
    assert wide.face.sum() > narrow.face.sum()
    assert np.array_equal(narrow.edges, wide.edges)
    assert (narrow.edges & ~wide.face).any()
    assert see(np.full((SIDE, SIDE, 3), 90, np.uint8), 0.1, suite.detector, suite.mesher, SEEING) is None


def test_examples_keep_order_and_go_through_a_file(face: NDArray[np.uint8], suite: Suite, tmp_path: Path) -> None:
    blank = np.full((SIDE, SIDE, 3), 90, np.uint8)
    mirrored = np.ascontiguousarray(face[:, ::-1])
    views = [View(rgb, word, ("smile",), ("sepia",)) for rgb, word in ((face, "a"), (blank, "b"), (mirrored, "c"))]
    base = tiny_base()
    examples = make_examples(base, views, suite.detector, suite.mesher, SEEING, np.random.default_rng(0))
    assert [view.trigger for view in examples.views] == ["a", "c"]
    assert examples.mean_NChw.shape == (2, 8, SIDE // 8, SIDE // 8)
    across = examples.sights[0].landmarks_px[:, 0].mean() + examples.sights[1].landmarks_px[:, 0].mean()
    assert across == pytest.approx(SIDE - 1, abs=2)
    torch.save(examples.state_dict(), tmp_path / "examples.pt")
    again = Examples.from_state(torch.load(tmp_path / "examples.pt", weights_only=True))
    assert torch.equal(again.mean_NChw, examples.mean_NChw)
    assert torch.equal(again.std_NChw, examples.std_NChw)
    for one, two in zip(examples.sights, again.sights, strict=True):
        for name in ("joints_px", "landmarks_px", "edges", "face"):
            assert np.array_equal(getattr(one, name), getattr(two, name))
    assert [(view.trigger, view.tags, view.style) for view in again.views] == [
        (word, ("smile",), ("sepia",)) for word in "ac"
    ]


def test_views_without_a_face_are_nothing_to_learn_from(suite: Suite) -> None:
    views = [View(np.full((SIDE, SIDE, 3), 90, np.uint8), "a", (), ())]
    with pytest.raises(TrainingError, match="no view"):
        make_examples(tiny_base(), views, suite.detector, suite.mesher, SEEING, np.random.default_rng(0))
