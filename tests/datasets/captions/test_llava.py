from pathlib import Path

import numpy as np
import pytest

from studiolo.datasets.captions.descriptions import captions_of, clean
from studiolo.datasets.captions.llava import Llava, load_llava
from studiolo.datasets.captions.markers import mark, training_text
from studiolo.datasets.captions.parts import forget_parts, in_parts
from studiolo.datasets.captions.settings import LlavaSettings
from studiolo.datasets.captions.tiny_llava import tiny_llava
from studiolo.datasets.records import PARTS, WHOLE
from studiolo.errors import WeightsError
from studiolo.storage.store import Store
from studiolo.weights.cards import load_card
from tests.datasets.drawn import annotation, drawn_picture, png

DESCRIPTION = (
    "The woman wears her hair short, which suits her. Her nose is small and fits her face well. Her eyes are wide-set "
    "and dark! The lips are thin; her chin is round. Her ears are hidden by the hair. Altogether she looks friendly."
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA as a hub has it."""
    place = tmp_path_factory.mktemp("llava")
    model, processor = tiny_llava()
    model.save_pretrained(place)
    processor.save_pretrained(place)
    return place


def opened(folder: Path, batch_size: int = 2) -> Llava:
    captioner = Llava(LlavaSettings(batch_size=batch_size, max_new_tokens=6, side_px=64))
    captioner.use(*load_llava(folder))
    return captioner


def pictures(count: int) -> list[dict]:
    """Rows with pictures that differ."""
    rng = np.random.default_rng(5)
    drawn = drawn_picture("brown", "grey", "blue")
    noisy = [np.clip(drawn + rng.normal(0, 90, drawn.shape), 0, 255).astype(np.uint8) for _ in range(count)]
    return [annotation(number, image={"bytes": png(one), "path": None}) for number, one in enumerate(noisy)]


def test_a_model_from_a_folder_writes_the_same_whatever_the_neighbours(folder: Path):
    rows, captioner = pictures(3), opened(folder)
    told = captioner(rows)
    assert len(told) == 3
    assert all(captions[0]["part"] == WHOLE for captions in told if captions)
    assert any(told)
    assert captioner(rows[:1]) == told[:1]  # alone, in a batch that is filled up
    assert captioner([rows[2], rows[0]]) == [told[2], told[0]]
    captioner.close()


def test_another_batch_is_another_version_and_a_folder_without_a_model_says_so(tmp_path: Path):
    assert Llava(LlavaSettings(batch_size=2)).id != Llava(LlavaSettings(batch_size=4)).id
    card = load_card(LlavaSettings().card)
    assert card.commercial_note
    module, _, name = str(card.build).partition(":")
    assert (module, name) == (load_llava.__module__, load_llava.__name__)
    with pytest.raises(WeightsError, match="pull its card again"):
        load_llava(tmp_path)


def test_an_interrupted_captioner_goes_on_behind_its_last_part(folder: Path, tmp_path: Path):
    class Counting:
        def __init__(self, inner: Llava, dies_at: int) -> None:
            self.id, self._inner, self._dies_at, self.asked = inner.id, inner, dies_at, 0
            self.rows_per_part, self.usage = 2, inner.usage

        def __call__(self, rows):
            self.asked += 1
            if self.asked == self._dies_at:
                raise KeyboardInterrupt
            return self._inner(rows)

    rows, store, captioner = pictures(5), Store(tmp_path), opened(folder)
    undisturbed = captioner(rows)
    with pytest.raises(KeyboardInterrupt):
        in_parts(Counting(captioner, dies_at=2), rows, store, "captions/parts")
    second = Counting(captioner, dies_at=99)
    assert in_parts(second, rows, store, "captions/parts") == undisturbed
    assert second.asked == 2
    other = Counting(captioner, dies_at=99)
    other.id = "another@1"
    in_parts(other, rows, store, "captions/parts")
    assert other.asked == 3
    forget_parts(store, "captions/parts")
    assert store.list("captions") == []


def test_a_description_is_divided_among_the_parts_without_loss():
    captions = captions_of("A young woman with short hair.", DESCRIPTION)
    by_part = {caption["part"]: caption["text"] for caption in captions}
    assert list(by_part) == [WHOLE, "face", "eyes", "nose", "mouth", "hair"]
    assert by_part["nose"] == "Her nose is small and fits her face well."
    assert by_part["mouth"] == "The lips are thin; her chin is round."
    assert by_part["face"] == "Her ears are hidden by the hair. Altogether she looks friendly."
    details = [text for part, text in by_part.items() if part != WHOLE]
    assert sorted(" ".join(details).split()) == sorted(DESCRIPTION.split())
    marked = training_text(by_part[WHOLE], details)
    assert marked.regions == ("ears", "eyes", "nose", "face")
    assert list(by_part)[1:] == [part for part in PARTS if part in by_part]


def test_an_answer_becomes_one_clean_line():
    assert clean("  She\n\nhas\ta <facial>\x00 nose.\u2028 ") == "She has a facial nose."
    mark(clean("<facial> <facial>"))
    assert captions_of(" \n", "Her nose is long.") == []
    assert captions_of("A man.", "") == [{"part": WHOLE, "text": "A man.", "evidence": []}]
    (_, only) = captions_of("A man.", "Nothing much.")
    assert only["part"] == "face"
