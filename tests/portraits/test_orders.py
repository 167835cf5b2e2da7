import pydantic
import pytest

from studiolo.portraits.orders import Order, order_seed, portrait_id, portrait_path, to_engine
from studiolo.portraits.styles import Style, load_style
from studiolo.settings import GenerationSettings

IDENTITY = {"trigger": "a mature woman", "common_tags": ["long hair"]}
ORDER = Order(identity_id="anna", style="studio", count=2, seed=5)


def key(
    order: Order = ORDER, style: Style | None = None, identity: str = "i", lora: str = "l", weights: str = "w"
) -> str:
    return order.key(style or load_style("studio"), identity, lora, {"base": weights})


def test_key_depends_on_everything_that_decides_the_bytes():
    changed = [
        key(order=ORDER.model_copy(update={"identity_id": "berta"})),
        key(order=ORDER.model_copy(update={"count": 3})),
        key(order=ORDER.model_copy(update={"seed": 6})),
        key(order=ORDER.model_copy(update={"unsafe_above": 0.3})),
        key(order=ORDER.model_copy(update={"generation": GenerationSettings(steps=31)})),
        key(style=load_style("plain")),
        key(style=load_style("studio").model_copy(update={"negative_prompt": "hat"})),
        key(identity="j"),
        key(lora="m"),
        key(weights="x"),
    ]
    assert len({key(), *changed}) == len(changed) + 1


def test_key_does_not_depend_on_how_work_is_spread():
    spread = ORDER.model_copy(update={"generation": GenerationSettings(actors=7, cpus_per_actor=0.5)})
    assert key(order=spread) == key()


def test_order_is_frozen_and_checked():
    with pytest.raises(pydantic.ValidationError):
        ORDER.count = 3  # type: ignore[misc]
    with pytest.raises(pydantic.ValidationError):
        Order(identity_id="anna", style="studio", count=0)


def test_engine_gets_prompt_and_both_weights():
    style = load_style("studio").model_copy(update={"multiplier_style": 0.5, "multiplier_human": 0.9})
    order = ORDER.model_copy(update={"generation": GenerationSettings(face_weight=0.8, style_weight=0.4, steps=12)})
    fields = to_engine(order, style, IDENTITY, face_lora_path="f", style_lora_path="s", count=6, first_index=4)
    assert fields["prompt"] == "a mature woman, long hair, studio backdrop, grey background"
    assert fields["face_lora"] == ("f", pytest.approx(0.72))
    assert fields["style_lora"] == ("s", pytest.approx(0.2))
    assert (fields["seed"], fields["steps"], fields["count"], fields["first_index"]) == (5, 12, 6, 4)


def test_without_files_there_are_no_loras_and_the_ordered_count():
    fields = to_engine(ORDER, load_style("studio"), {"trigger": "a person", "common_tags": None})
    assert (fields["face_lora"], fields["style_lora"], fields["count"]) == (None, None, 2)


def test_seeds_differ_between_styles_and_jobs_and_fit():
    seeds = {order_seed(job, style) for job in range(20) for style in ("studio", "plain")}
    assert len(seeds) == 40
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert order_seed(0, "studio") == order_seed(0, "studio")


def test_paths_and_ids_tell_candidates_apart():
    named = [
        ("anna", "studio", 1),
        ("anna", "studio", 2),
        ("anna", "plain", 1),
        ("Anna", "studio", 1),
        ("../x", "a/b", 1),
    ]
    assert len({portrait_path(*name) for name in named}) == len({portrait_id(*name) for name in named}) == len(named)
    assert all(len(portrait_path(*name).split("/")) == 5 and ".." not in portrait_path(*name) for name in named)
