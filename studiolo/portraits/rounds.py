"""An order worked off in rounds: candidates drawn, finished and judged, and another round while too few are accepted.

The one home of what portraits depend on, for the bulk job and the endpoint. Who draws and who finishes is given, and
may be in another process: what passes between them is defined here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from studiolo.albums.records import Reason
from studiolo.errors import UsageError
from studiolo.keys import PLAN_FIELDS
from studiolo.portraits.finishing import Finished
from studiolo.portraits.orders import Order
from studiolo.portraits.ranking import (
    Acceptance,
    Candidate,
    Ranked,
    candidates_in_round,
    fault,
    rank_candidates,
    wants_retry,
)
from studiolo.portraits.styles import Style

if TYPE_CHECKING:
    from studiolo.portraits.edits import EditPass

RgbU8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Subject:
    """Whose portraits: words for the prompt, and the face-LoRA in the store."""

    trigger: str
    """First words of every prompt."""
    common_tags: tuple[str, ...] = ()
    lora_path: str | None = None
    """Safetensors in the store; None for a person of the base."""
    lora_sha256: str = ""


@dataclass(frozen=True)
class StoredLora:
    """A LoRA in the store."""

    whose: str
    """Id of the person or style that it goes with."""
    path: str
    sha256: str


@dataclass(frozen=True)
class Draft:
    """What is asked of a sampler: `count` candidates of an order, indices from `first_index` on."""

    order: Order
    style: Style
    subject: Subject
    count: int
    first_index: int
    deadline_s: float = 3600.0
    """Seconds from now: the draft with the least left is served first."""
    preview_s: float = 0.0
    """Seconds between two previews; 0: none are made."""
    request_id: str | None = None
    """Of the HTTP request it is for, for the log."""
    style_lora: StoredLora | None = None
    """Of a style whose LoRA is in the store; None where the style says itself where it is, or has none."""
    edit: "EditPass | None" = None
    """The pass of an edit, where it is one; `order` and `style` are then those of the edit."""


@dataclass(frozen=True)
class Drawing:
    """`done` of the `total` denoising steps of a draft, all its candidates together, are done."""

    done: int
    total: int
    preview: bytes | None = None
    """PNG of a candidate as it is; None when no new one was due."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A candidate as it comes out of the denoiser: `rgb_u8` [H, W, 3], and what it was made from."""

    index: int
    seed: int
    prompt: str
    rgb_u8: RgbU8


@dataclass(frozen=True)
class Judged:
    """A candidate was finished and judged by itself; `Reason.NONE` when it can be accepted."""

    index: int
    reason: Reason


class Drawings(Iterator[Drawing | Drawn], Protocol):
    """What comes of a draft."""

    def close(self) -> None:
        """Stop it, from any thread, so that nothing of it is left with the sampler."""
        ...


Draw = Callable[[int, int], Iterator[Drawing | Drawn]]
"""Draws so many candidates from an index on."""
Finish = Callable[[RgbU8], Finished]
"""Finishes and scores what was drawn."""


@dataclass(frozen=True, eq=False)
class Made:
    """One candidate: how it was drawn, and the finished picture."""

    seed: int
    prompt: str
    portrait: Finished

    def without_pixels(self) -> "Made":
        """The same, of which only what was judged is left."""
        return replace(self, portrait=replace(self.portrait, rgb_u8=np.zeros((0, 0, 3), np.uint8)))


@dataclass(frozen=True)
class Outcome:
    """All candidates of an order, the accepted first, best first."""

    ranked: list[Ranked]
    made: dict[int, Made] = field(default_factory=dict)
    """By index."""


def acceptance_of(order: Order, likeness: bool = True) -> Acceptance:
    """What a portrait of `order` must be. Without `likeness`, for a person of the base, only what is unsafe is kept
    back: whoever writes the words decides what is seen.
    """
    settings = order.generation
    if not likeness:
        return Acceptance(0.0, order.unsafe_above, None)
    return Acceptance(settings.accept_similarity, order.unsafe_above, settings.face_share)


def work_off(
    order: Order,
    acceptance: Acceptance,
    draw: Draw,
    finish: Finish,
    *,
    first_index: int = 0,
    keep_rejected: bool = True,
    watch: Callable[[Drawing | Judged], None] = lambda news: None,
) -> Outcome:
    """Make the candidates of `order`, judge them, and go on within the budget while too few are accepted.

    `first_index` is that of the first candidate. Without `keep_rejected` the pixels of those that cannot be accepted
    are let go at once. `watch` is told of steps and verdicts as they come. Raises `UsageError` when fewer candidates
    were drawn than asked for.
    """
    made: dict[int, Made] = {}
    ranked: list[Ranked] = []
    rounds = accepted = 0
    settings = order.generation
    while wants_retry(accepted, order.count, rounds, settings.retries):
        count = candidates_in_round(accepted, order.count, settings.candidates_per_portrait)
        before = len(made)
        for event in draw(count, first_index + before):
            if isinstance(event, Drawn):
                one = Made(event.seed, event.prompt, finish(event.rgb_u8))
                reason = fault(_candidate(order, event.index, one), acceptance)
                made[event.index] = one if keep_rejected or not reason else one.without_pixels()
                watch(Judged(event.index, reason))
            else:
                watch(event)
        if len(made) < before + count:
            raise UsageError(f"order: its sampler ended after {len(made) - before} of {count} candidates; ask another")
        candidates = [_candidate(order, index, one) for index, one in made.items()]
        ranked = rank_candidates(candidates, order.count, acceptance)
        accepted = sum(item.rank > 0 for item in ranked)
        rounds += 1
    return Outcome(ranked, made)


def settings_inside(order: Order, style: Style, made: Made, index: int, base: str, lora_sha256: str) -> dict[str, Any]:
    """What the file of a portrait says of how it was made; `base` is the id of the base's card."""
    return {
        "identity_id": order.identity_id,
        "style": order.style,
        "index": index,
        "seed": made.seed,
        "prompt": made.prompt,
        "negative_prompt": style.negative_prompt,
        "base": base,
        "face_lora_sha256": lora_sha256,
        **order.generation.model_dump(exclude=set(PLAN_FIELDS)),
    }


def _candidate(order: Order, index: int, made: Made) -> Candidate:
    portrait, score = made.portrait, made.portrait.score
    return Candidate(
        identity_id=order.identity_id,
        style=order.style,
        index=index,
        similarity=score.similarity,
        similarity_unfused=portrait.similarity_unfused,
        faces=score.faces,
        face_share=score.face_share,
        quality_score=score.quality_score,
        unsafe_score=score.unsafe_score,
    )
