"""An order in rounds: what a draw that ends early comes to."""

from collections.abc import Iterator

import numpy as np
import pytest

from studiolo.errors import UsageError
from studiolo.portraits.finishing import Finished
from studiolo.portraits.orders import Order
from studiolo.portraits.rounds import Drawing, Drawn, RgbU8, acceptance_of, work_off
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
