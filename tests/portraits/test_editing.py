"""Edits end to end: real perception, the embedded base, two sample people."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from actors.perceiver import png_bytes
from studiolo.albums.decode import decode
from studiolo.albums.geometry import align_and_crop
from studiolo.albums.records import Reason, Status
from studiolo.generation.base import load_base
from studiolo.generation.controlnets import EDGES, POSE, controlnet_for
from studiolo.generation.engine import Engine
from studiolo.generation.engine import Order as EngineOrder
from studiolo.perception.similarity import Similarity
from studiolo.perception.suite import Suite, open_suite
from studiolo.portraits.editing import Edit, Editor, Sitter
from studiolo.portraits.edits import EditOrder, template_sha256
from studiolo.portraits.finishing import Finisher
from studiolo.portraits.rounds import Subject
from studiolo.portraits.scoring import similarity_to
from studiolo.settings import GenerationSettings, PerceptionSettings
from studiolo.training.looks import greyscale
from studiolo.weights.fetch import pull

SEEING = PerceptionSettings(working_side_px=640)
GENERATION = GenerationSettings(steps=6, candidates_per_portrait=1, retries=0, slots=2, accept_similarity=0.0)
NAMES = ("portrait.jpg", "expression-01-neutral.jpg", "selfie.jpg")


@pytest.fixture(scope="module")
def suite() -> Suite:
    return open_suite("embedded")


@pytest.fixture(scope="module")
def engine() -> Engine:
    base = load_base(pull("embedded-base"))
    networks = {name: controlnet_for(base.unet).requires_grad_(False).eval() for name in (POSE, EDGES)}
    return Engine.configured(base, GENERATION, networks)


@pytest.fixture(scope="module")
def editor(engine: Engine, suite: Suite) -> Editor:
    return Editor(engine, Finisher(suite, Similarity.load(), GENERATION, SEEING), SEEING)


@pytest.fixture(scope="module")
def photo(people: Path) -> NDArray[np.uint8]:
    return decode((people / "P001" / "portrait.jpg").read_bytes(), SEEING)


@pytest.fixture(scope="module")
def sitter(people: Path, suite: Suite) -> Sitter:
    """Another person than the template's."""
    crops, embeddings = [], []
    for name in NAMES:
        rgb = decode((people / "P002" / name).read_bytes(), PerceptionSettings())
        face = suite.detector(rgb, 0.7)[0]
        crops.append((align_and_crop(rgb, face.bbox_xyxy_px, face.landmarks_px, 512, 0.4)[0], 0.9))
        embeddings.append(suite.embedder(rgb, [face.landmarks_px])[0])
    finisher = Finisher(suite, Similarity.load(), GENERATION, SEEING)
    faces = finisher.templates("P002", "1", lambda: [(png_bytes(crop), quality) for crop, quality in crops])
    return Sitter(Subject("a beautiful woman"), None, faces, np.array(embeddings))


def order(photo: NDArray[np.uint8], **changes: Any) -> EditOrder:
    fields = {"identity_id": "P002", "template_sha256": template_sha256(photo), "generation": GENERATION, "seed": 3}
    return EditOrder(**{**fields, **changes})


@pytest.fixture(scope="module")
def edit(editor: Editor, photo: NDArray[np.uint8], sitter: Sitter) -> Edit:
    return editor(order(photo), photo, sitter)


def picture(made: Edit) -> NDArray[np.uint8]:
    assert made.outcome is not None
    return made.outcome.made[0].portrait.rgb_u8


def test_outside_the_mask_every_byte_is_the_templates(edit: Edit, photo: NDArray[np.uint8]) -> None:
    assert edit.template is not None
    made, untouched = picture(edit), edit.template.seen == 0
    assert made.shape == photo.shape
    assert np.array_equal(made[untouched], photo[untouched])
    assert untouched.mean() > 0.5
    assert np.abs(made[edit.template.seen == 1].astype(int) - photo[edit.template.seen == 1]).mean() > 3


def test_the_template_shows_the_sitter(edit: Edit, editor: Editor, photo: NDArray[np.uint8], sitter: Sitter) -> None:
    assert (edit.status, edit.reason) == (Status.OK, Reason.NONE)
    assert edit.outcome is not None
    score = edit.outcome.made[0].portrait.score
    assert score.faces == 1
    before = editor._finisher.judge(photo, sitter.references_ND)
    assert score.similarity > before.similarity + 0.2
    assert score.embedding is not None
    assert similarity_to(score.embedding, sitter.references_ND, Similarity.load()) == score.similarity


def test_the_same_order_gives_the_same_bytes_in_company(
    edit: Edit, engine: Engine, editor: Editor, photo: NDArray[np.uint8], sitter: Sitter
) -> None:
    others = engine.submit(EngineOrder(seed=1, identity_id="other", prompt="a handsome man", count=3, steps=20))
    again = editor(order(photo), photo, sitter)
    others.close()
    assert np.array_equal(picture(again), picture(edit))
    other = editor(order(photo, seed=4), photo, sitter)
    assert not np.array_equal(picture(other), picture(edit))


def test_a_picture_that_is_no_template_is_dropped_before_any_drawing(
    editor: Editor, engine: Engine, photo: NDArray[np.uint8], sitter: Sitter
) -> None:
    turns = engine.work().turns
    blank = np.full((200, 200, 3), 90, np.uint8)
    two = np.concatenate([photo, photo], axis=1)
    for rgb, reason in ((blank, Reason.NO_FACE), (two, Reason.SEVERAL_FACES)):
        found = editor(order(rgb), rgb, sitter)
        assert (found.status, found.reason, found.outcome) == (Status.DROPPED, reason, None)
    assert engine.work().turns == turns


def test_who_looks_in_from_beside_costs_nothing(
    editor: Editor, suite: Suite, photo: NDArray[np.uint8], sitter: Sitter
) -> None:
    """A small face beside the one that is drawn lies in its crop."""
    left, _, right, bottom = suite.detector(photo, 0.7)[0].bbox_xyxy_px.astype(int)
    head = photo[: bottom + (bottom // 8), max(0, left - 20) : right + 20]
    side = int(0.4 * (right - left))
    small = np.asarray(Image.fromarray(head).resize((side, round(side * head.shape[0] / head.shape[1]))))
    beside = photo.copy()
    x, y = min(right + side // 4, photo.shape[1] - side), bottom - len(small)
    beside[y : y + len(small), x : x + side] = small
    template = editor.look(order(beside), beside)
    assert len(suite.detector(template.face.crop_rgb_u8, 0.7)) == 2
    made = editor(order(beside), beside, sitter)
    assert (made.status, made.reason) == (Status.OK, Reason.NONE)
    assert made.outcome is not None
    assert made.outcome.made[0].portrait.score.faces == 1


def test_in_a_grey_picture_the_face_is_grey(editor: Editor, photo: NDArray[np.uint8], sitter: Sitter) -> None:
    grey = greyscale(photo)
    assert np.ptp(picture(editor(order(grey), grey, sitter)), axis=-1).max() <= 2


def test_when_no_picture_is_good_enough_it_fails(editor: Editor, photo: NDArray[np.uint8], sitter: Sitter) -> None:
    strict = GENERATION.model_copy(update={"accept_similarity": 1.0, "steps": 2})
    found = editor(order(photo, generation=strict), photo, sitter)
    assert (found.status, found.reason) == (Status.FAILED, Reason.NONE_ACCEPTED)
    assert found.outcome is not None
    assert [one.reason for one in found.outcome.ranked] == [Reason.LOW_SIMILARITY]
