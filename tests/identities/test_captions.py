import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studiolo.identities.captions import (
    TRIGGERS,
    UNKNOWN_TRIGGER,
    age_group,
    belongs_to_identity,
    caption,
    common_tags,
    keep_tags,
    trigger_phrase,
)

PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)
ROWS = st.lists(
    st.fixed_dictionaries({"p_female": st.floats(0, 1) | st.none(), "age_years": st.floats(0, 100) | st.none()}),
    max_size=8,
)


def row(p_female: float | None, age_years: float | None) -> dict[str, Any]:
    return {"p_female": p_female, "age_years": age_years, "glasses": "unknown"}


@pytest.mark.parametrize(
    ("p_female", "age_years", "expected"),
    [
        (0.1, 8, "a boy, children"),
        (0.9, 19.9, "a girl, children"),
        (0.1, 20, "a handsome man"),
        (0.9, 30, "a beautiful woman"),
        (0.1, 40, "a handsome man"),
        (0.1, 40.1, "a mature man"),
        (0.9, 70, "a mature woman"),
    ],
)
def test_table_1(p_female: float, age_years: float, expected: str) -> None:
    assert trigger_phrase([row(p_female, age_years)]) == expected


def test_scores_are_summed_over_the_album_and_not_voted() -> None:
    # Two photos lean to one side by little, one to the other by much: the sum decides.
    assert trigger_phrase([row(0.45, 30), row(0.45, 30), row(0.99, 30)]) == "a beautiful woman"


def test_one_odd_age_does_not_decide() -> None:
    assert trigger_phrase([row(0.1, 30), row(0.1, 32), row(0.1, 90)]) == "a handsome man"
    assert trigger_phrase([row(0.1, 19), row(0.1, 35)]) == "a handsome man"  # a tie: the mean is 27
    assert trigger_phrase([row(0.1, 10), row(0.1, 24)]) == "a boy, children"  # a tie: the mean is 17


@given(rows=ROWS, data=st.data())
@PROPERTY
def test_the_trigger_is_of_the_table_and_does_not_depend_on_the_order(rows: list[Any], data: st.DataObject) -> None:
    trigger = trigger_phrase(rows)
    assert trigger == trigger_phrase(data.draw(st.permutations(rows)))
    known = all(any(r[name] is not None for r in rows) for name in ("p_female", "age_years"))
    assert (trigger in TRIGGERS.values()) == known


def test_unknown_is_never_guessed() -> None:
    for rows in ([], [row(None, 30)], [row(0.9, None)], [row(math.nan, 30)]):
        assert trigger_phrase(rows) == UNKNOWN_TRIGGER
    assert trigger_phrase([row(None, 30), row(0.9, None)]) == "a beautiful woman"


@pytest.mark.parametrize("age", [0, 19.999, 20, 40, 40.001, 120])
def test_age_groups_rise_with_age(age: float) -> None:
    assert age_group(age) == ("child" if age < 20 else "adult" if age <= 40 else "mature")


@pytest.mark.parametrize(
    "tag",
    [
        "1girl",
        "1boy",
        "ear",
        "ears",
        "head",
        "face",
        "lips",
        "mouth",
        "3d",
        "asian",
        "teeth",
        "old_man",
        "beautiful_woman",
        "multiple_male",
        "sole_female",
        "red_lips",
        "nose",
        "long_nose",
        "body",
        "full_body",
        "eyes",
        "blue_eyes",
        "closed_eyes",
        "eyebrows",
        "eyelashes",
        "eyeglasses",
    ],
)
@pytest.mark.parametrize("form", [str, str.upper, lambda tag: f" {tag.replace('_', '  ')} "])
def test_tags_of_the_identity_are_removed(tag: str, form: Any) -> None:
    assert belongs_to_identity(form(tag))
    assert keep_tags([form(tag)]) == []


@pytest.mark.parametrize(
    "tag",
    [
        "smile",
        "open_mouth",
        "jewelry",
        "earrings",
        "necklace",
        "hat",
        "eyewear",
        "tinted_eyewear",
        "black_hair",
        "grey_background",
        "white_shirt",
        "headband",
        "surface",
        "lipstick",
        "woman",
        "man",
        "female",
        "human",
        "portrait",
        "looking_at_viewer",
    ],
)
def test_tags_of_the_image_stay(tag: str) -> None:
    assert not belongs_to_identity(tag)
    assert keep_tags([tag]) == [tag.replace("_", " ")]


def test_a_caption_is_the_trigger_and_the_kept_tags_once_in_order() -> None:
    tags = ["black hair", "closed eyes", "Smile", "black_hair", "", "grey background"]
    assert caption("a handsome man", tags) == "a handsome man, black hair, smile, grey background"
    assert caption("a girl, children", []) == "a girl, children"


def test_common_tags_are_in_more_than_half_the_photos() -> None:
    photos = [
        ["black hair", "smile", "hat"],
        ["Black_hair", "open mouth", "hat"],
        ["smile", "hat"],
        ["black hair", "smile"],
    ]
    assert common_tags(photos) == ["black hair", "smile"]
    assert common_tags(photos[:2]) == ["black hair"]  # one of two is not more than half
    assert common_tags([["face", "mouth", "fair skin", "skin", "closed eyes"]]) == ["fair skin", "skin"]
    assert common_tags([["smile", "smile"], [], []]) == []
    assert common_tags([]) == []


@given(photos=st.lists(st.lists(st.sampled_from(["hair", "smile", "skin", "face", "hat", "blue eyes"])), max_size=6))
@PROPERTY
def test_common_tags_do_not_depend_on_order_and_are_never_of_the_identity(photos: list[list[str]]) -> None:
    tags = common_tags(photos)
    assert tags == common_tags([row[::-1] for row in photos[::-1]])
    assert not any(belongs_to_identity(tag) for tag in tags)
    assert all(sum(tag in row for row in photos) > len(photos) / 2 for tag in tags)
