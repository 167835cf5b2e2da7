import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studiolo.datasets.captions.markers import MARKER, REGIONS, Marked, mark, regions_named, training_text, unmark

WORDS = ("face", "faces", "ear", "Ears", "eye", "EYES", "nose", "Noses", "mouth", "mouths")
OTHER = ("surface", "earring", "eyebrow", "eye-catching", "nosey", "large-mouthed", "her", "eyes2", "_nose", "faceted")


def test_a_description_is_marked_word_by_word():
    text = "She has a small nose that fits her face. Her eyes are wide-set; a thin mouth. Her ears are hidden."
    marked = mark(text)
    assert marked.regions == ("nose", "face", "eyes", "mouth", "ears")
    assert marked.text == (
        "She has a small <facial> that fits her <facial>. Her <facial> are wide-set; a thin <facial>. "
        "Her <facial> are hidden."
    )


@pytest.mark.parametrize("word", OTHER)
def test_only_whole_words_are_parts_of_the_face(word: str):
    assert mark(f"a {word}, there").words == ()


@pytest.mark.parametrize(
    ("text", "words"), [("'eyes'", ("eyes",)), ("the nose's tip", ("nose",)), ("(Mouth)", ("Mouth",))]
)
def test_punctuation_does_not_hide_a_word(text: str, words: tuple[str, ...]):
    assert mark(text).words == words


@settings(deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*WORDS, *OTHER, ".", "Zoë", "\n", "<", ">"])))
def test_marking_loses_nothing_and_keeps_the_order(pieces: list[str]):
    text = " ".join(pieces)
    marked = mark(text)
    assert unmark(marked) == text
    assert marked.text.count(MARKER) == len(marked.words) == len(marked.regions)
    assert marked.words == tuple(piece for piece in pieces if piece in WORDS)
    assert [word.lower().rstrip("s") for word in marked.words] == [region.rstrip("s") for region in marked.regions]
    assert regions_named(text) == tuple(dict.fromkeys(marked.regions))
    assert regions_named(marked.text) == ()


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.text())
def test_any_text_comes_back(text: str):
    assert unmark(mark(text)) == text


def test_a_text_that_holds_the_marker_is_refused():
    for act in (lambda: mark(f"her {MARKER}"), lambda: training_text(f"a {MARKER}", ["The nose is long."])):
        with pytest.raises(ValueError, match=MARKER):
            act()
    with pytest.raises(ValueError, match="1 markers for 0 words"):
        unmark(Marked(MARKER, (), ()))


def test_a_training_text_marks_the_parts_and_leaves_the_whole():
    marked = training_text("A woman with a long face.", ["Her eyes are open.", "The mouth is closed."])
    assert marked.text == "A woman with a long face. Her <facial> are open. The <facial> is closed."
    assert marked.regions == ("eyes", "mouth")
    assert unmark(marked).startswith("A woman with a long face. Her eyes")
    assert set(REGIONS) == set(mark("face ears eyes nose mouth").regions)
