"""Candidates through a finisher: what it reads and keeps of people, and when it is not well."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.finisher import Finish, PortraitFinisher, Sitter, TemplateFile
from actors.perceiver import png_bytes
from studiolo.albums.decode import decode
from studiolo.errors import StoreError, UnacceptableError, WeightsError
from studiolo.perception.suite import open_suite
from studiolo.settings import GenerationSettings
from studiolo.storage.store import Store
from tests.actors.house import until
from tests.portraits.test_fusion import crop_of

pytestmark = [pytest.mark.usefixtures("weights"), pytest.mark.timeout(60)]

GREY = np.full((64, 64, 3), 128, np.uint8)
PLAIN = Finish("", False, 1, 0.8)


@pytest.fixture
def finisher(tmp_path: Path) -> PortraitFinisher:
    made = PortraitFinisher(Store(tmp_path / "store"), "embedded", GenerationSettings(upscale=1))
    made.open()
    return made


def sitter(finisher: PortraitFinisher, people: Path, score: float = 0.9) -> Sitter:
    """Somebody with one reference in the store."""
    crop_rgb_u8 = crop_of(people / "P001" / "portrait.jpg", open_suite("embedded"), 0.35, 512)[0]
    finisher.store.write_bytes("anna.png", png_bytes(crop_rgb_u8))
    return Sitter("anna", ("anna.png",), (score,), np.zeros((1, 128), np.float32))


def test_a_person_of_the_base_has_no_references_to_be_like(finisher: PortraitFinisher) -> None:
    finished = finisher.finish(GREY, Sitter("anonymous"), PLAIN)
    assert (finished.score.faces, finished.score.similarity) == (0, 0.0)


def test_references_are_read_once_for_each_version_of_them(finisher: PortraitFinisher, people: Path) -> None:
    anna = sitter(finisher, people)
    finisher.finish(GREY, anna, PLAIN)
    finisher.store.remove("anna.png")
    finisher.finish(GREY, anna, PLAIN)
    with pytest.raises(StoreError):
        finisher.finish(GREY, Sitter("anna", anna.crop_paths, (0.8,), anna.embeddings_ND), PLAIN)


def test_a_face_is_fused_as_far_as_is_asked_for(finisher: PortraitFinisher, people: Path) -> None:
    other_rgb_u8 = crop_of(people / "P002" / "portrait.jpg", open_suite("embedded"), 0.35, 512)[0]
    anna, shares = sitter(finisher, people), (0.0, 0.4, 0.8, 0.0)
    made = [finisher.finish(other_rgb_u8, anna, Finish("", False, 1, share)).rgb_u8 for share in shares]
    assert np.array_equal(made[0], other_rgb_u8)
    assert np.array_equal(made[3], other_rgb_u8)
    changed = [np.abs(one.astype(int) - other_rgb_u8).mean() for one in made[:3]]
    assert 0 == changed[0] < changed[1] < changed[2]


def test_of_a_person_who_is_forgotten_nothing_is_kept_or_taken(finisher: PortraitFinisher, people: Path) -> None:
    anna = sitter(finisher, people)
    finisher.finish(GREY, anna, PLAIN)
    assert finisher.forget("anna") == {"templates": 1}
    assert finisher.forget("anna") == {"templates": 0}
    with pytest.raises(UnacceptableError, match="not there any more"):
        finisher.finish(GREY, anna, PLAIN)
    finisher.finish(GREY, Sitter("ben"), PLAIN)


def test_who_is_forgotten_meanwhile_gets_no_portrait(
    finisher: PortraitFinisher, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna, read = sitter(finisher, people), finisher.store.read_bytes
    forgetting = threading.Thread(target=finisher.forget, args=("anna",))

    def slow(path: str) -> bytes:
        forgetting.start()
        until(lambda: "anna" in finisher._forgotten)
        return read(path)

    monkeypatch.setattr(finisher.store, "read_bytes", slow)
    with pytest.raises(UnacceptableError, match="not there any more"):
        finisher.finish(GREY, anna, PLAIN)
    forgetting.join(60)
    assert finisher.forget("anna") == {"templates": 0}


def test_one_that_hangs_is_not_well(finisher: PortraitFinisher, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr("actors.finisher._STALL_S", 0.1)
    monkeypatch.setattr(finisher, "_finish", lambda *_: go_on.wait(30))
    hanging = threading.Thread(target=finisher.finish, args=(GREY, Sitter("anonymous"), PLAIN))
    hanging.start()
    until(lambda: finisher._begun)
    time.sleep(0.2)
    with pytest.raises(WeightsError, match="start it again"):
        finisher.check()
    go_on.set()
    hanging.join(30)
    finisher.check()


@pytest.fixture
def template(finisher: PortraitFinisher, people: Path) -> TemplateFile:
    """A template in the store in which anna is to be drawn."""
    finisher.store.write_bytes("template", (people / "P002" / "portrait.jpg").read_bytes())
    return TemplateFile("anna", "template", 128, 0.66, None, 0.8)


def test_a_template_is_opened_once_by_a_process_that_is_gone_then(
    finisher: PortraitFinisher, people: Path, template: TemplateFile
) -> None:
    face = finisher.look(template)
    assert face.crop_rgb_u8.shape == (128, 128, 3)
    assert finisher._decode.pid is None
    finisher.store.remove("template")
    anna, set_in = sitter(finisher, people), replace(PLAIN, template=template)
    drawn = np.full((128, 128, 3), 128, np.uint8)
    finished = finisher.finish(drawn, anna, set_in)
    rgb_u8 = decode((people / "P002" / "portrait.jpg").read_bytes(), finisher.perception)
    changed = (finished.rgb_u8 != rgb_u8).any(axis=2)
    assert 0 < changed.mean() < 0.5
    with pytest.raises(StoreError):
        finisher.look(replace(template, face_xy=(0.5, 0.5)))


def test_of_a_person_who_is_forgotten_no_template_is_kept(finisher: PortraitFinisher, template: TemplateFile) -> None:
    finisher.look(template)
    assert finisher.forget("ben") == {"templates": 0}
    assert finisher.forget("anna") == {"templates": 1}
    with pytest.raises(UnacceptableError, match="not there any more"):
        finisher.look(template)
    assert not finisher._opened


def test_no_more_templates_are_kept_than_a_few(
    finisher: PortraitFinisher, template: TemplateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.finisher._TEMPLATES", 1)
    other = replace(template, identity_id="ben")
    finisher.look(template)
    finisher.look(other)
    assert [*finisher._opened] == [other]


def test_a_sketch_has_the_landmarks_of_its_face(finisher: PortraitFinisher, people: Path) -> None:
    anna, outline = sitter(finisher, people), replace(PLAIN, outline=True)
    assert finisher.finish(GREY, anna, outline).outline_px is None
    drawn = crop_of(people / "P002" / "portrait.jpg", open_suite("embedded"), 0.6, 128)[0]
    outline_px = finisher.finish(drawn, anna, outline).outline_px
    assert outline_px is not None
    assert outline_px.shape == (68, 2)
    assert 0 < outline_px.min() < outline_px.max() < 128
