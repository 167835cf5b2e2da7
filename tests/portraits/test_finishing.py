"""Templates of a person, opened once however many orders and threads ask."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from actors.perceiver import png_bytes
from studiolo.portraits import finishing
from studiolo.portraits.finishing import Finisher
from studiolo.settings import GenerationSettings, PerceptionSettings

ANNA, BEN, CLEO = (png_bytes(np.full((8, 8, 3), grey, np.uint8)) for grey in (1, 2, 3))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many crops each opening was of; nothing is looked for in them."""
    sizes: list[int] = []

    def counted(crops: Any, *arguments: Any) -> list[Any]:
        sizes.append(len(crops))
        return [object() for _ in crops]

    monkeypatch.setattr(finishing, "open_templates", counted)
    return sizes


def finisher(people: int) -> Finisher:
    nothing: Any = None
    return Finisher(nothing, nothing, GenerationSettings(upscale=1), PerceptionSettings(), people)


def asked(finish: Finisher, name: str, crops: list[tuple[bytes, float]], version: str = "1") -> list[Any]:
    return finish.templates(name, version, lambda: crops)


def test_the_templates_of_a_person_are_opened_once_for_all_orders(opened: list[int]) -> None:
    finish, crops = finisher(1), [(ANNA, 0.9), (BEN, 0.8)]
    first = asked(finish, "anna", crops)
    assert asked(finish, "anna", []) is first
    assert opened == [2]
    assert asked(finish, "anna", crops[:1], version="2") is not first
    assert asked(finish, "ben", crops[1:]) is not first
    assert asked(finish, "anna", crops) is not first
    assert opened == [2, 1, 1, 2]


def test_orders_of_several_people_in_turn_open_them_once_each(opened: list[int]) -> None:
    finish = finisher(2)
    for _ in range(3):
        asked(finish, "anna", [(ANNA, 0.9)])
        asked(finish, "ben", [(BEN, 0.9)])
    assert len(opened) == 2
    asked(finish, "cleo", [(CLEO, 0.9)])  # Anna's were asked for before Ben's
    asked(finish, "ben", [(BEN, 0.9)])
    assert len(opened) == 3
    asked(finish, "anna", [(ANNA, 0.9)])
    assert len(opened) == 4


def test_threads_that_ask_for_one_person_open_it_once(opened: list[int]) -> None:
    finish = finisher(2)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: asked(finish, "anna", [(ANNA, 0.9)]), range(32)))
    assert opened == [1]
    assert all(templates is found[0] for templates in found)


def test_while_the_store_is_slow_others_are_served(opened: list[int]) -> None:
    finish = finisher(2)

    def slowly() -> list[tuple[bytes, float]]:
        with ThreadPoolExecutor(1) as other:
            assert len(other.submit(asked, finish, "ben", [(BEN, 0.9)]).result(10)) == 1
        return [(ANNA, 0.9)]

    assert len(finish.templates("anna", "1", slowly)) == 1
    assert len(opened) == 2


def test_a_person_who_is_forgotten_is_opened_anew(opened: list[int]) -> None:
    finish = finisher(2)
    asked(finish, "anna", [(ANNA, 0.9), (BEN, 0.8)])
    assert [finish.forget(name) for name in ("anna", "anna", "ben")] == [2, 0, 0]
    asked(finish, "anna", [(ANNA, 0.9)])
    assert opened == [2, 1]
