"""Packed training equals training alone, and nothing ties neighbours together."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig

from studiolo.errors import DeviceMemoryError, SettingsError, TrainingError, WeightsError
from studiolo.generation.tiny import tiny_base
from studiolo.settings import FaceLoraSettings
from studiolo.training import learner as learner_module
from studiolo.training.cache import TrainingPhoto
from studiolo.training.face_lora import read_factors
from studiolo.training.layout import Layout
from studiolo.training.learner import Learner
from studiolo.training.losses import training_losses
from studiolo.training.pack import Pack, target_layers
from tests.training.alone import train_alone

SETTINGS = FaceLoraSettings(
    rank=4, alpha=4.0, steps=6, batch_size=2, views_per_photo=1, learning_rate=5e-3, precision="float32"
)
LEAST_MOVE = 1e-3
TOLERANCE = 5e-4
"""Kernels choose their blocking by the batch, and so the last digits: up to 1.9e-4 of the move was seen on an AMD EPYC,
less on a Xeon. The faults that tests below bring in are far above it."""

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base() -> StableDiffusionPipeline:
    """A tiny base that minds what its attention says: at random weights all its scores are about equal."""
    pipeline = tiny_base()
    for name, weight in pipeline.unet.named_parameters():
        if name.endswith(("to_q.weight", "to_k.weight")):
            weight.mul_(4)
    return pipeline


def photos(seed: int, count: int = 1) -> list[TrainingPhoto]:
    """Pictures of one of many identities."""
    pictures = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
        mask = np.zeros((256, 256), np.float32)
        mask[64:192, 64:192] = 1
        pictures.append(TrainingPhoto(coarse.repeat(32, 0).repeat(32, 1), mask, "a handsome man, smile"))
    return pictures


@torch.no_grad()
def learner_of(pack: Pack, index: int, settings: FaceLoraSettings | None = None) -> Learner:
    """Person `index`, on the way already: while B is zero A stands still."""
    learner = pack.learner(f"person {index}", photos(index, 1 + index % 3), 0)
    if settings is not None:
        learner.settings = settings
    generator = torch.Generator().manual_seed(index)
    for _, up_OR in learner.factors.values():
        up_OR += 0.3 * torch.randn(up_OR.shape, generator=generator)
    return learner


def weights(learner: Learner) -> Weights:
    """Copies of the factors by name."""
    pairs = {name: dict(zip("AB", pair, strict=True)) for name, pair in learner.factors.items()}
    return {f"{name}.{side}": leaf.detach().clone() for name, pair in pairs.items() for side, leaf in pair.items()}


def train(pack: Pack, queue: Iterable[Learner]) -> list[Learner]:
    """Train all; in the order in which they were finished."""
    waiting, finished = list(queue), []

    def take(free: int) -> list[Learner]:
        return [waiting.pop(0) for _ in range(min(free, len(waiting)))]

    pack.run(take, finished.append, lambda: None)
    return finished


@pytest.fixture
def sgd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain gradient steps: AdamW's, whose size hardly depends on the gradient's, would blow up float noise."""

    def optimiser(masters: torch.nn.Parameter, settings: FaceLoraSettings) -> torch.optim.Optimizer:
        return torch.optim.SGD([masters], lr=settings.learning_rate)

    monkeypatch.setattr(learner_module, "new_optimiser", optimiser)


def require_equal(starts: list[Weights], alone: list[Weights], packed: list[Weights]) -> None:
    """Every tensor has moved, and packed is alone within `TOLERANCE` of the move; else `AssertionError`."""
    for start, one, other in zip(starts, alone, packed, strict=True):
        for name, before in start.items():
            moved = (one[name] - before).abs().max().item()
            assert moved >= LEAST_MOVE, f"{name} moved by {moved}"
            apart = (other[name] - one[name]).abs().max().item()
            assert apart <= TOLERANCE * moved, f"{name}: {apart} of {moved} apart"


def compare(
    base: StableDiffusionPipeline,
    slots: int,
    count: int,
    settings: FaceLoraSettings,
    kind: type[Pack] = Pack,
    tie: Callable[[list[Learner]], None] = lambda _: None,
) -> None:
    """Train `count` identities of different budgets in `slots` slots and alone; `AssertionError` unless equal.

    `kind` and `tie` are for faults: another pack, something done to its learners.
    """
    budgets = [settings.model_copy(update={"steps": settings.steps + index % 3}) for index in range(count)]
    single, pack = Pack(base, settings, 1), kind(base, settings, slots)
    alone = [learner_of(single, index, budget) for index, budget in enumerate(budgets)]
    starts = [weights(learner) for learner in alone]
    for learner in alone:
        train(single, [learner])
    packed = [learner_of(pack, index, budget) for index, budget in enumerate(budgets)]
    tie(packed)
    assert {len(learner.losses) for learner in train(pack, packed)} == {budget.steps for budget in budgets}
    require_equal(starts, [weights(learner) for learner in alone], [weights(learner) for learner in packed])


SGD = SETTINGS.model_copy(update={"learning_rate": 5.0, "gradient_clip": 1e9, "steps": 2})
CLIPPED = SGD.model_copy(update={"learning_rate": 10.0, "gradient_clip": 0.08})


@pytest.mark.usefixtures("sgd")
@pytest.mark.parametrize(("slots", "count"), [(1, 2), (4, 7), (16, 16)])
def test_packed_equals_alone_through_joins_and_leaves(base: StableDiffusionPipeline, slots: int, count: int) -> None:
    compare(base, slots, count, SGD)


@pytest.mark.usefixtures("sgd")
@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 96, "learning_rate": 7.5},
        {"resolution": 40, "learning_rate": 7.5},
        {"schedule": "linear", "warmup_steps": 1, "learning_rate": 7.5},
        {"schedule": "constant", "learning_rate": 3.0},
    ],
)
def test_packed_equals_alone_at_other_sizes_and_schedules(
    base: StableDiffusionPipeline, change: dict[str, object]
) -> None:
    compare(base, 4, 5, SGD.model_copy(update=change))


@pytest.mark.usefixtures("sgd")
def test_each_gradient_is_clipped_by_its_own_length(base: StableDiffusionPipeline) -> None:
    compare(base, 4, 4, CLIPPED)


class Swapped(Pack):
    """Gives two slots one another's weights."""

    def _give(self) -> None:
        self.slots[:2] = self.slots[1::-1]
        super()._give()
        self.slots[:2] = self.slots[1::-1]


@pytest.mark.usefixtures("sgd")
def test_a_swapped_index_is_found(base: StableDiffusionPipeline) -> None:
    with pytest.raises(AssertionError, match="apart"):
        compare(base, 4, 4, SGD, Swapped)


@pytest.mark.usefixtures("sgd")
def test_shared_noise_is_found(base: StableDiffusionPipeline) -> None:
    def tie(learners: list[Learner]) -> None:
        for learner in learners:
            learner._generator = learners[0]._generator

    with pytest.raises(AssertionError, match="apart"):
        compare(base, 4, 4, SGD, tie=tie)


@pytest.mark.usefixtures("sgd")
def test_a_shared_clip_is_found(base: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    own = learner_module.clip_gradient
    together: list[torch.nn.Parameter] = []

    def tie(learners: list[Learner]) -> None:
        together.extend(learner.masters for learner in learners)

    def shared(parameters: list[torch.nn.Parameter], most: float) -> float:
        length = own(parameters, 1e9)
        whole = torch.stack([master.grad.norm() for master in together]).norm().item() if together else length
        for parameter in parameters:
            parameter.grad.mul_(min(1.0, most / whole))
        return length

    monkeypatch.setattr(learner_module, "clip_gradient", shared)
    with pytest.raises(AssertionError, match="apart"):
        compare(base, 4, 4, CLIPPED, tie=tie)


@pytest.mark.usefixtures("sgd")
def test_a_training_that_hardly_moves_proves_nothing(base: StableDiffusionPipeline) -> None:
    with pytest.raises(AssertionError, match="moved by"):
        compare(base, 2, 2, SGD.model_copy(update={"learning_rate": 1e-3}))


def test_gradients_are_those_of_peft(base: StableDiffusionPipeline) -> None:
    pack = Pack(base, SETTINGS, 1)
    learner = learner_of(pack, 0)
    learner.update = lambda loss: None  # type: ignore[method-assign]
    pack.slots, state = [learner], learner._generator.get_state()
    pack.step()
    unet = tiny_base().unet
    unet.load_state_dict(base.unet.state_dict())
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=list(SETTINGS.targets)))
    parameters = dict(unet.named_parameters())
    for name, (down, up) in learner.factors.items():
        for side, leaf in (("A", down), ("B", up)):
            parameters[f"{name}.lora_{side}.default.weight"].data.copy_(leaf.detach())
    learner._generator.set_state(state)
    draw = learner.draw()
    training_losses(
        unet,
        base.scheduler,
        draw.latents_BCHW,
        draw.noise_BCHW,
        draw.timesteps_B,
        draw.prompts_BLD,
        min_snr_gamma=SETTINGS.min_snr_gamma,
        mask_BHW=draw.mask_BHW,
    ).mean().backward()
    gradients = Layout(pack.layers, SETTINGS.rank).factors(learner.masters.grad)
    for name, pair in gradients.items():
        for side, ours in zip("AB", pair, strict=True):
            theirs = parameters[f"{name}.lora_{side}.default.weight"].grad
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6 * float(theirs.abs().max()) + 1e-9)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bytes_depend_neither_on_the_slot_nor_on_the_neighbours(base: StableDiffusionPipeline, precision: str) -> None:
    settings = SETTINGS.model_copy(update={"precision": precision})
    pack = Pack(base, settings, 4)
    company = [learner_of(pack, index) for index in (0, 1, 2, 3)]
    train(pack, company)
    lonely = learner_of(pack, 2)
    train(pack, [lonely])
    moved = learner_of(pack, 2)
    short = settings.model_copy(update={"steps": 2})
    train(pack, [learner_of(pack, 4, short), learner_of(pack, 5), learner_of(pack, 6), learner_of(pack, 7), moved])
    assert all(torch.equal(weights(company[2])[name], weight) for name, weight in weights(lonely).items())
    assert all(torch.equal(weights(company[2])[name], weight) for name, weight in weights(moved).items())
    assert company[2].losses == lonely.losses == moved.losses


def test_one_that_diverges_fails_alone(base: StableDiffusionPipeline) -> None:
    pack = Pack(base, SETTINGS, 2)
    calm = learner_of(pack, 0)
    train(pack, [calm])
    wild, neighbour = learner_of(pack, 1), learner_of(pack, 0)
    with torch.no_grad():
        wild.factors["mid_block.attentions.0.transformer_blocks.0.ff.net.2"][1].fill_(float("inf"))
    first, _ = train(pack, [wild, neighbour])
    assert first is wild
    assert isinstance(wild.error, TrainingError)
    assert "'person 1': got a loss of nan" in str(wild.error)
    assert neighbour.error is None
    assert all(torch.equal(weights(calm)[name], weight) for name, weight in weights(neighbour).items())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_the_accelerator_does_not_hold_names_what_to_lower(
    base: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    settings = SETTINGS.model_copy(update={"gradient_checkpointing": checkpointing})
    pack = Pack(base, settings, 3)
    asked = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB"

    def forward(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError(f"{asked}.\n Of the allocated memory 70.1 GiB is allocated by PyTorch.")

    monkeypatch.setattr(pack._unet, "forward", forward)
    told = f"got '{asked}.' with 3 slots of 2 rows .* lower face_lora.slots or face_lora.batch_size"
    with pytest.raises(DeviceMemoryError, match=told) as error:
        train(pack, [learner_of(pack, 0)])
    assert ("gradient_checkpointing" in str(error.value)) is not checkpointing
    assert isinstance(error.value.__cause__, torch.OutOfMemoryError)


def test_a_state_goes_on_in_another_slot_beside_others(base: StableDiffusionPipeline) -> None:
    pack = Pack(base, SETTINGS, 3)
    whole = learner_of(pack, 0)
    train(pack, [whole])
    broken = learner_of(pack, 0)
    pack.slots[:] = [broken, learner_of(pack, 1), None]
    for _ in range(3):
        pack.step()
    pack.slots[:] = [None] * 3
    again = learner_of(pack, 0)
    again.load_state_dict(broken.state_dict())
    train(pack, [learner_of(pack, 2), learner_of(pack, 3), again])
    assert all(torch.equal(weights(whole)[name], weight) for name, weight in weights(again).items())
    assert again.losses == whole.losses


def test_a_slot_is_refilled_at_once_and_nothing_else_waits(base: StableDiffusionPipeline) -> None:
    pack = Pack(base, SETTINGS, 2)
    long, short, next_one = (learner_of(pack, index, budget(steps)) for index, steps in enumerate((6, 2, 3)))
    at_work: list[set[str]] = []
    waiting, finished = [long, short, next_one], []
    pack.run(
        lambda free: [waiting.pop(0) for _ in range(min(free, len(waiting)))],
        finished.append,
        lambda: at_work.append({learner.identity_id for learner in pack.slots if learner}),
    )
    assert finished == [short, next_one, long]
    assert at_work == [{"person 0", "person 1"}] * 2 + [{"person 0", "person 2"}] * 3 + [{"person 0"}]


def test_who_comes_later_joins_beside_who_is_there_and_the_withdrawn_leave(base: StableDiffusionPipeline) -> None:
    pack = Pack(base, SETTINGS, 2)
    unwanted, late = (learner_of(pack, index, budget(6)) for index in range(2))
    waiting, finished, at_work = [unwanted], list[Learner](), list[set[str]]()

    def tick() -> None:
        at_work.append({learner.identity_id for learner in pack.slots if learner})
        if len(at_work) == 2:
            waiting.append(late)
        unwanted.withdrawn = len(at_work) == 4

    pack.run(lambda free: [waiting.pop(0) for _ in range(min(free, len(waiting)))], finished.append, tick, lambda: True)
    assert at_work == [{"person 0"}] * 2 + [{"person 0", "person 1"}] * 2 + [{"person 1"}] * 4
    assert (finished, len(unwanted.losses), len(late.losses)) == ([unwanted, late], 4, 6)


def budget(steps: int) -> FaceLoraSettings:
    return SETTINGS.model_copy(update={"steps": steps})


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (("to_q", "conv1"), r"got 'conv1', which is .*conv1 \(\w*Conv2d\w*\), wanted linear layers and 1x1"),
        (("too_q",), "no layer of the base is called 'too_q'; did you mean 'to_q'"),
    ],
)
def test_a_target_without_a_matrix_is_a_clear_error(
    base: StableDiffusionPipeline, targets: tuple[str, ...], told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        Pack(base, SETTINGS.model_copy(update={"targets": targets}), 1)


def test_1x1_convolutions_are_trained_too(base: StableDiffusionPipeline) -> None:
    settings = SETTINGS.model_copy(update={"targets": ("proj_in", "conv_shortcut")})
    pack = Pack(base, settings, 2)
    assert any(name.endswith("conv_shortcut") for name in pack.layers)
    learner = pack.learner("anna", photos(0), 0)
    before = weights(learner)
    train(pack, [learner])
    assert all(not torch.equal(before[name], weight) for name, weight in weights(learner).items())
    assert target_layers(base.unet, ("proj_in",)).keys() < pack.layers.keys()


def trained(base: StableDiffusionPipeline, **changes: object) -> Weights:
    """What person 0 learns in three steps with other settings."""
    settings = SETTINGS.model_copy(update={"steps": 3, **changes})
    pack = Pack(base, settings, 2)
    learner = pack.learner("person 0", photos(0), 0, "a woman")
    train(pack, [learner])
    return weights(learner)


@pytest.mark.parametrize(
    "change",
    [
        {"noise_offset": 0.1},
        {"precision": "bfloat16"},
        {"prior_weight": 1.0},
        {"resolution": 96},
        {"schedule": "constant"},
        {"warmup_steps": 2},
    ],
)
def test_settings_act(base: StableDiffusionPipeline, change: dict[str, object]) -> None:
    plain, changed = trained(base), trained(base, **change)
    assert all(not torch.equal(plain[name], weight) for name, weight in changed.items() if name.endswith(".B"))


def test_gradient_checkpointing_changes_no_byte(base: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, again = trained(base), []
    forward = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", lambda *a, **k: again.append(1) or forward(*a, **k))
    kept = trained(base, gradient_checkpointing=True)
    assert again, "nothing was computed a second time"
    assert all(torch.equal(plain[name], weight) for name, weight in kept.items())


def test_a_training_starts_from_a_face_lora(base: StableDiffusionPipeline, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"alpha": 8.0})
    common = train_alone(base, photos(5), settings, identity_id="all")
    path = common.save(tmp_path)
    started = Pack(base, SETTINGS.model_copy(update={"start": str(path)}), 1).learner("person 0", photos(0), 0)
    file = read_factors(path)
    assert any(torch.count_nonzero(up) for _, up in file.values())
    for name, (down, up) in started.factors.items():
        assert torch.equal(down.detach(), file[name][0])
        torch.testing.assert_close(up.detach() * (4.0 / 4), file[name][1])  # whatever the alphas, the same update
    with pytest.raises(WeightsError, match=r"got .* of \(.*, 4\) \(outputs, inputs, rank\), wanted \(.*, 8\)"):
        Pack(base, SETTINGS.model_copy(update={"start": str(path), "rank": 8}), 1)


@pytest.mark.parametrize("resolution", [None, 64, 96])
def test_pictures_have_the_resolution_asked_for(base: StableDiffusionPipeline, resolution: int | None) -> None:
    settings = SETTINGS.model_copy(update={"resolution": resolution, "prior_weight": 1.0, "prior_images": 1})
    learner = Pack(base, settings, 1).learner("anna", photos(0), 0, "a woman")
    side = (resolution or 64) // 8
    assert learner._prior is not None
    for cache in (learner._cache, learner._prior):
        assert cache.mean_NCHW.shape[2:] == cache.mask_NHW.shape[1:] == (side, side)


@pytest.mark.parametrize("schedule", get_args(FaceLoraSettings.model_fields["schedule"].annotation))
def test_the_rate_of_each_identity_follows_its_own_schedule(base: StableDiffusionPipeline, schedule: str) -> None:
    """Of steps 1 to 8 after 2 of warm-up: the rates that the schedules' definitions give."""
    settings = SETTINGS.model_copy(update={"schedule": schedule, "warmup_steps": 2, "restarts": 2, "steps": 8})
    pack = Pack(base, settings, 2)
    late, early = (pack.learner(name, photos(0), 0) for name in ("late", "early"))
    rates: list[float] = []
    pack.slots = [None, early]
    pack.step()
    pack.slots = [late, early]
    for _ in range(8):
        rates.append(late._optimiser.param_groups[0]["lr"] / settings.learning_rate)
        pack.step()
    progress = np.arange(6) / 6
    after = {
        "constant": np.ones(6),
        "constant_with_warmup": np.ones(6),
        "linear": 1 - progress,
        "cosine": (1 + np.cos(np.pi * progress)) / 2,
        "cosine_with_restarts": (1 + np.cos(np.pi * (2 * progress % 1))) / 2,
    }[schedule]
    rising = [1, 1] if schedule == "constant" else [0, 0.5]
    np.testing.assert_allclose(rates, [*rising, *after], atol=1e-6)


def test_the_class_is_learned_beside_the_identity_by_its_weight(base: StableDiffusionPipeline) -> None:
    settings = SETTINGS.model_copy(update={"prior_weight": 0.5, "prior_images": 3})
    learner = Pack(base, settings, 1).learner("person 0", photos(0), 0, "a woman")
    size = settings.batch_size
    draw = learner.draw()
    assert len(draw.latents_BCHW) == 2 * size
    losses_B = torch.arange(2.0 * size)
    assert learner.loss(losses_B) == losses_B[:size].mean() + 0.5 * losses_B[size:].mean()
    made = learner._prior
    assert made is not None
    assert len(made.mean_NCHW) == 3
    assert torch.equal(made.mean_NCHW, Pack(base, settings, 1).learner("b", photos(1), 1, "a woman")._prior.mean_NCHW)
