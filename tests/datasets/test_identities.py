import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from studiolo.datasets import identities as module
from studiolo.datasets.identities import NOBODY, Identities, identify, split_of, splits, wrong_labels
from studiolo.datasets.records import Split

WITHIN = 0.35


def faces_of(people: list[int], spread: float = 0.02, seed: int = 0) -> NDArray[np.float32]:
    """A face [128] for each number of a person, those of one near each other."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(people) + 1, 128))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    noise = rng.normal(size=(len(people), 128)) * spread / np.sqrt(128)
    return (centres[people] + noise).astype(np.float32)


def identified(faces: NDArray[np.float32], labels: list[int], seen: list[bool] | None = None) -> Identities:
    names = [f"source/{label}" for label in range(max(labels, default=-1) + 1)]
    rows = [f"{index:03d}" for index in range(len(faces))]
    who = np.ones(len(faces), np.bool_) if seen is None else np.array(seen)
    return identify(faces, np.array(labels, np.int32), who, names, rows, WITHIN)


def names_of(found: Identities) -> list[str | None]:
    return [found.names[who] if who != NOBODY else None for who in found.of_row]


def test_faces_without_a_name_are_called_by_the_first_seen() -> None:
    found = identified(faces_of([0, 1, 0, 2, 1]), [-1] * 5)
    assert names_of(found) == ["unknown/000", "unknown/001", "unknown/000", "unknown/003", "unknown/001"]
    assert not any(found.known)


def test_rows_without_a_face_are_nobody() -> None:
    assert names_of(identified(faces_of([0, 0]), [-1, -1], [False, True])) == [None, "unknown/001"]


def test_nobody_unnamed_takes_a_name_and_both_are_in_one_circle() -> None:
    found = identified(faces_of([0, 0, 0, 1]), [0, -1, 0, -1])
    assert names_of(found) == ["source/0", "unknown/001", "source/0", "unknown/003"]
    assert found.circles[found.of_row[0]] == found.circles[found.of_row[1]] != found.circles[found.of_row[3]]


def test_a_face_between_two_groups_makes_them_one_called_as_the_earlier() -> None:
    line = np.zeros((4, 128), np.float32)
    line[:, 0] = [0.0, 0.5, 5.0, 0.25]
    found = identified(line, [-1] * 4)
    assert names_of(found) == ["unknown/000", "unknown/000", "unknown/002", "unknown/000"]
    assert found.merged == 1


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(5, 40))
def test_blocks_do_not_show(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    faces = faces_of(rng.integers(0, 6, count).tolist(), spread=0.4, seed=seed)
    labels = [int(label) if rng.random() < 0.3 else -1 for label in rng.integers(0, 3, count)]
    whole = identified(faces, labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", 4)
        patch.setattr(module, "_BEFORE", 3)
        parts = identified(faces, labels)
    assert names_of(whole) == names_of(parts)
    assert whole.circles == parts.circles


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_faces_that_are_near_are_in_one_circle_and_only_such(seed: int) -> None:
    rng = np.random.default_rng(seed)
    faces = faces_of(rng.integers(0, 8, 30).tolist(), spread=0.45, seed=seed)
    labels = [int(label) if rng.random() < 0.3 else -1 for label in rng.integers(0, 3, 30)]
    found = identified(faces, labels)
    circle = np.array([found.circles[who] for who in found.of_row])
    linked = np.linalg.norm(faces[:, None] - faces[None], axis=2) < WITHIN
    linked |= (np.array(labels)[:, None] == np.array(labels)[None]) & (np.array(labels) >= 0)
    reached = np.linalg.matrix_power(linked.astype(np.int64), 5) > 0
    while ((wider := reached @ reached) != reached).any():
        reached = wider
    assert ((circle[:, None] == circle[None]) == reached).all()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_what_comes_later_renames_nobody_but_members_of_groups_that_merge(seed: int) -> None:
    rng = np.random.default_rng(seed)
    faces = faces_of(rng.integers(0, 5, 30).tolist(), spread=0.5, seed=seed)
    before, after = identified(faces[:20], [-1] * 20), identified(faces, [-1] * 30)
    renamed = {
        (one, other) for one, other in zip(names_of(before), names_of(after), strict=False) if one != other and one
    }
    assert len({one for one, _ in renamed}) <= after.merged - before.merged
    assert all(str(other) < str(one) for one, other in renamed)


def test_the_middle_face_finds_the_stranger() -> None:
    faces = faces_of([0, 0, 1, 0, 2, 3])
    labels = np.array([4, 4, 4, 4, 5, 5], np.int32)
    far = wrong_labels(faces, labels, np.ones(6, np.bool_), above=0.6)
    assert np.flatnonzero(far).tolist() == [2]  # of two that differ nobody knows which is wrong
    assert far[2] == pytest.approx(np.linalg.norm(faces[2] - faces[0]), abs=0.05)
    assert not wrong_labels(faces, labels, np.array([1, 1, 0, 1, 1, 1], np.bool_), above=0.6).any()


def test_shares_of_the_splits_are_about_those_wanted() -> None:
    found = [split_of(f"unknown/{number}", validation=0.1, test=0.2) for number in range(4000)]
    assert abs(found.count(Split.TEST) / 4000 - 0.2) < 0.02
    assert abs(found.count(Split.VALIDATION) / 4000 - 0.1) < 0.02
    assert {split_of("anna", 0, 0)} == {Split.TRAIN}


def test_who_touches_is_in_one_split_and_in_train_where_they_disagree() -> None:
    def named(split: Split) -> str:
        return next(name for name in map(str, range(999)) if split_of(name, 0.3, 0.3) is split)

    names = [named(Split.TEST), named(Split.VALIDATION), named(Split.TEST)]
    found, across = splits(Identities(np.array([0, 1, 2]), names, [True] * 3, [0, 0, 2], 0), 0.3, 0.3)
    assert (found, across) == ([Split.TRAIN, Split.TRAIN, Split.TEST], 1)
    found, across = splits(Identities(np.array([0, 1]), names[::2], [True] * 2, [0, 0], 0), 0.3, 0.3)
    assert (found, across) == ([Split.TEST, Split.TEST], 0)
