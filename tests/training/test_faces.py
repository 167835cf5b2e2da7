import json

import numpy as np
import pytest
from PIL import Image

from studiolo.errors import SettingsError
from studiolo.training.faces import Face, compose_caption, read_faces, views_of
from studiolo.training.looks import LOOKS

TAGS = ("smile", "looking left", "brown hair", "green background", "blue clothes")


@pytest.fixture
def face() -> Face:
    """Red person in the middle before green."""
    rgb_u8 = np.full((160, 160, 3), (0, 120, 0), np.uint8)
    rgb_u8[:, 50:110] = (180, 20, 20)
    person = np.zeros((160, 160), np.float32)
    person[:, 50:110] = 1
    return Face(rgb_u8, "a handsome man", TAGS, person)


def test_words_and_pictures_agree(face: Face) -> None:
    views = views_of(face, 400, 128, np.random.default_rng(0))
    seen = dict.fromkeys(["backdrop", "", *LOOKS], 0)
    for view in views:
        assert view.rgb_u8.shape == (128, 128, 3)
        look = view.style[-1] if view.style and view.style[-1] in LOOKS else ""
        seen[look] += 1
        seen["backdrop"] += "studio backdrop" in view.style
        if not look:
            left, middle = view.rgb_u8[:, :6].astype(int), view.rgb_u8[:, 62:66].astype(int)
            on_backdrop = "studio backdrop" in view.style
            assert ("green background" in view.tags) != on_backdrop
            assert (left[..., 1].mean() > 2.5 * left[..., (0, 2)].mean()) != on_backdrop
            assert middle[..., 0].mean() > 2 * middle[..., 1].mean()  # the person stays
        elif LOOKS[look].colourless:
            assert not any(tag.endswith((" hair", " clothes")) or tag == "green background" for tag in view.tags)
    assert 70 < seen.pop("backdrop") < 150
    assert seen.pop("") == pytest.approx(400 * (1 - sum(look.share for look in LOOKS.values())), abs=40)
    assert min(seen.values()) > 8


def test_a_flip_swaps_left_and_right(face: Face) -> None:
    first, second = views_of(face, 2, 128, np.random.default_rng(0))
    assert "looking left" in first.tags
    assert "looking right" in second.tags


def test_views_are_reproducible(face: Face) -> None:
    first, second = (views_of(face, 8, 128, np.random.default_rng(3)) for _ in range(2))
    assert all(np.array_equal(a.rgb_u8, b.rgb_u8) and a.style == b.style for a, b in zip(first, second, strict=True))


def test_captions_have_the_grammar_of_prompts(face: Face) -> None:
    view = next(v for v in views_of(face, 50, 128, np.random.default_rng(0)) if "studio backdrop" in v.style)
    count = len(view.tags) + len(view.style)
    everything = compose_caption(view, [True] * len(view.tags), [True] * len(view.style), range(count))
    assert everything == ", ".join(["a handsome man", *view.tags, *view.style])
    nothing = compose_caption(view, [False] * len(view.tags), [False] * len(view.style), range(count))
    assert nothing == "a handsome man"
    turned = compose_caption(view, [True] * len(view.tags), [False] * len(view.style), range(count)[::-1])
    assert turned == ", ".join(["a handsome man", *reversed(view.tags)])


def test_reading(tmp_path) -> None:
    Image.new("L", (160, 160)).save(tmp_path / "a.png")
    row = {"file": "a.png", "trigger": "a girl, children", "tags": ["smile"], "age": 7}
    (tmp_path / "c.jsonl").write_text(json.dumps(row) + "\n")
    (face,) = read_faces(tmp_path, tmp_path / "c.jsonl", lambda rgb_u8: np.ones(rgb_u8.shape[:2], np.float32))
    assert (face.trigger, face.tags, face.rgb_u8.shape) == ("a girl, children", ("smile",), (160, 160, 3))
    assert face.person is not None
    assert face.person.shape == (160, 160)


@pytest.mark.parametrize("text", ["", "{}\n", "x\n", '{"file": "b.png", "trigger": "a", "tags": []}\n'])
def test_bad_captions_are_named(tmp_path, text: str) -> None:
    (tmp_path / "c.jsonl").write_text(text)
    with pytest.raises(SettingsError, match=r"c\.jsonl"):
        read_faces(tmp_path, tmp_path / "c.jsonl")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_captions_that_cannot_be_read_are_named(tmp_path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "c.jsonl").write_bytes(content)
    with pytest.raises(SettingsError, match=r"c\.jsonl"):
        read_faces(tmp_path, tmp_path / "c.jsonl")
