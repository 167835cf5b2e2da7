"""Samples of a base, and sights of pictures, made by one process a core: the models are opened once in each."""

import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from actors.finisher import SEEING
from studiolo.generation.base import load_base
from studiolo.generation.engine import Engine, Order, Portrait, candidate_seed
from studiolo.identities.captions import trigger_phrase
from studiolo.metrics.prompts import Attributes, attributes_of
from studiolo.perception.features import CARD, EmbeddedFeatures
from studiolo.perception.perceive import perceive_photo
from studiolo.perception.suite import Suite, open_suite
from studiolo.settings import GenerationSettings
from studiolo.weights.fetch import pull

RgbU8 = NDArray[np.uint8]

BATCH = 8


@dataclass(frozen=True)
class Wanted:
    """A picture to make."""

    prompt: str
    seed: int
    """Of the order; the picture is its first candidate."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture made."""

    rgb_u8: RgbU8
    seconds: float
    """Its share of its batch's time, on one core."""


@dataclass(frozen=True)
class Sight:
    """What our own perception sees in a picture."""

    faces: int
    """Faces the detector finds."""
    attributes: Attributes
    """Of the largest face with a mesh; empty without one."""


@dataclass(frozen=True, eq=False)
class _Models:
    engine: Engine
    suite: Suite
    features: EmbeddedFeatures
    generation: GenerationSettings


_models: _Models


@contextmanager
def workers(base: Path, generation: GenerationSettings) -> Iterator[Pool]:
    """A process for each core this one may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(cores, _open, (base, generation)) as pool:
        yield pool
        pool.close()
        pool.join()


def wanted_of(prompts: Iterable[str], seed: int, name: str) -> list[Wanted]:
    """The prompts, each with a seed of its own that depends on `seed`, `name` and its place."""
    return [Wanted(prompt, candidate_seed(seed, name, number)) for number, prompt in enumerate(prompts)]


def sample(pool: Pool, wanted: Sequence[Wanted]) -> Iterator[Sample]:
    """The pictures wanted, in their order, made in batches of 8."""
    for batch in pool.imap(_sample, [wanted[at : at + BATCH] for at in range(0, len(wanted), BATCH)]):
        yield from batch


def decoded(pool: Pool, latents_NCHW: NDArray[np.float16]) -> Iterator[RgbU8]:
    """The pictures of latents."""
    return pool.imap(_decode, latents_NCHW, chunksize=BATCH)


def see(pool: Pool, pictures: Iterable[RgbU8]) -> Iterator[Sight]:
    """What is seen in each picture."""
    return pool.imap(_see, pictures, chunksize=BATCH)


def features_of(pool: Pool, pictures: Iterable[RgbU8]) -> NDArray[np.float32]:
    """Features [N, 384] of the pictures."""
    return np.stack(pool.map(_describe, list(pictures), chunksize=BATCH))


def _open(base: Path, generation: GenerationSettings) -> None:
    global _models
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    engine = Engine.configured(load_base(base), generation.model_copy(update={"slots": BATCH}))
    _models = _Models(engine, open_suite("embedded"), EmbeddedFeatures.open(pull(CARD)), generation)


def _sample(batch: Sequence[Wanted]) -> list[Sample]:
    settings, started = _models.generation, time.monotonic()
    events = [
        _models.engine.submit(
            Order(
                one.seed,
                "sample",
                one.prompt,
                steps=settings.steps,
                guidance_scale=settings.guidance_scale,
                eta=settings.eta,
            )
        )
        for one in batch
    ]
    pictures = [event.rgb_u8 for its in events for event in its if isinstance(event, Portrait)]
    return [Sample(picture, (time.monotonic() - started) / len(batch)) for picture in pictures]


def _decode(latents_CHW: NDArray[np.float16]) -> RgbU8:
    return _models.engine.decode(torch.from_numpy(latents_CHW).float())


def _see(rgb_u8: RgbU8) -> Sight:
    suite = _models.suite
    seen = perceive_photo(suite, rgb_u8, SEEING).faces
    said = attributes_of(trigger_phrase([seen[0]["attributes"]]), seen[0]["tags"]) if seen else {}
    return Sight(len(suite.detector(rgb_u8, SEEING.detector_score)), said)


def _describe(rgb_u8: RgbU8) -> NDArray[np.float32]:
    return _models.features(rgb_u8)
