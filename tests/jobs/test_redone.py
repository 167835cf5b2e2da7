"""Which units a changed setting redoes: the keys of a job whose every unit is found done, wired as the job wires it."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest
import torch

from actors.perceiver import png_bytes
from jobs.progress import Progress
from jobs.studio_check import ordered
from jobs.studio_job import STAGES, StudioJob
from studiolo.identities.artifacts import identity_name
from studiolo.perception.similarity import Similarity
from studiolo.perception.suite import PERCEPTION_CARDS
from studiolo.portraits.styles import load_style
from studiolo.settings import FaceLoraSettings, StudioSettings
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store
from studiolo.training.face_lora import diffusers_weights, lora_bytes, metadata_of
from tests.actors.test_trainer import Runs

NOTHING: set[str] = set()
ALBUM, IDENTITY, ORDER = {"album"}, {"identity"}, {"order"}

# setting, another value than the default (or than the job's), the units whose keys it changes while their inputs stay
TABLE: list[tuple[str, Any, set[str]]] = [
    ("albums", "moved/albums", NOTHING),
    ("out", "moved/out", NOTHING),
    ("styles", "studio,warm-film", NOTHING),  # one more order; the other one stays
    ("styles", "warm-film", ORDER),
    ("per_style", 5, ORDER),
    ("orders", "same.yaml", NOTHING),
    ("orders", "more.yaml", ORDER),
    ("orders", "people.yaml", ALBUM),  # units of the added people come on top
    ("templates", "same", NOTHING),  # of orders without edits; tests/actors/test_portraitist_edits.py has those with
    ("controlnets", "facechain-controlnets", NOTHING),
    ("template_side_px", 1200, NOTHING),
    ("retention_days", 30, NOTHING),
    ("max_failed_share", 0.5, NOTHING),
    ("suite", "modelscope", ALBUM | IDENTITY | ORDER),
    ("style_folder", "same", NOTHING),
    ("style_folder", "reworded", ORDER),
    ("commercial", True, NOTHING),
    ("seed", 1, IDENTITY | ORDER),
    ("cpus", 1, NOTHING),
    ("object_store_mib", 300, NOTHING),
    ("tracking_uri", "http://localhost:5000", NOTHING),
    ("perception.max_pixels", 1000, ALBUM),
    ("perception.working_side_px", 800, ALBUM),
    ("perception.min_side_px", 65, ALBUM),
    ("perception.detector_score", 0.8, ALBUM),
    ("perception.min_face_px", 49, ALBUM),
    ("perception.mesh_score", 0.6, ALBUM),
    ("perception.decode_seconds", 20.0, ALBUM),
    ("perception.decode_mib", 512, ALBUM),
    ("perception.time_limit_s", 100.0, NOTHING),
    ("perception.memory_limit_mib", 4000, NOTHING),
    ("perception.actors", 1, NOTHING),
    ("perception.cpus_per_actor", 0.5, NOTHING),
    ("selection.dominant_face_ratio", 5.0, ALBUM),
    ("selection.min_quality", 0.5, ALBUM),
    ("selection.max_references", 10, ALBUM),
    ("selection.min_references", 2, ALBUM),
    ("selection.unsafe_above", 0.9, ALBUM | ORDER),
    ("selection.minors", "refuse", ALBUM),
    ("selection.adult_age", 20.0, ALBUM),
    ("face_lora.rank", 8, IDENTITY),
    ("face_lora.alpha", 8.0, IDENTITY),
    ("face_lora.learning_rate", 1e-3, IDENTITY),
    ("face_lora.steps", 400, IDENTITY),
    ("face_lora.batch_size", 8, IDENTITY),
    ("face_lora.resolution", 64, IDENTITY),
    ("face_lora.schedule", "linear", IDENTITY),
    ("face_lora.warmup_steps", 10, IDENTITY),
    ("face_lora.restarts", 2, IDENTITY),
    ("face_lora.min_snr_gamma", None, IDENTITY),
    ("face_lora.background_weight", 0.2, IDENTITY),
    ("face_lora.caption_dropout", 0.2, IDENTITY),
    ("face_lora.max_photos", 5, IDENTITY),
    ("face_lora.views_per_photo", 3, IDENTITY),
    ("face_lora.view_face_ratio", (0.6, 0.7), IDENTITY),
    ("face_lora.look_share", 0.5, IDENTITY),
    ("face_lora.gradient_clip", 2.0, IDENTITY),
    ("face_lora.checkpoint_seconds", 1.0, NOTHING),
    ("face_lora.time_limit_s", 100.0, NOTHING),
    ("face_lora.memory_limit_mib", 4000, NOTHING),
    ("face_lora.workers", (1, 1), NOTHING),
    ("face_lora.cpus_per_worker", 2, NOTHING),
    ("face_lora.gradient_checkpointing", True, NOTHING),
    ("face_lora.kohya_file", True, NOTHING),
    ("face_lora.slots", 3, IDENTITY),
    ("face_lora.accelerator", True, IDENTITY),
    ("face_lora.targets", ("to_q", "to_v"), IDENTITY),
    ("face_lora.precision", "float32", IDENTITY),
    ("face_lora.start", "common.safetensors", IDENTITY),
    ("face_lora.validate_every", 100, IDENTITY),
    ("face_lora.validation_patience", 2, IDENTITY),
    ("face_lora.noise_offset", 0.05, IDENTITY),
    ("face_lora.prior_weight", 0.5, IDENTITY),
    ("face_lora.prior_images", 8, IDENTITY),
    ("generation.steps", 20, ORDER),
    ("generation.guidance_scale", 2.0, ORDER),
    ("generation.eta", 0.5, ORDER),
    ("generation.face_weight", 0.9, ORDER),
    ("generation.style_weight", 0.9, ORDER),
    ("generation.slots", 2, ORDER),
    ("generation.rank_budget", 32, ORDER),
    ("generation.precision", "float32", ORDER),
    ("generation.upscale", 4, ORDER),
    ("generation.accept_similarity", 0.2, ORDER),
    ("generation.retries", 1, ORDER),
    ("generation.candidates_per_portrait", 3, ORDER),
    ("generation.fusion", 0.5, ORDER),
    ("generation.retouch", 0.5, ORDER),
    ("generation.face_share", (0.3, 0.9), ORDER),
    ("generation.time_limit_s", 100.0, NOTHING),
    ("generation.memory_limit_mib", 4000, NOTHING),
    ("generation.actors", 1, NOTHING),
    ("generation.cpus_per_actor", 0.5, NOTHING),
    ("generation.orders_in_flight", 4, NOTHING),
]

REFERENCE = {
    "identity_id": "anna",
    "album_id": "anna",
    "crop_path": "crop.png",
    "mask_path": "mask.png",
    "caption": "a woman, smile",
    "quality_score": 0.9,
    "expression_l2": 0.01,
    "embedding": [0.5] * 128,
}
IDENTITY_ROW = {"identity_id": "anna", "status": "ok", "trigger": "a woman", "common_tags": ["smile"]}
RECORDS: dict[str, dict[str, Any]] = {
    "album": {"album_id": "anna", "photos": [], "references": [REFERENCE], **IDENTITY_ROW},
    "identity": {"identity_id": "anna", "status": "ok", "path": "lora", "sha256": "00", "final_loss": 0, "seconds": 0},
    "order": {"portraits": []},
}


class Done(Ledger):
    """A ledger in which all is done; keeps the keys that it was asked for."""

    def __init__(self, store: Store, asked: set[tuple[str, str]]) -> None:
        super().__init__(store)
        self.asked = asked

    def done(self, kind: str, key: str) -> dict[str, Any]:
        self.asked.add((kind, key))
        return RECORDS[kind]


class Job(StudioJob):
    """The job with its own actors, here in this process: they look for their units, and no model is opened."""

    def stream(self, rows: Iterable[pa.Table], actor: Any, stage: str) -> Iterator[dict[str, Any]]:
        actor.ledger = Done(self.store, self.asked)
        actor.similarity = Similarity.load()
        actor.tracker = Runs()
        for table in rows:
            for index in range(table.num_rows):
                yield from actor(table.slice(index, 1)).to_pylist()

    def pack(self, people: Iterable[dict[str, Any]], actor: Any) -> Iterator[dict[str, Any]]:
        actor.ledger = Done(self.store, self.asked)
        actor.tracker = Runs()
        for row in people:
            yield {**actor.done(actor.needed(row)), "identity_id": row["identity_id"]}

    asked: set[tuple[str, str]]


def keys(settings: StudioSettings) -> set[tuple[str, str]]:
    """(unit, key) of all units of a job with these settings."""
    store = Store(settings.out)
    store.write_bytes("crop.png", png_bytes(np.zeros((8, 8, 3), np.uint8)))
    store.write_bytes("mask.png", png_bytes(np.zeros((8, 8), np.uint8)))
    factors = {"mid_block.to_q": (torch.ones(1, 2), torch.ones(2, 1))}
    header = metadata_of(FaceLoraSettings(), base_sha256="", trigger="a woman", photos=1, seed=0, slots=4)
    store.write_bytes("lora", lora_bytes(diffusers_weights(factors), header))
    job = Job(settings, ordered(settings), store, None, Progress(STAGES))  # type: ignore[arg-type]
    job.asked = set()
    job.perceive()
    job.train()
    job.portray()
    return job.asked


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two places of the same albums; orders and styles that are the same as without them, and others."""
    monkeypatch.chdir(tmp_path)
    for albums in ("albums", "moved/albums"):
        photo = Path(albums, "anna", "a.jpg")
        photo.parent.mkdir(parents=True)
        photo.write_bytes(b"a photo")
    for file, count, people in (("same.yaml", 4, 1), ("more.yaml", 5, 1), ("people.yaml", 4, 2)):
        Path(file).write_text(f"albums: [{{album_id: anna, styles: {{studio: {count}}}, people: {people}}}]")
    Path("common.safetensors").write_bytes(b"a face-LoRA")
    look = load_style("studio").model_dump(exclude={"name"})
    for folder, changes in (("same", {}), ("reworded", {"prompt": "by candlelight"})):
        Path(folder).mkdir()
        Path(folder, "studio.json").write_text(json.dumps(look | changes))


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(("name", "value", "redone"), TABLE)
def test_a_changed_setting_redoes_exactly_what_depends_on_it(
    name: str, value: Any, redone: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PERCEPTION_CARDS, "modelscope", ("face-quality",))  # as it will be
    before = {"albums": "albums", "out": "out", "face_lora": {"slots": 4}}
    section, _, field = name.rpartition(".")
    change = {section: {**before.get(section, {}), field: value}} if section else {field: value}
    settings, changed = (StudioSettings.load(None, values) for values in (before, before | change))
    assert settings != changed
    known = keys(settings)
    assert {kind for kind, _ in known} == ALBUM | IDENTITY | ORDER
    assert {kind for kind, _ in known - keys(changed)} == redone


@pytest.mark.usefixtures("places")
def test_more_people_add_their_units_and_redo_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    def keys_for(people: int) -> dict[str, set[str]]:
        others = [
            {**RECORDS["album"], **own, "references": [{**REFERENCE, **own}]}
            for own in ({"identity_id": identity_name("anna", person)} for person in range(1, people))
        ]
        monkeypatch.setitem(RECORDS, "album", {**RECORDS["album"], "others": others})
        Path("orders.yaml").write_text(f"albums: [{{album_id: anna, people: {people}}}]")
        settings = StudioSettings.load(
            None, {"albums": "albums", "out": "out", "face_lora": {"slots": 4}, "orders": "orders.yaml"}
        )
        found = keys(settings)
        return {kind: {key for which, key in found if which == kind} for kind in ("album", "identity", "order")}

    one, two, three = (keys_for(people) for people in (1, 2, 3))
    assert len(one["album"] | two["album"] | three["album"]) == 3
    for kind in ("identity", "order"):
        assert one[kind] < two[kind] < three[kind]
        assert [len(found[kind]) for found in (one, two, three)] == [1, 2, 3]


def fields(model: type[pydantic.BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting by its full name."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, pydantic.BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_setting_has_an_entry() -> None:
    assert {name for name, _, _ in TABLE} == set(fields(StudioSettings))
