from dataclasses import replace

import pytest

from studiolo.portraits.estimate import BASE_BYTES, BASE_DISK_BYTES, GRAPH_S, Costs, Work, estimate
from studiolo.settings import GenerationSettings

STAGES = ("perceive", "train", "portraits")
COSTS = Costs(
    open_s=dict.fromkeys(STAGES, 2.0),
    peak_bytes={"perceive": 100, "train": 300, "portraits": 200},
    photo_s=0.5,
    person_s=10.0,
    step_s=0.2,
    batch_s=3.0,
    page_s=0.1,
    album_bytes=1000,
    lora_bytes=500,
    candidate_bytes=20,
    print_s=0.0,
    print_bytes=7,
)
ONE = dict.fromkeys(STAGES, 1)
WORK = Work(
    albums=10,
    people=10,
    photos=100,
    orders=[4] * 10,
    edits=0,
    prints=0,
    steps=100,
    slots=1,
    generation=GenerationSettings(candidates_per_portrait=2, slots=4, retries=2),
)


def test_one_worker_does_all_one_after_another():
    result = estimate(WORK, COSTS, ONE)
    assert result.candidates == (80, 240)
    assert result.seconds["perceive"] == pytest.approx((GRAPH_S + 2 + 50,) * 2)
    assert result.seconds["train"] == pytest.approx((GRAPH_S + 2 + 10 * 30,) * 2)
    assert result.seconds["portraits"] == pytest.approx((GRAPH_S + 2 + 20 * 3, GRAPH_S + 2 + 60 * 3))
    assert result.memory_bytes == BASE_BYTES + 300
    assert result.disk_bytes == tuple(BASE_DISK_BYTES + 10 * 1500 + candidates * 20 for candidates in (80, 240))


def test_an_edit_begins_with_a_sketch():
    least, most = estimate(replace(WORK, edits=10), COSTS, ONE).seconds["portraits"]
    plain = estimate(WORK, COSTS, ONE).seconds["portraits"]
    assert (least - plain[0], most - plain[1]) == pytest.approx((10 * 2 / 4 * 3,) * 2)


def test_the_total_is_the_sum_of_the_stages():
    seconds = dict(estimate(WORK, COSTS, ONE).seconds)
    total = seconds.pop("total")
    assert total == pytest.approx(tuple(sum(span[side] for span in seconds.values()) for side in (0, 1)))


def test_units_are_not_shared_finer_than_they_are():
    """Three workers train ten people in four turns, and one order of many portraits keeps one worker busy."""
    many = dict.fromkeys(STAGES, 3)
    assert estimate(WORK, COSTS, many).seconds["train"][0] == pytest.approx(GRAPH_S + 2 + 4 * 30)
    lone = replace(WORK, orders=[40])
    assert estimate(lone, COSTS, many).seconds["portraits"] == estimate(lone, COSTS, ONE).seconds["portraits"]


@pytest.mark.parametrize(("in_flight", "batches"), [(1, 10), (2, 5), (3, 20 / 3), (4, 5)])
def test_orders_in_flight_share_batches(in_flight: int, batches: float) -> None:
    """Ten orders of two candidates: of three in flight six share two batches of four."""
    generation = WORK.generation.model_copy(update={"orders_in_flight": in_flight})
    small = replace(WORK, orders=[1] * 10, generation=generation)
    assert estimate(small, COSTS, ONE).seconds["portraits"][0] == pytest.approx(GRAPH_S + 2 + batches * 3)


@pytest.mark.parametrize(("orders", "workers", "batches"), [(1, 1, 1), (2, 2, 1), (3, 2, 1), (2, 1, 1), (4, 2, 1)])
def test_few_orders_share_no_batches_across_workers(orders: int, workers: int, batches: int) -> None:
    """Orders of half a batch, two in flight: each of two workers with one order makes a whole batch of its own."""
    generation = WORK.generation.model_copy(update={"orders_in_flight": 2})
    small = replace(WORK, orders=[1] * orders, generation=generation)
    took = estimate(small, COSTS, dict.fromkeys(STAGES, workers)).seconds["portraits"][0]
    assert took == pytest.approx(GRAPH_S + 2 + batches * 3)


def test_prints_are_a_stage_of_their_own_when_there_are_any():
    assert "prints" not in estimate(WORK, COSTS, ONE).seconds
    printed = estimate(replace(WORK, prints=40), replace(COSTS, print_s=0.5), ONE)
    assert printed.seconds["prints"][0] == pytest.approx(GRAPH_S + 2 + 20)
    assert printed.disk_bytes[0] == estimate(WORK, COSTS, ONE).disk_bytes[0] + 280


@pytest.mark.parametrize("more", [{"photos": 200}, {"orders": [5] * 10}, {"steps": 101}, {"people": 11}])
def test_more_work_takes_longer(more):
    before, after = estimate(WORK, COSTS, ONE), estimate(replace(WORK, **more), COSTS, ONE)
    assert after.seconds["total"][1] > before.seconds["total"][1]


def test_a_pack_takes_its_steps_once_for_all_its_people_and_once_for_few():
    packed = replace(WORK, slots=4)
    assert estimate(packed, COSTS, ONE).seconds["train"][0] == pytest.approx(GRAPH_S + 2 + 10 * 10 + 3 * 20)
    assert estimate(replace(packed, people=1), COSTS, ONE).seconds["train"][0] == pytest.approx(GRAPH_S + 2 + 30)
