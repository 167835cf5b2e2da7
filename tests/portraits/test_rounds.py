"""An order in rounds: what a draw that ends early comes to."""

from collections.abc import Iterator

import numpy as np
import pytest

from studiolo.albums.records import Fusion, Verdict
from studiolo.errors import UsageError
from studiolo.portraits.finishing import Finished
from studiolo.portraits.orders import Order
from studiolo.portraits.rounds import Drawing, Drawn, RgbU8, acceptance_of, work_off
from studiolo.portraits.scoring import Score
from studiolo.settings import GenerationSettings


@pytest.mark.parametrize("retries", [0, 2])
def test_a_draw_that_ends_early_is_no_round(retries: int) -> None:
    """Else a portrait that was never drawn would count as one that was not good enough."""
    settings = GenerationSettings(steps=1, retries=retries, candidates_per_portrait=2)
    order = Order(identity_id="anna", style="studio", count=1, seed=1, generation=settings)

    def draw(count: int, first_index: int) -> Iterator[Drawing | Drawn]:
        yield Drawing(1, count)

    def finish(rgb_u8: RgbU8) -> Finished:
        raise AssertionError(f"there is nothing to finish: {np.shape(rgb_u8)}")

    with pytest.raises(UsageError, match="0 of 2"):
        work_off(order, acceptance_of(order), draw, finish)


@pytest.mark.parametrize("keep_rejected", [True, False])
def test_what_is_rejected_may_be_let_go_and_is_judged_alike(keep_rejected: bool) -> None:
    settings = GenerationSettings(steps=1, retries=0, candidates_per_portrait=2, face_share=(0.1, 1.0))
    order = Order(identity_id="anna", style="studio", count=2, seed=1, generation=settings)

    def draw(count: int, first_index: int) -> Iterator[Drawing | Drawn]:
        for index in range(first_index, first_index + count):
            yield Drawn(index, index, "a woman", np.full((8, 8, 3), index, np.uint8))

    def finish(rgb_u8: RgbU8) -> Finished:
        likeness = float(rgb_u8[0, 0, 0] in (1, 3))
        score = Score(likeness, Verdict.SAME, 1, 0.5, 0.5, 0.0, None, None)
        return Finished(rgb_u8, score, likeness, Fusion.OFF)

    outcome = work_off(order, acceptance_of(order), draw, finish, keep_rejected=keep_rejected)
    assert [(one.candidate.index, one.rank) for one in outcome.ranked] == [(1, 1), (3, 2), (0, 0), (2, 0)]
    kept = {index for index, one in outcome.made.items() if one.portrait.rgb_u8.size}
    assert kept == ({0, 1, 2, 3} if keep_rejected else {1, 3})
