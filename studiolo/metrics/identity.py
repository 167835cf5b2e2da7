"""Identity metrics: is this the person, is it nobody else, and how sure are we over people.

Pure functions on arrays. Embeddings are float32 [128] and compared by Euclidean distance (`distance_l2`); a
similarity is a distance after calibration, 0..1, higher is more alike. People, not pictures, are the unit of
every interval: pictures of one person are not independent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Statistic = Callable[[npt.NDArray[np.float64]], float]


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap percentile interval, and how many people it rests on."""

    estimate: float
    low: float
    high: float
    people: int


@dataclass(frozen=True)
class PairedComparison:
    """One method against a control, person by person. `difference` is the mean of method minus control."""

    wins: int
    ties: int
    losses: int
    difference: Interval
    p_value: float  # exact two-sided sign test, ties left out


def distances_l2(a_ND: Floats, b_MD: Floats) -> npt.NDArray[np.float64]:
    """[N, D], [M, D] -> [N, M] Euclidean distances, computed in float64."""
    a, b = np.asarray(a_ND, np.float64), np.asarray(b_MD, np.float64)
    difference: npt.NDArray[np.float64] = np.linalg.norm(a[:, None, :] - b[None, :, :], axis=2)
    return difference


def reference_distance_l2(embedding_D: Floats, references_ND: Floats) -> float:
    """Distance of one face to a person: the median of its distances to all N >= 1 references.

    The median is a typical pair, which is what a calibration over pairs speaks of; the mean embedding is
    closer to everything than any pair is, and the nearest reference rewards one lucky (or wrong) photo. Up to
    half the references may be poor without moving it far.
    """
    if len(references_ND) == 0:
        raise ValueError("reference_distance_l2: got no references, wanted at least one")
    return float(np.median(distances_l2(np.asarray(embedding_D)[None], references_ND)[0]))


def rank_1(queries_ND: Floats, query_people: Sequence[str], references: Mapping[str, Floats]) -> npt.NDArray[np.bool_]:
    """Whether each query's nearest person (`reference_distance_l2`) is its own; [N] of bool.

    `references` maps every person to [R, D]. A tie counts as a miss: the metric may not depend on names.
    """
    people = sorted(references)
    distance_NP = np.array(
        [[reference_distance_l2(query, references[person]) for person in people] for query in queries_ND]
    ).reshape(len(queries_ND), len(people))
    hits = np.zeros(len(queries_ND), bool)
    for i, person in enumerate(query_people):
        own = people.index(person)
        hits[i] = bool(np.all(np.delete(distance_NP[i], own) > distance_NP[i, own]))
    return hits


def likeness_by_person(
    portraits: Mapping[str, Floats], held_out: Mapping[str, Floats], statistic: Statistic = np.median
) -> dict[str, float]:
    """For each person with both, `statistic` over portraits [N, D] of the distance to held-out photos [M, D].

    Distances, lower is more alike; a calibration can be applied to the result.
    """
    shared = sorted(person for person in portraits if person in held_out and len(portraits[person]))
    return {
        person: float(
            statistic(np.array([reference_distance_l2(item, held_out[person]) for item in portraits[person]]))
        )
        for person in shared
    }


def own_and_other(
    portraits: Mapping[str, Floats], references: Mapping[str, Floats]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Distances of every portrait to its own person's references, [N], and to each other person's, [N * (P -
    1)].
    """
    own: list[float] = []
    other: list[float] = []
    for person, embeddings in sorted(portraits.items()):
        for embedding in embeddings:
            for name, known in sorted(references.items()):
                (own if name == person else other).append(reference_distance_l2(embedding, known))
    return np.array(own, np.float64), np.array(other, np.float64)


def bootstrap_over_people(
    values_by_person: Sequence[float],
    statistic: Statistic = np.mean,
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """`statistic` over one value a person, with a percentile interval from resampling people with
    replacement.

    Values are sorted first, so the interval does not depend on the order of people. One person gives an
    interval of no width: a bootstrap knows nothing beyond its sample.
    """
    values = np.sort(np.asarray(values_by_person, np.float64))
    if values.size == 0:
        raise ValueError("bootstrap_over_people: got no values, wanted one a person")
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, values.size, size=(samples, values.size))
    replicates = np.array([statistic(values[draw]) for draw in draws])
    tail = (1 - confidence) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return Interval(float(statistic(values)), float(low), float(high), int(values.size))


def compare_paired(
    method: Mapping[str, float], control: Mapping[str, float], higher_is_better: bool = True, seed: int = 0
) -> PairedComparison:
    """One value a person of a method (say, with the face-LoRA) and of its control, compared over the same
    people.

    Raises `ValueError` when the people differ: leaving some out would decide the outcome.
    """
    if method.keys() != control.keys() or not method:
        missing = sorted(method.keys() ^ control.keys())
        raise ValueError(f"compare_paired: got values of one side only for {missing}, wanted both for everyone")
    people = sorted(method)
    differences = np.array([method[person] - control[person] for person in people], np.float64)
    signs = np.sign(differences) * (1 if higher_is_better else -1)
    wins, losses = int((signs > 0).sum()), int((signs < 0).sum())
    return PairedComparison(
        wins=wins,
        ties=len(people) - wins - losses,
        losses=losses,
        difference=bootstrap_over_people(list(differences), seed=seed),
        p_value=sign_test(wins, losses),
    )


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided p of `wins` against `losses` when both are equally likely: 2 P(X >= max), at most 1."""
    trials = wins + losses
    upper = sum(comb(trials, k) for k in range(max(wins, losses), trials + 1))
    return min(1.0, 2.0 * upper / 2.0**trials)
