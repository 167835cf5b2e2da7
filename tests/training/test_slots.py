from studiolo.settings import FaceLoraSettings
from studiolo.training.slots import ACCELERATOR_SLOTS, CPU_SLOTS, SHAPES, identity_bytes, resolve_slots
from studiolo.weights.cards import SUITE_BASE

GIB = 2**30


def settings(**changes) -> FaceLoraSettings:
    return FaceLoraSettings(**changes)


def test_a_given_number_is_taken() -> None:
    assert resolve_slots(settings(slots=7), "embedded-base", 0) == 7


def test_cores_bound_the_slots_where_memory_does_not() -> None:
    assert resolve_slots(settings(), "embedded-base", 64 * GIB) == CPU_SLOTS
    assert resolve_slots(settings(cpus_per_worker=2), "embedded-base", 64 * GIB) == 2 * CPU_SLOTS
    assert resolve_slots(settings(accelerator=True), "embedded-base", 80 * GIB) == ACCELERATOR_SLOTS


def test_memory_bounds_the_slots() -> None:
    numbers = [resolve_slots(settings(cpus_per_worker=64), "embedded-base", gib * GIB) for gib in (1, 6, 8, 16, 24)]
    assert numbers == sorted(numbers)
    assert numbers[0] == 1
    assert numbers[1] < numbers[-1]
    assert resolve_slots(settings(memory_limit_mib=1500, cpus_per_worker=64), "embedded-base", 64 * GIB) < 4


def test_what_makes_an_identity_dearer() -> None:
    plain = identity_bytes(settings(), "embedded-base")
    assert identity_bytes(settings(batch_size=8), "embedded-base") > 1.8 * plain
    assert identity_bytes(settings(prior_weight=1.0), "embedded-base") > 1.8 * plain
    assert identity_bytes(settings(precision="float32"), "embedded-base") > 1.8 * plain
    assert identity_bytes(settings(), "facechain-base-film") > 16 * plain
    assert identity_bytes(settings(resolution=128), "embedded-base") == plain  # its own
    assert identity_bytes(settings(resolution=256), "embedded-base") > 3 * plain


def test_every_base_of_a_suite_has_its_shape() -> None:
    assert set(SUITE_BASE.values()) == set(SHAPES)
