from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from numpy.typing import NDArray

from studiolo.errors import SettingsError
from studiolo.generation.engine import Control, Engine, Order, Portrait, Step, candidate_seed
from studiolo.generation.tiny import tiny_base
from tests.generation.conftest import LoraFile


def order(**changes: Any) -> Order:
    fields = {"seed": 7, "identity_id": "anna", "prompt": "a portrait", "negative_prompt": "blurred", "steps": 3}
    return Order(**{**fields, **changes})


def pictures(engine: Engine, wanted: Order) -> dict[int, NDArray[np.uint8]]:
    return {event.index: event.rgb_u8 for event in engine.submit(wanted) if isinstance(event, Portrait)}


@pytest.fixture(scope="module")
def engine(base: StableDiffusionPipeline) -> Engine:
    return Engine(base, slots=4)


@pytest.fixture(scope="module")
def six(engine: Engine) -> dict[int, NDArray[np.uint8]]:
    return pictures(engine, order(count=6))


def test_portraits_are_different_pictures_of_the_bases_size(six: dict[int, NDArray[np.uint8]]) -> None:
    assert list(six) == [0, 1, 2, 3, 4, 5]
    assert all(image.shape == (64, 64, 3) and image.dtype == np.uint8 and image.std() > 5 for image in six.values())
    assert len({image.tobytes() for image in six.values()}) == 6


def test_same_order_same_bytes(engine: Engine, six: dict[int, NDArray[np.uint8]]) -> None:
    again = pictures(engine, order(count=6))
    assert all(np.array_equal(again[index], six[index]) for index in six)


@pytest.mark.parametrize(("first_index", "count"), [(0, 1), (0, 4), (1, 2), (3, 1), (3, 3), (5, 1)])
def test_bytes_do_not_depend_on_count_or_first_index(
    engine: Engine, six: dict[int, NDArray[np.uint8]], first_index: int, count: int
) -> None:
    found = pictures(engine, order(count=count, first_index=first_index))
    assert list(found) == list(range(first_index, first_index + count))
    assert all(np.array_equal(image, six[index]) for index, image in found.items())


def test_without_loras_it_is_the_plain_pipeline(
    base: StableDiffusionPipeline, engine: Engine, six: dict[int, NDArray[np.uint8]]
) -> None:
    seeds = [candidate_seed(7, "anna", index) for index in range(4)]
    plain = base(
        ["a portrait"] * 4,
        negative_prompt=["blurred"] * 4,
        num_inference_steps=3,
        guidance_scale=2.0,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="np",
    ).images
    assert all(np.abs(np.rint(plain[index] * 255) - six[index]).mean() <= 0.1 for index in range(4))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 8},
        {"identity_id": "ben"},
        {"prompt": "a studio photo"},
        {"negative_prompt": ""},
        {"steps": 4},
        {"guidance_scale": 3.0},
    ],
)
def test_each_word_of_the_order_counts(
    engine: Engine, six: dict[int, NDArray[np.uint8]], changes: dict[str, Any]
) -> None:
    assert not np.array_equal(pictures(engine, order(**changes))[0], six[0])


def test_the_size_can_be_chosen(engine: Engine) -> None:
    assert pictures(engine, order(size_px=48))[0].shape == (48, 48, 3)


def test_steps_come_as_they_happen(engine: Engine) -> None:
    events = list(engine.submit(order(count=6)))
    kinds = [type(event) for event in events]
    assert kinds == [Step] * 3 + [Portrait] * 4 + [Step] * 3 + [Portrait] * 2
    steps = [event for event in events if isinstance(event, Step)]
    assert [(step.done, step.total) for step in steps] == [(done, 18) for done in (4, 8, 12, 14, 16, 18)]


def test_previews_are_the_latents_on_their_way(engine: Engine) -> None:
    steps = [event for event in engine.submit(order(count=2, previews=True)) if isinstance(event, Step)]
    assert [sorted(step.latents) for step in steps] == [[0, 1]] * 3
    assert all(latents.shape == (8, 8, 8) for step in steps for latents in step.latents.values())
    assert not torch.equal(steps[0].latents[0], steps[1].latents[0])


def test_seeds() -> None:
    seeds = {
        candidate_seed(seed, identity, index)
        for seed in (0, 1, 2**63 - 1)
        for identity in ("anna", "ben", "", "anna\0" + "1")
        for index in range(50)
    }
    assert len(seeds) == 3 * 4 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_portraits_carry_their_seed(engine: Engine) -> None:
    made = [event for event in engine.submit(order(count=2, first_index=3)) if isinstance(event, Portrait)]
    assert [(portrait.index, portrait.seed) for portrait in made] == [
        (index, candidate_seed(7, "anna", index)) for index in (3, 4)
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "got 0 candidates"),
        ({"steps": 0}, "in 0 steps"),
        ({"steps": 1001}, "at most the base's 1000"),
        ({"steps": 1000}, "1000 steps, wanted fewer"),
        ({"steps": 1000, "scheduler": "dpmpp_2m"}, "1000 steps, wanted fewer"),
        ({"steps": 1000, "scheduler": "unipc"}, "1000 steps, wanted fewer"),
        ({"first_index": -1}, "from index -1"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**63}, "seed < 2"),
        ({"guidance_scale": 0.5}, "guidance scale of 0.5"),
        ({"guidance_scale": float("nan")}, "guidance scale of nan"),
        ({"face_lora": ("a.safetensors", float("inf"))}, "finite numbers"),
        ({"size_px": 50}, "multiple of 8"),
        ({"size_px": 0}, "multiple of 8"),
        ({"scheduler": "eular"}, "did you mean 'euler'"),
        ({"strength": 0.5}, "without latents"),
        ({"latents": torch.zeros(8, 8, 8), "strength": 0.1}, "1 step or more"),
        ({"latents": torch.zeros(4, 8, 8)}, r"wanted \(8, 8, 8\)"),
        ({"latents": torch.zeros(8, 8, 8), "mask": np.ones((8, 8), np.bool_)}, r"wanted \(64, 64\)"),
        ({"controls": {"pose": Control(np.zeros((64, 64, 3), np.uint8))}}, "no ControlNet is called 'pose'"),
        ({"deadline_s": float("nan")}, "deadline of nan"),
        ({"eta": float("nan")}, "eta of nan"),
        ({"eta": 1.5}, "eta of 1.5"),
        ({"prompt": "a \ud800"}, r"prompt 'a \\ud800' with half a letter"),
        ({"negative_prompt": "\udfff"}, "wanted Unicode text"),
    ],
)
def test_orders_that_cannot_be_made_fail_before_any_work(engine: Engine, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        engine.submit(order(**changes))


def test_an_engine_needs_a_slot(base: StableDiffusionPipeline) -> None:
    with pytest.raises(SettingsError, match="0 slots"):
        Engine(base, slots=0)


def test_a_b_a(engine: Engine, six: dict[int, NDArray[np.uint8]], lora_file: LoraFile) -> None:
    anna, ben = (str(lora_file("anna", 1)), 1.0), (str(lora_file("ben", 2)), 1.0)
    style = (str(lora_file("style", 3)), 0.5)
    first = pictures(engine, order(face_lora=anna))[0]
    other = pictures(engine, order(face_lora=ben, style_lora=style))[0]
    again = pictures(engine, order(face_lora=anna))[0]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, six[0])
    assert np.array_equal(pictures(engine, order())[0], six[0])


def test_a_closed_order_leaves_no_lora(engine: Engine, six: dict[int, NDArray[np.uint8]], lora_file: LoraFile) -> None:
    events = engine.submit(order(face_lora=(str(lora_file("anna", 1)), 1.0)))
    next(events)
    events.close()
    assert np.array_equal(pictures(engine, order())[0], six[0])


def test_ancestral_sampling_starts_from_pure_noise() -> None:
    base = tiny_base()
    base.scheduler = DDIMScheduler.from_config(
        base.scheduler.config,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    for seed in range(4):
        order = Order(seed=seed, identity_id="anna", prompt="a woman", steps=3, eta=1.0, count=2)
        for event in Engine(base, slots=2).submit(order):
            if isinstance(event, Portrait):
                assert event.rgb_u8.std() > 1
