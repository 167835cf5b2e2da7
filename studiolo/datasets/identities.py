"""Who is who: rows that a source names, rows that are the same unnamed person, and in which split each is."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from studiolo.datasets.records import Split
from studiolo.datasets.settings import UNKNOWN
from studiolo.errors import SettingsError

NOBODY = -1
"""In place of an identity: a row without a face, or one whose label is wrong."""

_BLOCK = 2048  # faces compared at once
_BEFORE = 32768  # with so many of those before
_JUDGED = 3  # of fewer faces nobody can say whose is wrong
_MIDDLE_OF = 64  # faces of a label that its middle one is looked for among


class SupportsNames(Protocol):
    """Names by number."""

    def __getitem__(self, index: int, /) -> str:
        """The name of row `index`."""
        ...


@dataclass(frozen=True, eq=False)
class Identities:
    """The identities of all rows."""

    of_row: NDArray[np.int64]
    """[N]: index in the lists below, or `NOBODY`."""
    names: list[str]
    """`SOURCE/LABEL`, or `unknown/ROW_ID` of the first row of its group."""
    known: list[bool]
    """Whether a source names it."""
    circles: list[int]
    """Of each the smallest index of those it touches, directly or through others: they are in one split."""
    merged: int
    """Unnamed groups that have become one with another."""


class _Unions:
    """Sets of numbers that are united; each is called by its smallest."""

    def __init__(self) -> None:
        self.parents: list[int] = []

    def new(self) -> int:
        self.parents.append(len(self.parents))
        return len(self.parents) - 1

    def find(self, one: int) -> int:
        while self.parents[one] != one:
            self.parents[one] = one = self.parents[self.parents[one]]
        return one

    def unite(self, numbers: Iterable[int]) -> int:
        """Make one set of those of `numbers`; its name."""
        roots = sorted({self.find(number) for number in numbers})
        for root in roots[1:]:
            self.parents[root] = roots[0]
        return roots[0]


def wrong_labels(
    faces: NDArray[np.float32], labels: NDArray[np.int32], candidates: NDArray[np.bool_], above: float
) -> NDArray[np.float64]:
    """Distance [N] of each face from the middle one of its label, where it is more than `above`; else 0.

    `faces` [N, 128]; `labels` [N], negative without one. The middle one has the smallest median distance to the others,
    of the first 64. Only `candidates` [N] are looked at, and labels that three of them have.
    """
    found = np.zeros(len(labels))
    indices = np.flatnonzero(candidates & (labels >= 0))
    order = indices[np.argsort(labels[indices], kind="stable")]
    for group in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if len(group) < _JUDGED:
            continue
        vectors = np.asarray(faces[group], np.float64)
        few = vectors[:_MIDDLE_OF]
        between = np.linalg.norm(few[:, None] - few[None], axis=2)
        middle = few[int(np.median(between, axis=1).argmin())]
        distances = np.linalg.norm(vectors - middle, axis=1)
        found[group] = np.where(distances > above, distances, 0.0)
    return found


def identify(
    faces: NDArray[np.float32],
    labels: NDArray[np.int32],
    seen: NDArray[np.bool_],
    label_names: Sequence[str],
    row_names: SupportsNames,
    within: float,
) -> Identities:
    """Identities of the rows that have a face (`seen` [N]), in their order.

    A row with a label is that label's. One without joins the earliest unnamed group that has a leading face nearer than
    `within`, makes one of all those it is near, or leads a new one. Nobody unnamed takes a name. Of any two rows whose
    faces are nearer than `within` the identities are in one circle. `row_names` gives the name of a row by its index,
    for groups that it leads.
    """
    grouping = _Grouping(faces, labels, label_names, row_names, within)
    indices = np.flatnonzero(seen)
    for begin in range(0, len(indices), _BLOCK):
        grouping.add(indices[begin : begin + _BLOCK], indices[:begin])
    return grouping.result()


class _Grouping:
    """The state of `identify`: who the rows so far are, and which of them lead."""

    def __init__(
        self,
        faces: NDArray[np.float32],
        labels: NDArray[np.int32],
        label_names: Sequence[str],
        row_names: SupportsNames,
        within: float,
    ) -> None:
        self.faces, self.labels, self.label_names, self.row_names = faces, labels, label_names, row_names
        self.within = within
        self.people, self.circles = _Unions(), _Unions()
        self.names: list[str] = []
        self.known: list[bool] = []
        self.of_label: dict[int, int] = {}
        self.of_row = np.full(len(labels), NOBODY, np.int64)
        self.leads = np.zeros(len(labels), np.bool_)
        self.merged = 0

    def add(self, block: NDArray[np.int64], before: NDArray[np.int64]) -> None:
        """Judge the rows of `block`; `before` are all rows judged so far."""
        near: list[list[NDArray[np.int64]]] = [[] for _ in block]
        queries = np.asarray(self.faces[block], np.float32)
        for begin in range(0, len(before), _BEFORE):
            self._look(near, queries, before[begin : begin + _BEFORE])
        self._look(near, queries, block)
        for row, some in zip(block.tolist(), near, strict=True):
            rows = np.concatenate(some)
            self._place(row, rows[rows < row])

    def _look(self, near: list[list[NDArray[np.int64]]], queries: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        """Add those of `rows` whose faces are nearer than `within` to each of the `queries`."""
        try:
            from sklearn.neighbors import NearestNeighbors
        except ImportError:
            raise SettingsError("dataset: scikit-learn is not installed; install studiolo[datasets]") from None
        index = NearestNeighbors(radius=self.within, algorithm="brute")
        index.fit(np.asarray(self.faces[rows], np.float32))
        for found, positions in zip(near, index.radius_neighbors(queries, return_distance=False), strict=True):
            found.append(rows[positions])

    def _place(self, row: int, near: NDArray[np.int64]) -> None:
        """Give the row its person; `near` are the rows before it whose faces are."""
        label = int(self.labels[row])
        if label >= 0:
            person = self._of_label(label)
        else:
            led = np.unique(self.of_row[near[self.leads[near]]]).tolist()
            groups = {self.people.find(one) for one in led if not self.known[one]}
            self.leads[row] = not groups
            person = self.people.unite(groups) if groups else self._new(f"{UNKNOWN}/{self.row_names[row]}", False)
            self.merged += max(len(groups) - 1, 0)
            self.circles.unite([person, *groups])
        self.of_row[row] = person
        self.circles.unite([person, *np.unique(self.of_row[near]).tolist()])

    def _of_label(self, label: int) -> int:
        if label not in self.of_label:
            self.of_label[label] = self._new(self.label_names[label], True)
        return self.of_label[label]

    def _new(self, name: str, known: bool) -> int:
        self.names.append(name)
        self.known.append(known)
        self.circles.new()
        return self.people.new()

    def result(self) -> Identities:
        """Who everybody is; groups that have become another's keep their place in the lists."""
        roots = np.array([self.people.find(one) for one in range(len(self.names))], np.int64)
        of_row = self.of_row.copy()
        of_row[of_row != NOBODY] = roots[of_row[of_row != NOBODY]]
        circles = [self.circles.find(one) for one in range(len(self.names))]
        return Identities(of_row, self.names, self.known, circles, self.merged)


def split_of(name: str, validation: float, test: float) -> Split:
    """The split of an identity by its name alone; the shares are those of the identities."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    if place < test:
        return Split.TEST
    return Split.VALIDATION if place < test + validation else Split.TRAIN


def splits(identities: Identities, validation: float, test: float) -> tuple[list[Split], int]:
    """The split of each identity, and how many circles had members of several, which are in train now."""
    wanted: dict[int, set[Split]] = {}
    for circle, name in zip(identities.circles, identities.names, strict=True):
        wanted.setdefault(circle, set()).add(split_of(name, validation, test))
    settled = {circle: next(iter(some)) if len(some) == 1 else Split.TRAIN for circle, some in wanted.items()}
    across = sum(len(some) > 1 for some in wanted.values())
    return [settled[circle] for circle in identities.circles], across
