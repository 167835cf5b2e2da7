import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors.torch import load_file, save_file
from torch import Tensor

from studiolo.errors import WeightsError
from studiolo.generation.adapters import Adapters, Mix, unet_sha256
from studiolo.generation.tiny import tiny_base
from tests.generation.conftest import LoraFile


def denoised(base: StableDiffusionPipeline) -> Tensor:
    """What the UNet says about fixed latents, [1, 8, 8, 8]."""
    generator = torch.Generator().manual_seed(0)
    latents, prompt = torch.randn(1, 8, 8, 8, generator=generator), torch.randn(1, 4, 32, generator=generator)
    with torch.no_grad():
        return base.unet(latents.to(base.unet.dtype), 500, prompt.to(base.unet.dtype)).sample


def mixed(base: StableDiffusionPipeline, adapters: Adapters, mix: Mix) -> Tensor:
    with adapters.mix(mix):
        return denoised(base)


@pytest.fixture
def adapters(base: StableDiffusionPipeline) -> Adapters:
    return Adapters(base)


def test_nothing_is_left_of_a_mix(base: StableDiffusionPipeline, adapters: Adapters, lora_file: LoraFile) -> None:
    before, modules = denoised(base), [name for name, _ in base.unet.named_modules()]
    weights = unet_sha256(base.unet)
    with adapters.mix([(str(lora_file("a", 1)), 1.0), (str(lora_file("b", 2)), 0.7)]):
        assert not torch.equal(denoised(base), before)
    assert [name for name, _ in base.unet.named_modules()] == modules
    assert unet_sha256(base.unet) == weights
    assert torch.equal(denoised(base), before)


def test_nothing_is_left_after_an_error(base: StableDiffusionPipeline, adapters: Adapters, lora_file: LoraFile) -> None:
    before = denoised(base)
    with pytest.raises(KeyboardInterrupt), adapters.mix([(str(lora_file("a", 1)), 1.0)]):
        raise KeyboardInterrupt
    assert torch.equal(denoised(base), before)


def test_weight_0_is_no_lora(base: StableDiffusionPipeline, adapters: Adapters, lora_file: LoraFile) -> None:
    assert torch.equal(mixed(base, adapters, [(str(lora_file("a", 1)), 0.0)]), denoised(base))


def test_the_update_is_the_weight_times_up_times_down(
    base: StableDiffusionPipeline, adapters: Adapters, lora_file: LoraFile
) -> None:
    """W + sum_i w_i B_i A_i, merged by hand into a copy of the base (alpha = rank, so the scale is 1)."""
    files, by_hand = (lora_file("a", 1), lora_file("b", 2)), tiny_base()
    layers = dict(by_hand.unet.named_modules())
    for path, weight in zip(files, (0.8, -0.5), strict=True):
        factors = convert_unet_state_dict_to_peft(load_file(path))
        for key in (key for key in factors if key.endswith("lora_A.weight")):
            name = key.removeprefix("unet.").removesuffix(".lora_A.weight")
            layers[name].weight.data += weight * factors[key.replace("lora_A", "lora_B")] @ factors[key]
    found = mixed(base, adapters, [(str(files[0]), 0.8), (str(files[1]), -0.5)])
    torch.testing.assert_close(found, denoised(by_hand), rtol=1e-4, atol=1e-5)
    assert (found - denoised(base)).abs().max() > 0.01


def test_the_order_of_the_files_does_not_matter(
    base: StableDiffusionPipeline, adapters: Adapters, lora_file: LoraFile
) -> None:
    a, b = (str(lora_file("a", 1)), 1.0), (str(lora_file("b", 2)), 0.5)
    torch.testing.assert_close(mixed(base, adapters, [a, b]), mixed(base, adapters, [b, a]), rtol=1e-4, atol=1e-5)


def test_the_cache_goes_by_content(base: StableDiffusionPipeline, lora_file: LoraFile, tmp_path: Path) -> None:
    adapters = Adapters(base, cached=1)
    a, b = lora_file("a", 1), lora_file("b", 2)
    expected = {path: mixed(base, Adapters(base), [(str(path), 1.0)]) for path in (a, b)}
    moved = tmp_path / "moved.safetensors"
    for path in (a, b, a):
        shutil.copy(path, moved)
        assert torch.equal(mixed(base, adapters, [(str(moved), 1.0)]), expected[path])


def test_pointwise_convolutions_are_linear(
    base: StableDiffusionPipeline, adapters: Adapters, lora_file: LoraFile
) -> None:
    path = lora_file("a", 1, targets=("proj_in",))
    assert not torch.equal(mixed(base, adapters, [(str(path), 1.0)]), denoised(base))


def test_our_own_files_name_their_base(adapters: Adapters, base: StableDiffusionPipeline, lora_file: LoraFile) -> None:
    assert unet_sha256(base.unet) == unet_sha256(tiny_base().unet)
    right = lora_file("right", 1, metadata={"base_sha256": unet_sha256(base.unet)})
    wrong = lora_file("wrong", 1, metadata={"base_sha256": unet_sha256(tiny_base(seed=1).unet)})
    mixed(base, adapters, [(str(right), 1.0)])
    with pytest.raises(WeightsError, match=r"wrong\.safetensors: got one trained for the base"):
        mixed(base, adapters, [(str(wrong), 1.0)])


def test_alpha_comes_from_the_file(base: StableDiffusionPipeline, adapters: Adapters, lora_file: LoraFile) -> None:
    """With alpha / rank = 2 in the header, weight 0.5 is the file without a header at weight 1."""
    plain, path = lora_file("plain", 1), lora_file("doubled", 1)
    config = {"unet.r": 4, "unet.lora_alpha": 8, "unet.target_modules": ["to_q", "to_v", "ff.net.2"]}
    save_file(load_file(path), path, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(config)})
    doubled = mixed(base, adapters, [(str(path), 0.5)])
    torch.testing.assert_close(doubled, mixed(base, adapters, [(str(plain), 1.0)]), rtol=1e-4, atol=1e-5)


def test_both_spellings_in_one_file(base: StableDiffusionPipeline, adapters: Adapters, lora_file: LoraFile) -> None:
    plain, path = lora_file("plain", 1), lora_file("mixed", 1)
    tensors = load_file(path)
    first = min(tensors).rsplit(".lora", 1)[0]
    renamed = {key.replace(f"{first}.lora.down", f"{first}.lora_A"): value for key, value in tensors.items()}
    renamed = {key.replace(f"{first}.lora.up", f"{first}.lora_B"): value for key, value in renamed.items()}
    assert renamed.keys() != tensors.keys()
    save_file(renamed, path)
    assert torch.equal(mixed(base, adapters, [(str(path), 1.0)]), mixed(base, adapters, [(str(plain), 1.0)]))


def test_a_text_encoder_lora_acts_on_prompts(base: StableDiffusionPipeline, adapters: Adapters, tmp_path: Path) -> None:
    tokens = torch.arange(32)[None]
    before = base.text_encoder(tokens).last_hidden_state
    weights = {}
    for part, count in (("text_encoder", 2), ("unet", 1)):
        for name, layer in (base.components[part]).named_modules():
            if name.endswith(("q_proj", "to_q")) and count:
                generator = torch.Generator().manual_seed(count)
                weights[f"{part}.{name}.lora_A.weight"] = torch.randn(4, layer.in_features, generator=generator)
                weights[f"{part}.{name}.lora_B.weight"] = torch.randn(layer.out_features, 4, generator=generator)
                count -= 1
    path = tmp_path / "style.safetensors"
    save_file(weights, path)
    with adapters.mix([(str(path), 1.0)]):
        assert not torch.allclose(base.text_encoder(tokens).last_hidden_state, before, atol=1e-3)
    assert torch.equal(base.text_encoder(tokens).last_hidden_state, before)


def _edited(path: Path, **tensors: Tensor | None) -> Path:
    weights: dict[str, Tensor | None] = {**load_file(path), **tensors}
    save_file({key: value for key, value in weights.items() if value is not None}, path)
    return path


def test_files_that_do_not_fit_are_named(adapters: Adapters, lora_file: LoraFile, tmp_path: Path) -> None:
    attention = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    spatial = lora_file("spatial", 1, targets=("conv1",))
    garbage, empty, pickled = tmp_path / "garbage.safetensors", tmp_path / "empty.safetensors", tmp_path / "lora.bin"
    garbage.write_bytes(b"not tensors")
    save_file({}, empty)
    torch.save({}, pickled)
    narrow = _edited(lora_file("narrow", 1), **{f"{attention}.to_q.lora.down.weight": torch.zeros(4, 16)})
    half = _edited(lora_file("half", 1), **{f"{attention}.to_q.lora.up.weight": None})
    unknown = _edited(
        lora_file("unknown", 1),
        **{"unet.nowhere.lora.down.weight": torch.zeros(4, 32), "unet.nowhere.lora.up.weight": torch.zeros(32, 4)},
    )
    dora = _edited(lora_file("dora", 1), **{f"{attention}.to_q.dora_scale": torch.ones(32)})
    cases = {
        spatial: r"Conv2d\), wanted linear layers",
        garbage: "cannot be read",
        empty: "none for the UNet",
        pickled: "wanted a .safetensors file",
        tmp_path / "absent.safetensors": "no such file",
        narrow: r"wanted a product of shape \(32, 32\)",
        half: "wanted pairs",
        unknown: "no layer of this base",
        dora: "got a DoRA",
    }
    for path, message in cases.items():
        with pytest.raises(WeightsError, match=message) as caught, adapters.mix([(str(path), 1.0)]):
            pass
        assert str(path) in str(caught.value)


def test_bfloat16(lora_file: LoraFile) -> None:
    base = tiny_base().to(torch.bfloat16)
    before = denoised(base)
    path = lora_file("a", 1, metadata={"base_sha256": unet_sha256(tiny_base().unet)})
    found = mixed(base, Adapters(base), [(str(path), 1.0)])
    assert found.dtype == torch.bfloat16
    assert found.isfinite().all()
    assert not torch.equal(found, before)
    assert torch.equal(denoised(base), before)
