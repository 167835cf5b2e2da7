"""What a job will take, from what one unit of each stage took: arithmetic only, `jobs/estimate.py` measures.

- **time** of a stage: its weights' loading, then its units shared by its workers (no more than actors, units or cores),
  the longest share counting; a graph's own start is `GRAPH_S`. Training is its fixed part and a part for each step.
  Portraits lie between one round of candidates for every order and all the rounds that `generation.retries` allows.
- **memory**: the stage whose workers together are largest, on top of the driver and Ray (`BASE_BYTES`).
- **disk**: what the probed person left, times the people; candidates by the rounds.

Albums count as if each gave the people ordered and nothing were done yet.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from studiolo.settings import GenerationSettings

GRAPH_S = 4.0
"""Seconds to set up and take down a graph, and once to start Ray; measured on two cores, see docs/LOG.md."""
BASE_BYTES = int(2.2 * 2**30)
"""Driver and Ray's own processes, shared pages counted in each; measured, see docs/LOG.md."""

BASE_DISK_BYTES = 2 * 2**20
"""MLflow's database without runs, the gallery's assets, the tables' heads."""


@dataclass(frozen=True)
class Work:
    """What is asked for."""

    albums: int
    people: int
    photos: int
    orders: Sequence[int]
    """Portraits wanted, one number an order (a person and a style)."""
    edits: int
    """Orders of them in templates: each begins with a sketch of `generation.candidates_per_portrait` candidates."""
    prints: int
    """Print files, if every order is filled."""
    steps: int
    """Training steps of a person."""
    slots: int
    """People that a worker trains in one pass."""
    generation: GenerationSettings


@dataclass(frozen=True)
class Costs:
    """What was measured, in seconds and bytes; one worker, one thread."""

    open_s: Mapping[str, float]
    """Loading of weights, by stage: perceive, train, portraits."""
    peak_bytes: Mapping[str, int]
    """Peak memory of one worker, by stage."""
    photo_s: float
    person_s: float
    """The part of a training that its steps do not change."""
    step_s: float
    """Of a worker's whole pack, however many of its slots are taken."""
    batch_s: float
    """`generation.slots` candidates made, upscaled and scored."""
    page_s: float
    """One person's page and thumbnails."""
    album_bytes: int
    """References and page of a person."""
    lora_bytes: int
    candidate_bytes: int
    print_s: float
    print_bytes: int


@dataclass(frozen=True)
class Estimate:
    """Least and most of each figure; equal where only one is known."""

    candidates: tuple[int, int]
    seconds: Mapping[str, tuple[float, float]]
    """By stage, and `total`."""
    memory_bytes: int
    disk_bytes: tuple[int, int]


def estimate(work: Work, costs: Costs, workers: Mapping[str, int]) -> Estimate:
    """Figures for `work` with `workers` of each stage (perceive, train, portraits)."""
    rounds = (1, 1 + work.generation.retries)
    candidates = [sum(_candidates(count, work, most) for count in work.orders) for most in rounds]
    portraits = [
        GRAPH_S + costs.open_s["portraits"] + costs.batch_s * _busiest(work, most, workers["portraits"])
        for most in rounds
    ]
    perceive = GRAPH_S + costs.open_s["perceive"] + costs.photo_s * work.photos / workers["perceive"]
    people = math.ceil(work.people / workers["train"])
    packs = math.ceil(work.people / (workers["train"] * work.slots))
    train = GRAPH_S + costs.open_s["train"] + costs.person_s * people + costs.step_s * work.steps * packs
    sketches = work.edits * work.generation.candidates_per_portrait / work.generation.slots
    sketch_s = costs.batch_s * sketches / workers["portraits"]
    publish = costs.page_s * work.people
    seconds = {"start": (GRAPH_S, GRAPH_S), "perceive": (perceive, perceive), "train": (train, train)}
    seconds["portraits"] = (portraits[0] + sketch_s, portraits[1] + sketch_s)
    if work.prints:
        prints = GRAPH_S + costs.open_s["perceive"] + costs.print_s * work.prints / workers["portraits"]
        seconds["prints"] = (prints, prints)
    seconds["publish"] = (publish, publish)
    seconds["total"] = (sum(least for least, _ in seconds.values()), sum(most for _, most in seconds.values()))
    fixed = BASE_DISK_BYTES + work.people * (costs.album_bytes + costs.lora_bytes) + work.prints * costs.print_bytes
    return Estimate(
        candidates=(candidates[0], candidates[1]),
        seconds=seconds,
        memory_bytes=BASE_BYTES + max(workers[stage] * costs.peak_bytes[stage] for stage in workers),
        disk_bytes=(fixed + candidates[0] * costs.candidate_bytes, fixed + candidates[1] * costs.candidate_bytes),
    )


def _candidates(count: int, work: Work, rounds: int) -> int:
    return count * work.generation.candidates_per_portrait * rounds


def _busiest(work: Work, rounds: int, workers: int) -> float:
    """Batches of the worker with the most of them, when each takes the next order as it is free.

    Orders in flight share batches: as many of one size pad the last of theirs together. There are no more in flight
    than leave every worker its share (`pipelines.plan.fit`).
    """
    together = max(1, min(work.generation.orders_in_flight, math.ceil(len(work.orders) / workers)))
    loads = [0.0] * workers
    for count in work.orders:
        shared = math.ceil(together * _candidates(count, work, 1) / work.generation.slots)
        loads[loads.index(min(loads))] += shared / together * rounds
    return max(loads)
