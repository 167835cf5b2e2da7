"""Orders in templates through the portrait actor: the editor's own pictures, found done, or failed with a reason."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from actors.perceiver import png_bytes
from actors.portraitist import ORDER_INPUT, Portraitist, order_row
from benchmarks.workloads import write_loras
from studiolo.albums.records import Reason
from studiolo.generation.base import load_base
from studiolo.generation.controlnets import EDGES, POSE, controlnet_for
from studiolo.perception.suite import Suite, open_suite
from studiolo.portraits.editing import Editor, Sitter
from studiolo.portraits.files import decode_portrait, image_sha256
from studiolo.portraits.rounds import Subject
from studiolo.portraits.template_files import Templates, read_template
from studiolo.settings import GenerationSettings, PerceptionSettings
from studiolo.storage.store import Store
from studiolo.weights.fetch import pull, sha256_of
from tests.portraits.test_fusion import crop_of

pytestmark = [pytest.mark.usefixtures("weights"), pytest.mark.timeout(240)]

SETTINGS = GenerationSettings(steps=3, slots=2, accept_similarity=0.0, candidates_per_portrait=1, retries=0)
SEEING = PerceptionSettings(working_side_px=480)


@pytest.fixture(scope="module")
def suite() -> Suite:
    return open_suite("embedded")


@pytest.fixture
def templates(tmp_path: Path, people: Path) -> Path:
    folder = tmp_path / "templates"
    folder.mkdir()
    Image.open(people / "P001" / "portrait.jpg").convert("RGB").resize((480, 480)).save(folder / "wedding.jpg")
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(folder / "wall.png")
    return folder


@pytest.fixture
def actor(tmp_path: Path, people: Path, suite: Suite) -> Portraitist:
    """With ControlNets that add nothing yet, and a person's photo in its store."""
    made = Portraitist(Store(tmp_path / "out"), "embedded", "embedded-base", SETTINGS, 0.8, perception=SEEING)
    made.open()
    base = load_base(pull("embedded-base"))
    made.sampler.use(base, {name: controlnet_for(base.unet).requires_grad_(False).eval() for name in (POSE, EDGES)})
    crop = crop_of(people / "P002" / "portrait.jpg", suite, 0.35, 512)[0]
    made.store.write_bytes("crop.png", png_bytes(crop))
    (tmp_path / "loras").mkdir()
    made.store.write_bytes("lora.safetensors", write_loras(base, tmp_path / "loras", 1)[0].read_bytes())
    return made


def order(actor: Portraitist, templates: Path, suite: Suite, name: str, **changes: Any) -> dict[str, Any]:
    """One picture of the person in a template."""
    crop = np.asarray(Image.open(io.BytesIO(actor.store.read_bytes("crop.png"))))
    embedding = suite.embedder(crop, [suite.detector(crop, 0.7)[0].landmarks_px])[0]
    reference = {"crop_path": "crop.png", "quality_score": 0.9, "embedding": embedding.tolist()}
    identity = {"identity_id": "anna", "trigger": "a beautiful woman", "common_tags": [], "references": [reference]}
    lora = {"path": "lora.safetensors", "sha256": sha256_of(Path(str(actor.store.local_path("lora.safetensors"))))}
    row = order_row(identity, lora, name, 1, 0, Templates(str(templates)).ordered(name).row())
    return {**row, **changes}


def made(actor: Portraitist, row: dict[str, Any]) -> dict[str, Any]:
    """The one candidate of an order."""
    (found,) = actor(pa.Table.from_pylist([row], ORDER_INPUT)).to_pylist()
    return found


def test_a_picture_is_the_editors_and_found_done(actor: Portraitist, templates: Path, suite: Suite) -> None:
    wanted = order(actor, templates, suite, "wedding")
    row = made(actor, wanted)
    assert (row["status"], row["reason"], row["style"], row["rank"]) == ("ok", "", "wedding", 1)
    assert row["path"] == "identities/anna/portraits/wedding/000.png"
    rgb_u8, inside = decode_portrait(actor.store.read_bytes(row["path"]))
    assert (inside["style"], inside["strength"], rgb_u8.shape) == ("wedding", 0.65, (480, 480, 3))
    turns = actor.sampler.engine.work().turns
    assert made(actor, wanted) == row
    assert actor.sampler.engine.work().turns == turns

    faces = actor.finish.templates("anna", "again", lambda: [(actor.store.read_bytes("crop.png"), 0.9)])
    references_ND = np.array([wanted["references"][0]["embedding"]], np.float32)
    lora = str(actor.store.local_path("lora.safetensors"))
    sitter = Sitter(Subject(wanted["trigger"]), lora, faces, references_ND)
    template = read_template(wanted["template"]["uri"], wanted["template"]["sha256"], SEEING)
    edit = Editor(actor.sampler.engine, actor.finish, SEEING)(actor._edit(wanted), template, sitter)
    assert edit.outcome is not None
    assert image_sha256(edit.outcome.made[0].portrait.rgb_u8) == row["image_sha256"]

    more = made(actor, {**wanted, "seed": 5, "first_index": 10_000})
    assert (more["index"], more["status"]) == (10_000, "ok")
    assert more["image_sha256"] != row["image_sha256"]


def test_a_template_that_is_none_ends_its_order_with_the_reason(
    actor: Portraitist, templates: Path, suite: Suite
) -> None:
    row = made(actor, order(actor, templates, suite, "wall"))
    assert (row["status"], row["reason"], row["path"], row["index"]) == ("failed", Reason.NO_FACE, "", -1)
    wanted = order(actor, templates, suite, "wedding")
    (templates / "wedding.jpg").write_bytes((templates / "wall.png").read_bytes())
    row = made(actor, wanted)
    assert (row["status"], row["reason"]) == ("failed", Reason.UNREADABLE)
    assert "another file" in row["detail"]


def test_another_face_another_sight_and_other_networks_make_other_pictures(
    actor: Portraitist, templates: Path, suite: Suite
) -> None:
    def key(name: str, made_by: Portraitist) -> str:
        edit = made_by._edit(order(actor, templates, suite, name))
        return edit.key("references", "lora", made_by._weights(edit.style, edit))

    def other(**changes: Any) -> Portraitist:
        made_by = Portraitist(
            actor.store, "embedded", "embedded-base", SETTINGS, 0.8, **{"perception": SEEING} | changes
        )
        made_by.similarity = actor.similarity
        return made_by

    assert key("wedding", other()) == key("wedding", actor)
    keys = [key("wedding", actor), key("wedding@0.5x0.5", actor), key("wall", actor)]
    keys.append(key("wedding", other(perception=PerceptionSettings(working_side_px=500))))
    keys.append(key("wedding", other(controlnets="facechain-controlnets")))
    assert len(set(keys)) == len(keys)
