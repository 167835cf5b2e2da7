"""Choosing the result: pictures of a training on its way, judged against photos it has not seen.

Shapes: n pictures, m reference photos, D the embedding's width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Embedding = NDArray[np.float32]
Item = TypeVar("Item")

HELD_OUT_FROM = 5
"""With so many photos, one in so many is held out; with fewer every photo is needed to learn from."""


LEAST_DIVERSITY = 0.5
"""A face-LoRA whose pictures differ by less than this share of what may be expected has collapsed: it makes one picture
whatever the seed, and is no result however alike that is. See `contenders`."""


@dataclass(frozen=True)
class Score:
    """How good the pictures of a face-LoRA are."""

    likeness: float
    """Mean calibrated similarity, 0..1, to the references; a picture without a face counts 0."""
    diversity: float
    """Mean distance of the embeddings of two pictures; 0 with fewer than two faces."""


Scorer = Callable[[Path], Score]
"""Judges the face-LoRA in a file."""


def split(photos: Sequence[Item]) -> tuple[list[Item], list[Item], bool]:
    """Photos to learn from, photos to judge by, and whether these are the same (in-sample)."""
    if len(photos) < HELD_OUT_FROM:
        return list(photos), list(photos), True
    held = range(HELD_OUT_FROM - 1, len(photos), HELD_OUT_FROM)
    return [photo for index, photo in enumerate(photos) if index not in held], [photos[index] for index in held], False


def contenders(curve: Sequence[tuple[int, float, float]], reference_diversity: float | None = None) -> list[int]:
    """Of the (step, likeness, diversity) of a training's validations, the steps that may be its result, the one that is
    first.

    That is the most alike, the first of equals, of those that have not collapsed. The others would be if a more diverse
    one came: all but those that have collapsed, or have a better one that is as diverse or that nothing to come can
    throw out.

    Collapsed is what has less than `LEAST_DIVERSITY` of the diversity of the most diverse step or, where that is less,
    of the person's own photos (`reference_diversity`, the mean distance of their embeddings; None: not known). The base
    draws different people, so that pictures that come to show one person differ ever less, and may end as near to each
    other as that person's photos are.
    """
    highest = math.inf if reference_diversity is None else LEAST_DIVERSITY * reference_diversity
    floor = min(highest, LEAST_DIVERSITY * max((diversity for _, _, diversity in curve), default=0.0))
    steps: list[int] = []
    most = -1.0
    for step, _, diversity in sorted(curve, key=lambda point: (-point[1], point[0])):
        if diversity >= floor and most < min(diversity, highest):
            steps.append(step)
            most = diversity
    return steps


def mean_distance(embeddings: Sequence[Embedding]) -> float | None:
    """Mean distance of two of the embeddings; None with fewer than two."""
    apart = [float(np.linalg.norm(a - b)) for index, a in enumerate(embeddings) for b in embeddings[index + 1 :]]
    return float(np.mean(apart)) if apart else None


def score(
    pictures: Sequence[Embedding | None], references: Sequence[Embedding], similarity: Callable[[float], float]
) -> Score:
    """Score of n pictures' embeddings (None: no face) against m references, by `similarity` of a distance."""
    faces = [face for face in pictures if face is not None]
    near = [similarity(float(np.median([np.linalg.norm(face - one) for one in references]))) for face in faces]
    return Score(sum(near) / len(pictures), mean_distance(faces) or 0.0)
