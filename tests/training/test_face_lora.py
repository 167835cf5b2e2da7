import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors import safe_open

from studiolo.errors import TrainingError
from studiolo.generation.adapters import unet_sha256
from studiolo.generation.tiny import tiny_base
from studiolo.identities.artifacts import LORA_FILE
from studiolo.settings import FaceLoraSettings
from studiolo.storage.store import Store
from studiolo.training.cache import TrainingPhoto
from studiolo.training.checkpoints import UnitCheckpoint
from studiolo.training.face_lora import FaceLora
from studiolo.training.learner import Learner
from studiolo.training.pack import Pack
from tests.training.alone import train_alone

SETTINGS = FaceLoraSettings(rank=4, alpha=6.0, steps=12, batch_size=4, views_per_photo=2, learning_rate=5e-3)


@pytest.fixture(scope="module")
def base() -> StableDiffusionPipeline:
    return tiny_base()


def photos(count: int = 2, caption: str = "a handsome man, smile") -> list[TrainingPhoto]:
    pictures = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
        mask = np.zeros((256, 256), np.float32)
        mask[64:192, 64:192] = 1
        pictures.append(TrainingPhoto(coarse.repeat(32, 0).repeat(32, 1), mask, caption))
    return pictures


def train(base: StableDiffusionPipeline, settings: FaceLoraSettings = SETTINGS, **options) -> FaceLora:
    return train_alone(base, settings=settings, **{"trigger": "a handsome man", "photos": photos(), **options})


def image(base: StableDiffusionPipeline) -> np.ndarray:
    generator = torch.Generator().manual_seed(1)
    options = {"num_inference_steps": 4, "guidance_scale": 2.0, "output_type": "np", "generator": generator}
    return base("a handsome man", **options).images[0]


@pytest.fixture(scope="module")
def lora(base: StableDiffusionPipeline) -> FaceLora:
    return train(base)


def test_an_unmodified_pipeline_makes_the_image_of_the_pack(base: StableDiffusionPipeline, tmp_path: Path) -> None:
    pack = Pack(base, SETTINGS.model_copy(update={"precision": "float32"}), 1)
    learner = pack.learner("anna", photos(), 0)
    waiting = [learner]
    pack.run(lambda _: [waiting.pop()] if waiting else [], lambda _: None, lambda: None)
    pack.face_lora(learner, trigger="a handsome man", photos=2, seed=0).save(tmp_path)
    loaded, own = tiny_base(), tiny_base()
    without = image(loaded)
    loaded.load_lora_weights(str(tmp_path), weight_name=LORA_FILE)
    pack.slots = [learner]
    pack._give()
    own.register_modules(unet=pack._unet)
    with torch.no_grad():
        packed = image(own)
    assert np.abs(packed - without).max() > 1e-2
    np.testing.assert_allclose(image(loaded), packed, atol=1e-5)


def test_the_update_is_alpha_over_rank_times_the_product(
    base: StableDiffusionPipeline, lora: FaceLora, tmp_path: Path
) -> None:
    lora.save(tmp_path)
    loaded, merged = tiny_base(), tiny_base()
    loaded.load_lora_weights(str(tmp_path), weight_name=LORA_FILE)
    # diffusers writes attention as lora.down and lora.up, all else as lora_A and lora_B
    factors = convert_unet_state_dict_to_peft(lora.weights)
    layers = {name.removeprefix("unet.").rsplit(".lora", 1)[0] for name in factors}
    assert len(layers) * 2 == len(factors) == len(lora.weights)
    assert {layer.split("transformer_blocks.0.")[1] for layer in layers} == {
        *(f"attn{i}.{name}" for i in (1, 2) for name in ("to_q", "to_k", "to_v", "to_out.0")),
        "ff.net.0.proj",
        "ff.net.2",
    }
    for layer in layers:
        down, up = (factors[f"unet.{layer}.lora_{factor}.weight"] for factor in "AB")
        merged.unet.get_submodule(layer).weight.add_(6.0 / 4 * up @ down)
    np.testing.assert_allclose(image(loaded), image(merged), atol=1e-5)


def test_only_the_factors_are_trained(base: StableDiffusionPipeline) -> None:
    pack = Pack(base, SETTINGS, 1)
    learner = pack.learner("anna", photos(), 0)
    waiting = [learner]
    pack.run(lambda _: [waiting.pop()] if waiting else [], lambda _: None, lambda: None)
    assert all(torch.count_nonzero(up) for _, up in learner.factors.values())
    original = dict(base.unet.named_parameters())
    for name, weight in pack._unet.named_parameters():
        assert torch.equal(weight, original[name].to(weight.dtype)), name
        assert weight.grad is None


def test_training_leaves_the_pipeline_and_the_global_generator_alone() -> None:
    base, untouched = tiny_base(), tiny_base()
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    train(base)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert unet_sha256(base.unet) == unet_sha256(untouched.unet)
    assert base.get_active_adapters() == []
    assert [name for name, _ in base.unet.named_modules()] == [name for name, _ in untouched.unet.named_modules()]
    assert not base.unet.training
    assert not any(weight.requires_grad for weight in base.unet.parameters())
    assert np.array_equal(image(base), image(untouched))


def test_the_same_inputs_give_the_same_bytes(base: StableDiffusionPipeline, lora: FaceLora, tmp_path: Path) -> None:
    first = lora.save(tmp_path / "first").read_bytes()
    assert train(base).save(tmp_path / "again").read_bytes() == first
    # the library orders a file's metadata at random, for every file anew
    assert {lora.save(tmp_path / str(index)).read_bytes() for index in range(8)} == {first}


@pytest.mark.parametrize("change", [{"seed": 1}, {"identity_id": "berta"}, {"photos": photos(1)}])
def test_other_inputs_give_another_lora(base: StableDiffusionPipeline, lora: FaceLora, change: dict) -> None:
    other = train(base, **change)
    assert other.weights.keys() == lora.weights.keys()
    assert not any(torch.equal(other.weights[name], lora.weights[name]) for name in lora.weights if ".lora.up." in name)


def test_the_file_tells_what_it_was_trained_on_and_how(
    base: StableDiffusionPipeline, lora: FaceLora, tmp_path: Path
) -> None:
    with safe_open(lora.save(tmp_path), framework="pt") as file:
        header = file.metadata()
        assert set(file.keys()) == lora.weights.keys()
        assert all(torch.equal(file.get_tensor(name), weight) for name, weight in lora.weights.items())
    assert header == lora.metadata
    assert header["base_sha256"] == unet_sha256(base.unet)
    assert (header["trigger"], header["photos"], header["seed"]) == ("a handsome man", "2", "0")
    settings = json.loads(header["settings"])
    assert (settings["rank"], settings["alpha"], settings["steps"]) == (4, 6.0, 12)
    assert {weight.dtype for weight in lora.weights.values()} == {torch.float32}


def test_the_loss_falls(base: StableDiffusionPipeline) -> None:
    settings = SETTINGS.model_copy(update={"steps": 40, "batch_size": 8, "learning_rate": 2e-2})
    pack = Pack(base, settings, 1)
    learner = pack.learner("anna", photos(), 0)
    waiting = [learner]
    pack.run(lambda _: [waiting.pop()] if waiting else [], lambda _: None, lambda: None)
    assert len(learner.losses) == 40
    assert learner.final_loss == pytest.approx(np.mean(learner.losses[-4:]))
    assert np.mean(learner.losses[-13:]) < 0.95 * np.mean(learner.losses[:13])


def test_with_full_caption_dropout_captions_do_not_matter(base: StableDiffusionPipeline) -> None:
    dropped, kept = (SETTINGS.model_copy(update={"steps": 3, "caption_dropout": share}) for share in (1.0, 0.0))
    captions = ("a handsome man, smile", "a handsome man, glasses")
    one, other = (train(base, dropped, photos=photos(caption=caption)).weights for caption in captions)
    assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = (train(base, kept, photos=photos(caption=caption)).weights for caption in captions)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_the_mask_matters_only_when_the_background_weighs_less(base: StableDiffusionPipeline) -> None:
    def weights(background_weight: float, height: float) -> dict[str, torch.Tensor]:
        settings = SETTINGS.model_copy(update={"steps": 3, "background_weight": background_weight})
        masked = [TrainingPhoto(one.rgb_u8, one.mask * height, one.caption) for one in photos()]
        return train(base, settings, photos=masked).weights

    one, other = weights(1.0, 1.0), weights(1.0, 0.0)
    assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = weights(0.1, 1.0), weights(0.1, 0.0)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_no_photos_and_divergence_name_the_identity(base: StableDiffusionPipeline) -> None:
    with pytest.raises(TrainingError, match=r"'anna': got no photos, wanted at least 1"):
        train(base, photos=[])
    wild = SETTINGS.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"'anna': got a loss of .* use a learning rate below 1e\+30"):
        train(base, wild)


class Interrupted(Exception):
    """The process ends here."""


@pytest.mark.parametrize("every_s", [1e-9, 3600.0])
def test_an_interrupted_training_goes_on_to_the_same_bytes(
    base: StableDiffusionPipeline,
    lora: FaceLora,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    every_s: float,
) -> None:
    store, update, steps = Store(tmp_path / "out"), Learner.update, []
    for stop in (1, 2, 7, 11, 12):

        def interrupt(learner: Learner, loss: float, stop: int = stop) -> None:
            update(learner, loss)
            steps.append(len(learner.losses))
            if len(learner.losses) == stop:
                raise Interrupted

        monkeypatch.setattr(Learner, "update", interrupt)
        with pytest.raises(Interrupted):
            train(base, checkpoint=UnitCheckpoint(store, "a.checkpoint", "key", every_s))
        assert store.exists("a.checkpoint") is (every_s < 1 and stop > 1)  # the first is made after the first step
    if every_s < 1:
        assert steps == [1, 1, 2, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11, 11, 12]  # only the last step is done again
    monkeypatch.setattr(Learner, "update", update)
    again = train(base, checkpoint=UnitCheckpoint(store, "a.checkpoint", "key", every_s))
    assert again.save(tmp_path / "again").read_bytes() == lora.save(tmp_path / "whole").read_bytes()
    assert again.final_loss == lora.final_loss


def test_checkpoints_take_the_place_of_steps(
    base: StableDiffusionPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    update = Learner.update
    monkeypatch.setattr(Learner, "update", lambda self, loss: steps.append(len(self.losses)) or update(self, loss))
    checkpoint = UnitCheckpoint(Store(tmp_path), "a.checkpoint", "key", 1e-9)
    train(base, checkpoint=checkpoint)
    train(base, checkpoint=checkpoint)  # killed after the last step
    assert steps == list(range(SETTINGS.steps))


@pytest.mark.parametrize("fault", ["another unit's", "damaged", "cut off", "empty"])
def test_a_checkpoint_that_is_not_the_unit_s_own_is_ignored_with_a_warning(
    base: StableDiffusionPipeline, lora: FaceLora, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    store = Store(tmp_path)
    train(base, checkpoint=UnitCheckpoint(store, "a.checkpoint", "key", 1e-9), seed=1)
    content = store.read_bytes("a.checkpoint")
    middle = len(content) // 2
    faults = {
        "another unit's": content,
        "damaged": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "cut off": content[:middle],
        "empty": b"",
    }
    store.write_bytes("a.checkpoint", faults[fault])
    key = "other" if fault == "another unit's" else "key"
    with caplog.at_level(logging.WARNING):
        again = train(base, checkpoint=UnitCheckpoint(store, "a.checkpoint", key, 3600))
    assert "checkpoint a.checkpoint: got one that is damaged or of other inputs" in caplog.text
    assert all(torch.equal(again.weights[name], weight) for name, weight in lora.weights.items())
