"""Many orders in one lane: each as if it were alone, and no order sees another's LoRA."""

import itertools
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from studiolo.errors import SettingsError, UsageError, WeightsError
from studiolo.generation.batching import Batcher
from studiolo.generation.engine import Engine, Events, Order, Portrait, Step
from studiolo.generation.lane import Lane
from studiolo.generation.prompts import PromptEncoder
from studiolo.generation.slot import Slot
from studiolo.generation.tiny import tiny_base
from tests.generation.conftest import LoraFile

Pictures = dict[int, NDArray[np.uint8]]


def order(identity_id: str = "anna", **changes: Any) -> Order:
    fields = {"seed": 7, "prompt": "a portrait", "negative_prompt": "blurred", "steps": 4}
    return Order(identity_id=identity_id, **{**fields, **changes})


def pictures(events: Events) -> Pictures:
    return {event.index: event.rgb_u8 for event in events if isinstance(event, Portrait)}


def equal(one: Pictures, other: Pictures) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[index], other[index]) for index in one)


def threads() -> int:
    return sum(thread.name == "engine" for thread in threading.enumerate())


@pytest.fixture(scope="module")
def engine(base: StableDiffusionPipeline) -> Engine:
    return Engine(base, slots=4)


@pytest.fixture
def mixed_orders(lora_file: LoraFile) -> list[Order]:
    """Of everything another: LoRAs, prompts, steps, schedulers, guidance, sizes, pictures to begin from."""
    face, style = (str(lora_file("face", 1)), 1.0), (str(lora_file("style", 2, targets=("to_k", "proj_in"))), 0.5)
    picture = torch.randn(8, 8, 8, generator=torch.Generator().manual_seed(0))
    return [
        order("anna", face_lora=face, count=3),
        order("ben", face_lora=(str(lora_file("ben", 3)), 1.0), style_lora=style, steps=6, scheduler="euler_ancestral"),
        order("cleo", prompt="a studio photo", guidance_scale=5.0, steps=2, count=2, eta=1.0),
        order("dan", style_lora=style, scheduler="unipc", size_px=48),
        order("eve", latents=picture, strength=0.5, face_lora=face, scheduler="dpmpp_2m", steps=5),
        order("fay", latents=picture, mask=np.tri(64, dtype=np.bool_), scheduler="euler"),
    ]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_crowd_changes_no_byte(base: StableDiffusionPipeline, mixed_orders: list[Order], precision: Any) -> None:
    engine = Engine(base, slots=4, precision=precision)
    alone = [pictures(engine.submit(one)) for one in mixed_orders]
    for orders in (mixed_orders, mixed_orders[::-1]):
        events = [engine.submit(one) for one in orders]
        crowded = dict(zip((one.identity_id for one in orders), map(pictures, events), strict=True))
        for one, expected in zip(mixed_orders, alone, strict=True):
            assert equal(crowded[one.identity_id], expected), one.identity_id
    assert len({image.tobytes() for made in alone for image in made.values()}) == sum(map(len, alone))


def test_orders_from_many_threads(engine: Engine, mixed_orders: list[Order]) -> None:
    alone = [pictures(engine.submit(one)) for one in mixed_orders]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda one: pictures(engine.submit(one)), mixed_orders * 2))
    assert all(equal(one, other) for one, other in zip(found, alone * 2, strict=True))


def test_orders_are_stepped_together(engine: Engine) -> None:
    """The second joins while the first is on its way, and is done before it."""
    first = engine.submit(order("anna", steps=400))
    next(first)
    assert len(pictures(engine.submit(order("ben", steps=2)))) == 1
    last = next(event for event in iter(lambda: next(first), None))
    assert isinstance(last, Step)
    first.close()


def test_what_was_resumed_is_equal(engine: Engine) -> None:
    whole = pictures(engine.submit(order(count=6)))
    events = engine.submit(order(count=6))
    before = {event.index: event.rgb_u8 for event in itertools.islice(events, 7) if isinstance(event, Portrait)}
    events.close()
    assert 0 < len(before) < 6
    after = pictures(engine.submit(order(count=6 - len(before), first_index=len(before))))
    assert equal(before | after, whole)


def test_a_b_a_in_one_slot(base: StableDiffusionPipeline, lora_file: LoraFile) -> None:
    one_slot = Engine(base, slots=1)
    anna, ben = (str(lora_file("anna", 1)), 1.0), (str(lora_file("ben", 2, targets=("to_q", "to_out.0"))), 1.0)
    orders = [order(face_lora=lora) for lora in (anna, ben, anna, None)]
    first, other, again, plain = (pictures(events) for events in [one_slot.submit(one) for one in orders])
    assert equal(first, again)
    assert not equal(first, other)
    assert equal(plain, pictures(Engine(base, slots=1).submit(order())))
    assert not equal(plain, first)


def test_a_closed_order_leaves_no_lora(engine: Engine, base: StableDiffusionPipeline, lora_file: LoraFile) -> None:
    plain = pictures(engine.submit(order()))
    events = engine.submit(order(face_lora=(str(lora_file("anna", 1)), 1.0), steps=400))
    next(events)
    events.close()
    assert equal(pictures(engine.submit(order())), plain)
    assert not any(layer._forward_hooks for layer in base.unet.modules())


def test_with_loras_as_diffusers(base: StableDiffusionPipeline, lora_file: LoraFile) -> None:
    """Two identities beside each other, against plain diffusers with one after the other loaded."""
    files = {"anna": lora_file("anna", 1, targets=("to_q", "to_v")), "ben": lora_file("ben", 2, targets=("to_k",))}
    engine, plain = Engine(base, slots=2), tiny_base()
    events = {name: engine.submit(order(name, face_lora=(str(path), 0.7))) for name, path in files.items()}
    for name, path in files.items():
        made = next(event for event in events[name] if isinstance(event, Portrait))
        plain.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
        plain.set_adapters([name], [0.7])
        wanted = plain(
            "a portrait",
            negative_prompt="blurred",
            num_inference_steps=4,
            guidance_scale=2.0,
            generator=torch.Generator().manual_seed(made.seed),
            output_type="np",
        ).images[0]
        plain.unload_lora_weights()
        assert np.abs(made.rgb_u8 - np.rint(wanted * 255)).mean() <= 0.1


def test_the_first_due_goes_first(base: StableDiffusionPipeline) -> None:
    """In another lane and in its own, it overtakes those that have more time."""
    engine, finished = Engine(base, slots=1), []
    small = order("soon, small", size_px=48, deadline_s=10)
    orders = [order("now", steps=60), order("later", steps=30), order("soon", steps=30, deadline_s=20), small]
    events = [engine.submit(orders[0])]
    next(events[0])
    events += [engine.submit(one) for one in orders[1:]]

    def wait(one: Order, its: Events) -> None:
        pictures(its)
        finished.append(one.identity_id)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(wait, orders, events))
    assert finished == ["soon, small", "now", "soon", "later"]


def test_closing_stops_the_work_and_leaves_no_thread(engine: Engine) -> None:
    events = engine.submit(order(steps=400))
    assert next(events) == Step(1, 400)
    events.close()
    assert threads() == 0
    assert list(events) == []
    events.close()


def test_a_consumer_that_goes_away_frees_its_slots(base: StableDiffusionPipeline) -> None:
    engine = Engine(base, slots=1)
    for event in engine.submit(order(steps=900)):
        assert isinstance(event, Step)
        break
    assert len(pictures(engine.submit(order(steps=2)))) == 1  # would wait for 899 steps


def test_a_consumer_that_does_not_iterate_holds_up_nobody(base: StableDiffusionPipeline) -> None:
    engine = Engine(base, slots=1)
    idle = engine.submit(order("idle", count=2))
    assert len(pictures(engine.submit(order("ben")))) == 1
    assert len(pictures(idle)) == 2


def test_closing_from_another_thread_ends_the_iteration(engine: Engine) -> None:
    events = engine.submit(order(steps=900))
    next(events)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(list, events)
        events.close()
        assert len(waiting.result(timeout=30)) < 899


def test_an_engine_that_is_closed_ends_its_orders(base: StableDiffusionPipeline) -> None:
    engine = Engine(base, slots=1)
    events = [engine.submit(order(name, steps=900)) for name in ("anna", "ben")]
    next(events[0])
    engine.close()
    for name, its in zip(("anna", "ben"), events, strict=True):
        with pytest.raises(UsageError, match=f"closed with an order of '{name}' inside"):
            list(its)
        assert list(its) == []
    with pytest.raises(UsageError, match="after it was closed"):
        engine.submit(order())
    engine.close()
    assert threads() == 0


def test_a_lora_that_does_not_fit_disturbs_nobody(engine: Engine, lora_file: LoraFile) -> None:
    alone = pictures(engine.submit(order()))
    events = engine.submit(order())
    spatial = lora_file("spatial", 1, targets=("conv1",))
    with pytest.raises(WeightsError, match=r"spatial\.safetensors"):
        engine.submit(order("ben", face_lora=(str(spatial), 1.0)))
    wide, wider = (str(lora_file("wide", 1, rank=34)), 1.0), (str(lora_file("wider", 2, rank=34)), 1.0)
    with pytest.raises(SettingsError, match="a rank of 68 together, wanted at most 64"):
        engine.submit(order("ben", face_lora=wide, style_lora=wider))
    assert equal(pictures(events), alone)


class Broken(RuntimeError):
    pass


def broken(*_: Any, **__: Any) -> Any:
    raise Broken("out of memory")


def test_an_order_that_cannot_join_fails_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, lora_file: LoraFile
) -> None:
    alone = pictures(engine.submit(order()))
    join = Lane.join

    def join_or_break(lane: Lane, place: int, slot: Slot) -> None:
        join(lane, place, slot)
        if slot.steps == 5:
            raise Broken("out of memory")

    monkeypatch.setattr(Lane, "join", join_or_break)
    lora = (str(lora_file("anna", 1)), 1.0)
    bad, good = engine.submit(order("ben", steps=5, count=6, face_lora=lora)), engine.submit(order(count=1))
    with pytest.raises(Broken):
        list(bad)
    assert equal(pictures(good), alone)


def test_a_step_that_raises_fails_those_in_it(base: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(base, slots=1)
    alone = pictures(engine.submit(order("ben")))
    step, calls = Lane.step, iter(range(100))

    def step_or_break(lane: Lane) -> Any:
        if next(calls) == 1:
            raise Broken("out of memory")
        return step(lane)

    monkeypatch.setattr(Lane, "step", step_or_break)
    first, second = engine.submit(order("anna")), engine.submit(order("ben"))
    with pytest.raises(Broken):
        list(first)
    assert equal(pictures(second), alone)  # it waited, and was made in a new lane


@pytest.mark.parametrize("method", ["step", "model_input"])
def test_a_scheduler_that_raises_fails_its_order_alone(
    base: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch, lora_file: LoraFile, method: str
) -> None:
    """Also the candidate of it that waits; those beside it lose no step, and its slot is free again."""
    engine = Engine(base, slots=4)
    alone = pictures(engine.submit(order("ben", steps=60, count=3)))
    own = getattr(Slot, method)

    def method_or_break(slot: Slot, *arguments: Any) -> Any:
        if slot.steps == 5 and slot.done == 2:
            raise Broken("not a number")
        return own(slot, *arguments)

    lane_step, free = Lane.step, []
    monkeypatch.setattr(Slot, method, method_or_break)
    monkeypatch.setattr(Lane, "step", lambda lane: free.append(len(lane.free)) or lane_step(lane))
    lora = (str(lora_file("anna", 1)), 1.0)
    good = engine.submit(order("ben", steps=60, count=3))
    next(good)
    bad = engine.submit(order("anna", steps=5, count=2, face_lora=lora))
    with pytest.raises(Broken):
        list(bad)
    assert equal(pictures(good), alone)
    assert (len(free), free.count(0)) == (60, 3)


@pytest.mark.parametrize("count", [1, 3])
def test_a_picture_that_cannot_be_decoded_fails_those_beside_it(
    base: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Also the order that has no candidate in a slot any more, and the one whose next candidates wait."""
    engine = Engine(base, slots=2)
    beside = engine.submit(order("ben", steps=900))
    next(beside)
    decode, failing = Batcher._decode, iter([True])

    def decode_or_break(batcher: Batcher, finished: Any) -> Any:
        return broken() if finished and next(failing, False) else decode(batcher, finished)

    monkeypatch.setattr(Batcher, "_decode", decode_or_break)
    bad = engine.submit(order("anna", count=count))
    for its in (bad, beside):
        with pytest.raises(Broken):
            list(its)
    assert len(pictures(engine.submit(order()))) == 1


def test_a_prompt_that_cannot_be_encoded_fails_its_order_alone(
    base: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(base, slots=2)
    alone = pictures(engine.submit(order(steps=50)))
    good = engine.submit(order(steps=50))
    next(good)
    monkeypatch.setattr(PromptEncoder, "_encode", broken)
    with pytest.raises(Broken):
        list(engine.submit(order("ben", prompt="a studio photo")))
    assert equal(pictures(good), alone)


def test_two_engines_on_one_base(base: StableDiffusionPipeline, lora_file: LoraFile) -> None:
    """They work at the same time, and neither sees the other's LoRAs."""
    one, other = Engine(base, slots=2), Engine(base, slots=3)
    lora = (str(lora_file("anna", 1)), 1.0)
    orders = (order(face_lora=lora, steps=30), order(steps=30))
    alone = [pictures(engine.submit(wanted)) for engine, wanted in zip((one, other), orders, strict=True)]
    events = [engine.submit(wanted) for engine, wanted in zip((one, other), orders, strict=True)]
    assert all(equal(pictures(its), expected) for its, expected in zip(events, alone, strict=True))


def test_a_thread_that_cannot_start_leaves_nothing_behind(
    base: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(base, slots=1)
    monkeypatch.setattr(threading.Thread, "start", broken)
    with pytest.raises(Broken):
        engine.submit(order("ben"))
    monkeypatch.undo()
    assert len(pictures(engine.submit(order()))) == 1


def test_a_fault_while_an_order_is_let_go_leaves_its_slot_free(
    base: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(base, slots=1)
    events = engine.submit(order(steps=900))
    next(events)
    monkeypatch.setattr(Batcher, "let_go", broken)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    events.close()
    monkeypatch.undo()
    assert len(pictures(engine.submit(order()))) == 1


def test_a_fault_of_the_engine_itself_hangs_nobody(
    base: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(base, slots=1)
    monkeypatch.setattr(Batcher, "turn", broken)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    events = [engine.submit(order("anna")), engine.submit(order("ben"))]
    for its in events:
        with pytest.raises(Broken):
            list(its)
        its.close()
    monkeypatch.undo()
    assert len(pictures(engine.submit(order()))) == 1


def test_python_ends_with_an_order_inside() -> None:
    script = (
        "from studiolo.generation.engine import Engine, Order\n"
        "from studiolo.generation.tiny import tiny_base\n"
        "events = Engine(tiny_base(), slots=1).submit(Order(1, 'anna', 'a man', steps=900, count=100))\n"
        "next(events)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
