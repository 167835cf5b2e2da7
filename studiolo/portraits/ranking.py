"""Which candidates are kept, in which order, and whether to try again. Pure functions."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from studiolo.albums.records import Reason, Status


@dataclass(frozen=True)
class Candidate:
    """What is known of one candidate when it is judged. `index` is unique within its identity and style."""

    identity_id: str
    style: str
    index: int
    similarity: float  # calibrated, 0..1; 0 without a face
    similarity_unfused: float  # the same before a photo's face was set in
    faces: int
    face_share: float  # of the picture's height
    quality_score: float  # 0..1
    unsafe_score: float  # 0..1


@dataclass(frozen=True)
class Ranked:
    """A candidate with its outcome: `rank` is 1 for the best of its identity and style and 0 for a rejected
    one.
    """

    candidate: Candidate
    status: Status
    reason: Reason
    rank: int


@dataclass(frozen=True)
class Acceptance:
    """What a candidate must be to be accepted."""

    similarity: float
    """At least this alike, 0..1."""
    unsafe_above: float
    """Unsafe above this score, 0..1."""
    face_share: tuple[float, float] | None
    """Least and largest share of the picture's height that its one face takes; None: faces are not looked at."""


def fault(candidate: Candidate, acceptance: Acceptance) -> Reason:
    """Why the candidate by itself cannot be accepted; `Reason.NONE` when it can. A NaN score never passes."""
    if not candidate.unsafe_score <= acceptance.unsafe_above:
        return Reason.UNSAFE
    if acceptance.face_share is not None:
        if candidate.faces != 1:
            return Reason.NOT_ONE_FACE
        if not acceptance.face_share[0] <= candidate.face_share <= acceptance.face_share[1]:
            return Reason.FACE_SIZE
    if not candidate.similarity >= acceptance.similarity:
        return Reason.LOW_SIMILARITY
    return Reason.NONE


def rank_candidates(candidates: Iterable[Candidate], wanted: int, acceptance: Acceptance) -> list[Ranked]:
    """Every candidate once with its outcome, whatever their order.

    Of each identity and style the acceptable ones are ranked by similarity, fused and unfused counting alike, then
    quality, then index: with one photo's face in all of them, the one drawn best by itself wins. The
    best `wanted` are accepted, the others are surplus. The result is sorted by identity, style, and then
    accepted ones by rank before rejected ones by index.
    """
    ranked: list[Ranked] = []
    for group in _groups(candidates):
        judged = [(candidate, fault(candidate, acceptance)) for candidate in group]
        good = sorted((candidate for candidate, reason in judged if not reason), key=_best_first)
        accepted = [Ranked(item, Status.OK, Reason.NONE, rank) for rank, item in enumerate(good[:wanted], 1)]
        rejected = [Ranked(item, Status.DROPPED, Reason.SURPLUS, 0) for item in good[wanted:]]
        rejected += [Ranked(item, Status.DROPPED, reason, 0) for item, reason in judged if reason]
        ranked += accepted + sorted(rejected, key=lambda item: item.candidate.index)
    return ranked


def wants_retry(accepted: int, wanted: int, rounds_made: int, retries: int) -> bool:
    """Whether another round is due: too few accepted, and budget left (one round plus `retries`)."""
    return accepted < wanted and rounds_made <= retries


def candidates_in_round(accepted: int, wanted: int, candidates_per_portrait: int) -> int:
    """How many candidates the next round makes for the portraits still missing."""
    return max(wanted - accepted, 0) * candidates_per_portrait


def _groups(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault((candidate.identity_id, candidate.style), []).append(candidate)
    return [groups[key] for key in sorted(groups)]


def _best_first(candidate: Candidate) -> tuple[float, float, int]:
    quality = candidate.quality_score if not math.isnan(candidate.quality_score) else 0.0
    return (-candidate.similarity - candidate.similarity_unfused, -quality, candidate.index)
