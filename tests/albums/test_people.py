import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studiolo.albums.people import OWNER, FaceRef, group_faces
from studiolo.albums.records import Verdict

PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)


@dataclass(frozen=True)
class Bands:
    """A similarity with plain limits: same below 0.5, different above 0.7."""

    same: float = 0.5
    different: float = 0.7

    def verdict(self, distance: float) -> Verdict:
        if distance < self.same:
            return Verdict.SAME
        return Verdict.DIFFERENT if distance > self.different else Verdict.UNSURE

    def score(self, distance: float) -> float:
        return math.exp(-distance)


BANDS = Bands()


def face(
    photo: str, place: Sequence[float], face_id: int = 0, area: float = 100.0, good: bool = True, usable: bool = True
) -> FaceRef:
    """A face whose embedding is a point, so that distances can be read off."""
    return FaceRef(photo, face_id, tuple(float(x) for x in place), area, good, good and usable)


@st.composite
def albums(draw: st.DrawFn) -> list[FaceRef]:
    """Faces near a few centres, one to three in a photo, some of them bad."""
    people = draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    spread = draw(st.sampled_from([0.05, 0.15, 0.3]))
    centres = random.normal(0, 0.5, (people, 8))
    faces = []
    for photo in range(draw(st.integers(1, 9))):
        for face_id in range(draw(st.integers(1, 3))):
            place = centres[random.integers(people)] + random.normal(0, spread, 8)
            area = float(random.integers(1, 4))
            good, usable = bool(random.random() > 0.3), bool(random.random() > 0.3)
            faces.append(face(f"p{photo}", place, face_id, area, good, usable))
    return faces


@given(faces=albums(), people=st.integers(1, 4), data=st.data())
@PROPERTY
def test_the_order_of_the_faces_does_not_matter(faces: list[FaceRef], people: int, data: st.DataObject) -> None:
    assert group_faces(data.draw(st.permutations(faces)), BANDS, people) == group_faces(faces, BANDS, people)


@given(faces=albums(), references=st.integers(1, 3))
@PROPERTY
def test_who_is_which_person_does_not_depend_on_how_many_are_wanted(faces: list[FaceRef], references: int) -> None:
    found = [group_faces(faces, BANDS, people, references) for people in range(1, 6)]
    for people, (fewer, more) in enumerate(pairwise(found), start=1):
        assert {name: one for name, one in fewer.items() if one.person < people} == {
            name: one for name, one in more.items() if one.person < people
        }


@given(faces=albums(), people=st.integers(2, 5), references=st.integers(1, 3))
@PROPERTY
def test_every_person_but_the_owner_can_be_learned(faces: list[FaceRef], people: int, references: int) -> None:
    members = group_faces(faces, BANDS, people, references)
    assert set(members) == {one.name for one in faces}
    wanted = sorted({one.person for one in members.values() if one.person < people})
    assert wanted == list(range(len(wanted)))
    for person in wanted[1:]:
        assert sum(one.usable for one in faces if members[one.name].person == person) >= references
    for photo in {one.photo_id for one in faces}:
        shown = [member.person for (place, _), member in members.items() if place == photo]
        assert len(shown) == len(set(shown))
    for member in members.values():
        assert (member.verdict == Verdict.DIFFERENT) == (member.person >= people)


@given(faces=albums())
@PROPERTY
def test_every_face_has_a_person_and_nobody_is_twice_in_a_photo(faces: list[FaceRef]) -> None:
    members = group_faces(faces, BANDS)
    assert set(members) == {one.name for one in faces}
    for photo in {one.photo_id for one in faces}:
        shown = [member.person for (place, _), member in members.items() if place == photo]
        assert len(shown) == len(set(shown))
    assert {member.person for member in members.values()} == set(range(max(m.person for m in members.values()) + 1))
    for member in members.values():
        assert (member.verdict == Verdict.DIFFERENT) == (member.person != OWNER)


@given(faces=albums())
@PROPERTY
def test_ties_are_decided_by_content_not_by_place(faces: list[FaceRef]) -> None:
    level = [replace(one, embedding=(0.0,) * 8, area_px2=1.0) for one in faces]
    assert group_faces(level, BANDS) == group_faces(level[::-1], BANDS)


def test_an_album_without_faces_has_nobody() -> None:
    assert group_faces([], BANDS) == {}


def test_the_owner_is_the_largest_group() -> None:
    faces = [face(f"a{i}", [i / 100, 0]) for i in range(3)] + [face(f"b{i}", [3, i / 100]) for i in range(2)]
    members = group_faces(faces, BANDS)
    assert [members[one.name].person for one in faces] == [0, 0, 0, 1, 1]
    assert [members[one.name].verdict for one in faces] == [Verdict.SAME] * 3 + [Verdict.DIFFERENT] * 2


def test_a_tie_goes_to_the_larger_faces() -> None:
    small, large = (
        [face(f"a{i}", [0, 0], area=10) for i in range(2)],
        [face(f"b{i}", [3, 0], area=11) for i in range(2)],
    )
    members = group_faces(small + large, BANDS)
    assert {members[one.name].person for one in large} == {OWNER}
    assert {members[one.name].person for one in small} == {1}


def test_bad_faces_do_not_elect_the_owner() -> None:
    blurred = [face(f"a{i}", [0, 0], good=False) for i in range(4)]
    sharp = [face(f"b{i}", [3, 0]) for i in range(2)]
    members = group_faces(blurred + sharp, BANDS)
    assert {members[one.name].person for one in sharp} == {OWNER}
    bad_only = group_faces([*blurred, face("c", [3, 0], good=False)], BANDS)
    assert bad_only["a0", 0].person == OWNER


def test_a_face_between_same_and_different_is_kept_and_flagged() -> None:
    faces = [face("a", [0.0]), face("b", [0.1]), face("c", [0.65]), face("d", [2.0])]
    members = group_faces(faces, BANDS)
    assert (members["c", 0].person, members["c", 0].verdict) == (OWNER, Verdict.UNSURE)
    assert (members["d", 0].person, members["d", 0].verdict) == (1, Verdict.DIFFERENT)


def test_twins_in_one_photo_are_two_people() -> None:
    faces = [face("a", [0.0]), face("b", [0.02]), face("c", [0.01], face_id=0), face("c", [0.3], face_id=1)]
    members = group_faces(faces, BANDS)
    assert members["c", 0].person == OWNER
    assert (members["c", 1].person, members["c", 1].verdict) == (1, Verdict.DIFFERENT)


def test_a_chain_of_likenesses_does_not_join_two_people() -> None:
    chain = [face(f"p{i}", [0.4 * i]) for i in range(6)]
    persons = {member.person for member in group_faces(chain, BANDS).values()}
    assert len(persons) > 1


def family(**more: bool) -> list[FaceRef]:
    """Three of one, two of a second, who is `more`, and two of a third, whose faces are smaller."""
    people = [("a", 0.0, 3), ("b", 3.0, 2), ("c", 6.0, 2)]
    return [
        face(f"{name}{i}", [place, i / 100], area=100 - 10 * number, **(more if name == "b" else {}))
        for number, (name, place, count) in enumerate(people)
        for i in range(count)
    ]


def persons(faces: list[FaceRef], people: int, references: int = 1) -> list[int]:
    members = group_faces(faces, BANDS, people, references)
    return [members[one.name].person for one in faces]


def test_the_next_people_come_by_the_owners_rank() -> None:
    assert persons(family(), 3) == [0, 0, 0, 1, 1, 2, 2]
    assert persons(family()[::-1], 2) == [2, 2, 1, 1, 0, 0, 0]
    assert persons(family(good=False), 3) == [0, 0, 0, 3, 3, 1, 1]
    members = group_faces(family(), BANDS, 2)
    assert [member.verdict for member in members.values()] == [Verdict.SAME] * 5 + [Verdict.DIFFERENT] * 2


def test_somebody_of_whom_no_photo_can_be_used_is_passed_over() -> None:
    """Good faces that stand beside larger ones: they make a rank, and no reference."""
    assert persons(family(usable=False), 2) == [0, 0, 0, 2, 2, 1, 1]
    assert persons(family(), 3, references=3) == [0, 0, 0, 3, 3, 4, 4]


def test_doubtful_faces_join_a_person_when_they_are_alone() -> None:
    owner = [face(f"a{i}", [0, i / 100]) for i in range(4)]
    second = [face(f"b{i}", [5, i / 100]) for i in range(3)]
    alone, pair = [face("d", [5.6, 0])], [face(f"e{i}", [4.4, i / 100]) for i in range(2)]
    members = group_faces([*owner, *second, *alone, *pair], BANDS, 2)
    assert (members["d", 0].person, members["d", 0].verdict) == (1, Verdict.UNSURE)
    assert {members[one.name].person for one in pair} == {2}
    near_owner = [face(one.photo_id, [one.embedding[0] - 5, 0]) for one in (*alone, *pair)]
    members = group_faces([*owner, *near_owner], BANDS)
    assert (members["d", 0].person, members["d", 0].verdict) == (OWNER, Verdict.UNSURE)
    assert {(members[one.name].person, members[one.name].verdict) for one in pair} == {(1, Verdict.DIFFERENT)}


@pytest.mark.parametrize("count", [1, 400])
def test_small_and_large_albums(count: int) -> None:
    random = np.random.default_rng(0)
    faces = [face(f"p{i:04}", random.normal(0, 0.05, 16) + (i % 2)) for i in range(count)]
    persons = [member.person for member in group_faces(faces, BANDS).values()]
    assert sorted(set(persons)) == ([0] if count == 1 else [0, 1])
