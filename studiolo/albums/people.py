"""Who is in an album: its faces grouped into people, its owner, and how sure we are of every face.

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

    @property
    def name(self) -> tuple[str, int]:
        """What tells the face from all others of the album."""
        return self.photo_id, self.face_id


@dataclass(frozen=True)
class Member:
    """What grouping says of one face."""

    person: int
    """0 = the owner, then 1, 2 ... by falling size of the group."""
    verdict: Verdict
    """Against the owner. A face of person 0 may be `unsure`: it is kept, and flagged."""


def group_faces(faces: Sequence[FaceRef], similarity: Similarity) -> dict[tuple[str, int], Member]:
    """Name of every face -> its person and verdict.

    The owner is the group with the most good faces; ties go to more faces, larger faces, then the first name.
    A face outside the owner's group that is `same` or `unsure` by its mean distance to it joins as `unsure`,
    unless its photo already shows the owner (then the closest one counts).
    """
    ordered = sorted(faces, key=lambda face: face.name)
    if not ordered:
        return {}
    distances = _distances(ordered)
    groups = _merge(ordered, distances, similarity)
    groups.sort(key=lambda group: _rank(ordered, group))
    owner, others = groups[0], groups[1:]
    adopted = _adopt(ordered, distances, owner, similarity)
    members = {ordered[i].name: Member(OWNER, _verdict(distances, i, owner, similarity)) for i in owner}
    members.update({ordered[i].name: Member(OWNER, Verdict.UNSURE) for i in adopted})
    left = [[i for i in group if i not in adopted] for group in others]
    for person, group in enumerate((group for group in left if group), start=1):
        for i in group:
            # Not the owner's face even when it looks like it: the owner stands elsewhere in the same photo.
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


def _verdict(distances: NDArray[np.float64], i: int, owner: Sequence[int], similarity: Similarity) -> Verdict:
    """Verdict of one of the owner's faces: a face that average linkage dragged in is at best unsure."""
    verdict = similarity.verdict(_mean_distance(distances, i, owner))
    return Verdict.SAME if verdict == Verdict.SAME else Verdict.UNSURE


def _adopt(
    faces: Sequence[FaceRef], distances: NDArray[np.float64], owner: Sequence[int], similarity: Similarity
) -> set[int]:
    """Faces outside the owner's group that may be the owner, at most one a photo, none where the owner is
    already.
    """
    taken = {faces[i].photo_id for i in owner}
    adopted: set[int] = set()
    rest = [i for i in range(len(faces)) if i not in set(owner)]
    for i in sorted(rest, key=lambda i: (_mean_distance(distances, i, owner), faces[i].name)):
        close = similarity.verdict(_mean_distance(distances, i, owner)) != Verdict.DIFFERENT
        if close and faces[i].photo_id not in taken:
            adopted.add(i)
            taken.add(faces[i].photo_id)
    return adopted
