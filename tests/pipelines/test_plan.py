import pytest

from pipelines.plan import Stage, fit
from studiolo.errors import PlanError


def test_a_pool_that_fits_is_left_alone():
    stage = Stage("perception", actors=2, cpus_per_actor=0.75)
    assert fit(stage, cpus=2, work=100) == stage


def test_a_pool_may_take_every_slot():
    stage = Stage("perception", actors=2, cpus_per_actor=1.0)
    assert fit(stage, cpus=2, work=100) == stage


def test_no_more_actors_than_units_of_work():
    assert fit(Stage("face_lora", actors=8, cpus_per_actor=1), cpus=2, work=1).actors == 1


@pytest.mark.parametrize(("work", "actors", "together"), [(1, 1, 1), (2, 2, 1), (4, 2, 2), (5, 2, 3), (100, 2, 3)])
def test_units_together_leave_every_actor_its_share(work, actors, together):
    found = fit(Stage("generation", actors=2, cpus_per_actor=1, together=3), cpus=2, work=work)
    assert (found.actors, found.together) == (actors, together)


@pytest.mark.parametrize("cpus", [0.5, 1.0, 2.0])
def test_a_pool_that_would_hang_is_refused_with_the_numbers(cpus):
    with pytest.raises(PlanError) as error:
        fit(Stage("generation", actors=3, cpus_per_actor=1), cpus=cpus, work=10)
    message = str(error.value)
    assert "generation.actors" in message
    assert "3 actors x 1 CPU slots = 3," in message
    assert f"has {cpus:g}" in message
