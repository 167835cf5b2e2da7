"""Who is in an album: its faces grouped into people, its owner and the next ones, and how sure we are of every face.

Grouping is agglomerative: the two groups with the least mean distance merge as long as that distance is a
verdict of `same` and no photo would then show one person twice. Nothing depends on the order of the faces:
equal distances are decided by the faces' names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from studiolo.albums.records import Verdict

OWNER = 0
"""Number of the album's owner among its people."""


class Similarity(Protocol):
    """Judges L2 distances between embeddings; `studiolo.perception.similarity` calibrates one."""

    def verdict(self, distance: float) -> Verdict:
        """Same, different or unsure."""
        ...

    def score(self, distance: float) -> float:
        """Calibrated similarity, 0..1, falling with `distance`."""
        ...


@dataclass(frozen=True)
class FaceRef:
    """One face as grouping sees it."""

    photo_id: str
    face_id: int
    embedding: tuple[float, ...]
    area_px2: float
    good: bool = True
    """Whether its quality suffices for a reference: bad faces are grouped but do not elect the owner."""
    usable: bool = True
    """Whether the photo can be a reference of its person: it is good, and the photo's only or dominant face."""

    @property
    def name(self) -> tuple[str, int]:
        """What tells the face from all others of the album."""
        return self.photo_id, self.face_id


@dataclass(frozen=True)
class Member:
    """What grouping says of one face."""

    person: int
    """0 = the owner, then the other people wanted, from the number wanted on those who are not."""
    verdict: Verdict
    """Against its person, if wanted: `same`, or `unsure`, which is kept and flagged. Else `different`."""


def group_faces(
    faces: Sequence[FaceRef], similarity: Similarity, people: int = 1, references: int = 1
) -> dict[tuple[str, int], Member]:
    """Name of every face -> its person and verdict.

    The owner is the group with the most good faces; ties go to more faces, larger faces, then the first name. Of
    `people` wanted, the others are the next groups by the same rank that have `references` usable faces; there may be
    fewer. Who is person 1, 2 ... does not depend on how many are wanted.

    A face that is alone, and `same` or `unsure` by its mean distance to a person's group, joins it as `unsure`, unless
    its photo already shows that person (then the closest one counts). Two faces that are surely one person are rather a
    further person (measured, see docs/LOG.md).
    """
    ordered = sorted(faces, key=lambda face: face.name)
    if not ordered:
        return {}
    distances = _distances(ordered)
    groups = _merge(ordered, distances, similarity)
    members: dict[tuple[str, int], Member] = {}
    for person in range(people):
        groups.sort(key=lambda group: _rank(ordered, group))
        found = _next_person(ordered, distances, groups, similarity, person, references)
        if found is None:
            break
        group, adopted = found
        members |= {ordered[i].name: Member(person, _verdict(distances, i, group, similarity)) for i in group}
        members |= {ordered[i].name: Member(person, Verdict.UNSURE) for i in adopted}
        left = ([i for i in other if i not in adopted] for other in groups if other is not group)
        groups = [other for other in left if other]
    for person, group in enumerate(groups, start=people):
        for i in group:
            # Not a wanted person's face even when it looks like it: that person stands elsewhere in the same photo.
            members[ordered[i].name] = Member(person, Verdict.DIFFERENT)
    return members


def _distances(faces: Sequence[FaceRef]) -> NDArray[np.float64]:
    """L2 distances [n, n], each computed the same way whatever the number of faces."""
    embeddings = np.array([face.embedding for face in faces], np.float64)
    return np.stack([np.sqrt(((embeddings - row) ** 2).sum(axis=1)) for row in embeddings])


def _merge(faces: Sequence[FaceRef], distances: NDArray[np.float64], similarity: Similarity) -> list[list[int]]:
    """Groups of indices by average linkage. `faces` are sorted by name, so the first minimum is decided by
    names.
    """
    n = len(faces)
    groups: list[list[int]] = [[i] for i in range(n)]
    photos = np.unique([face.photo_id for face in faces], return_inverse=True)[1]
    mean = distances.copy()
    apart = photos[:, None] == photos[None, :]  # True: these two groups share a photo, so they are two people
    gone = np.zeros(n, np.bool_)
    link = np.where(apart, np.inf, mean)
    while True:
        a, b = divmod(int(np.argmin(link)), n)
        if not np.isfinite(link[a, b]) or similarity.verdict(float(link[a, b])) != Verdict.SAME:
            return [group for group in groups if group]
        a, b = min(a, b), max(a, b)
        sizes = len(groups[a]), len(groups[b])
        mean[a] = mean[:, a] = (sizes[0] * mean[a] + sizes[1] * mean[b]) / sum(sizes)
        groups[a], groups[b] = groups[a] + groups[b], []
        apart[a] |= apart[b]
        apart[:, a] = apart[a]
        gone[b] = True
        link = np.where(apart | gone[:, None] | gone[None, :], np.inf, mean)


def _rank(faces: Sequence[FaceRef], group: Sequence[int]) -> tuple[int, int, float, tuple[str, int]]:
    good = sum(faces[i].good for i in group)
    area = sum(faces[i].area_px2 for i in sorted(group))
    return -good, -len(group), -area, min(faces[i].name for i in group)


def _mean_distance(distances: NDArray[np.float64], i: int, group: Sequence[int]) -> float:
    others = sorted(j for j in group if j != i)
    return float(distances[i, others].mean()) if others else 0.0


def _verdict(distances: NDArray[np.float64], i: int, group: Sequence[int], similarity: Similarity) -> Verdict:
    """Verdict of one of a person's faces: a face that average linkage dragged in is at best unsure."""
    verdict = similarity.verdict(_mean_distance(distances, i, group))
    return Verdict.SAME if verdict == Verdict.SAME else Verdict.UNSURE


def _next_person(
    faces: Sequence[FaceRef],
    distances: NDArray[np.float64],
    groups: Sequence[list[int]],
    similarity: Similarity,
    person: int,
    references: int,
) -> tuple[list[int], set[int]] | None:
    """The group of `person`, the first of `groups` that may be, and what it adopts; None without one."""
    for group in groups:
        alone = [other[0] for other in groups if other is not group and len(other) == 1]
        adopted = _adopt(faces, distances, group, alone, similarity)
        if person == OWNER or sum(faces[i].usable for i in (*group, *adopted)) >= references:
            return group, adopted
    return None


def _adopt(
    faces: Sequence[FaceRef],
    distances: NDArray[np.float64],
    group: Sequence[int],
    rest: Sequence[int],
    similarity: Similarity,
) -> set[int]:
    """Faces of `rest` that may be the person of `group`, at most one a photo, none where that person is already."""
    taken = {faces[i].photo_id for i in group}
    adopted: set[int] = set()
    for i in sorted(rest, key=lambda i: (_mean_distance(distances, i, group), faces[i].name)):
        close = similarity.verdict(_mean_distance(distances, i, group)) != Verdict.DIFFERENT
        if close and faces[i].photo_id not in taken:
            adopted.add(i)
            taken.add(faces[i].photo_id)
    return adopted
