"""Candidates through a finisher: what it reads and keeps of people, and when it is not well."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from actors.finisher import Finish, PortraitFinisher, Sitter
from actors.perceiver import png_bytes
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
    forgetting.join(20)
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
