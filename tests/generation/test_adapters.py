import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors.torch import load_file, save_file
from torch import Tensor

from studiolo.errors import SettingsError, WeightsError
from studiolo.generation.adapters import Adapters, LoraMix, unet_sha256
from studiolo.generation.grouped import FactorBuffers
from studiolo.generation.tiny import tiny_base
from tests.generation.conftest import LoraFile


def denoised(base: StableDiffusionPipeline) -> Tensor:
    """What the UNet says about fixed latents, [1, 8, 8, 8]."""
    generator = torch.Generator().manual_seed(0)
    latents, prompt = torch.randn(1, 8, 8, 8, generator=generator), torch.randn(1, 4, 32, generator=generator)
    with torch.no_grad():
        return base.unet(latents.to(base.unet.dtype), 500, prompt.to(base.unet.dtype)).sample


def mixed(base: StableDiffusionPipeline, adapters: Adapters, mix: LoraMix) -> Tensor:
    buffers = FactorBuffers(1, 64, base.unet.dtype)
    buffers.write(0, adapters.mix(mix).unet)
    with buffers.acting(base.unet):
        return denoised(base)


def by_diffusers(mix: LoraMix) -> Tensor:
    """The same of an unmodified pipeline with the files loaded."""
    base = tiny_base()
    for number, (path, _) in enumerate(mix):
        folder, _, name = path.rpartition("/")
        base.load_lora_weights(folder, weight_name=name, adapter_name=f"lora_{number}")
    base.set_adapters([f"lora_{number}" for number in range(len(mix))], [weight for _, weight in mix])
    return denoised(base)


@pytest.fixture
def adapters(base: StableDiffusionPipeline) -> Adapters:
    return Adapters(base)


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
        with pytest.raises(WeightsError, match=message) as caught:
            adapters.mix([(str(path), 1.0)])
        assert str(path) in str(caught.value)


def test_as_diffusers_loads_them(base: StableDiffusionPipeline, adapters: Adapters, lora_file: LoraFile) -> None:
    face, style = lora_file("face", 1, targets=("to_q", "to_v")), lora_file("style", 2, targets=("to_k", "to_out.0"))
    mix = [(str(face), 0.8), (str(style), -0.4)]
    torch.testing.assert_close(mixed(base, adapters, mix), by_diffusers(mix), rtol=1e-4, atol=1e-5)


def as_kohya(path: Path, alpha: float, text: dict[str, Tensor] | None = None, other_alpha: float | None = None) -> Path:
    """The UNet's part of a file in kohya's spelling, its first two layers with `alpha`, the rest with the other."""
    factors = {key.removeprefix("unet."): value for key, value in load_file(path).items()}
    tensors: dict[str, Tensor] = dict(text or {})
    for number, key in enumerate(sorted(key for key in factors if key.endswith(".lora.down.weight"))):
        layer = key.removesuffix(".lora.down.weight")
        name = f"lora_unet_{layer.replace('.', '_')}"
        tensors[f"{name}.lora_down.weight"] = factors[key]
        tensors[f"{name}.lora_up.weight"] = factors[f"{layer}.lora.up.weight"]
        tensors[f"{name}.alpha"] = torch.tensor(alpha if number < 2 or other_alpha is None else other_alpha)
    kohya = path.with_name(f"kohya-{path.name}")
    save_file(tensors, kohya)
    return kohya


def test_kohyas_files_with_alphas(base: StableDiffusionPipeline, adapters: Adapters, lora_file: LoraFile) -> None:
    mix = [(str(as_kohya(lora_file("a", 1, targets=("to_q", "to_v")), alpha=1.0)), 0.9)]
    found = mixed(base, adapters, mix)
    torch.testing.assert_close(found, by_diffusers(mix), rtol=1e-4, atol=1e-5)
    assert (found - denoised(base)).abs().max() > 0.001


def test_kohyas_alphas_hold_layer_by_layer(adapters: Adapters, lora_file: LoraFile) -> None:
    """diffusers 0.42 gives all layers the most frequent one."""
    path = lora_file("a", 1, targets=("to_q", "to_v"))
    kohya = as_kohya(path, alpha=1.0, other_alpha=8.0)
    unscaled = adapters.mix([(str(path), 1.0)]).unet
    for number, (name, (_, up_OR)) in enumerate(sorted(adapters.mix([(str(kohya), 1.0)]).unet.items())):
        torch.testing.assert_close(up_OR, (1.0 if number < 2 else 8.0) / 4 * unscaled[name][1])


def test_alphas_of_single_layers_and_of_rank_stabilised_files(adapters: Adapters, lora_file: LoraFile) -> None:
    path, plain = lora_file("a", 1, targets=("to_q", "to_v")), lora_file("plain", 1, targets=("to_q", "to_v"))
    config = {"unet.r": 4, "unet.lora_alpha": 2, "unet.target_modules": ["to_q", "to_v"], "unet.use_rslora": True}
    config["unet.alpha_pattern"] = {"to_v": 12}
    save_file(load_file(path), path, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(config)})
    found, unscaled = adapters.mix([(str(path), 1.0)]).unet, adapters.mix([(str(plain), 1.0)]).unet
    for name, (_, up_OR) in found.items():
        scale = (12 if name.endswith("to_v") else 2) / math.sqrt(4)
        torch.testing.assert_close(up_OR, scale * unscaled[name][1])


def test_the_text_encoders_part_is_read_too(
    base: StableDiffusionPipeline, adapters: Adapters, lora_file: LoraFile
) -> None:
    """In kohya's spelling with an alpha of its own, and in diffusers'."""
    generator = torch.Generator().manual_seed(5)
    down, up = torch.randn(4, 32, generator=generator), torch.randn(32, 4, generator=generator)
    layer = "encoder.layers.1.self_attn.q_proj"
    kohya_name = "lora_te_text_model_" + layer.replace(".", "_")
    kohya = {f"{kohya_name}.lora_down.weight": down, f"{kohya_name}.lora_up.weight": up}
    files = {
        as_kohya(lora_file("a", 1), 2.0, kohya | {f"{kohya_name}.alpha": torch.tensor(2.0)}): 2 / 4,
        _edited(
            lora_file("b", 1),
            **{
                f"text_encoder.text_model.{layer}.lora_linear_layer.down.weight": down,
                f"text_encoder.text_model.{layer}.lora_linear_layer.up.weight": up,
            },
        ): 1.0,
        _edited(
            lora_file("c", 1),
            **{f"text_encoder.{layer}.lora_A.weight": down, f"text_encoder.{layer}.lora_B.weight": up},
        ): 1.0,
    }
    for path, scale in files.items():
        factors = adapters.mix([(str(path), 0.5)])
        assert list(factors.text) == [layer]
        torch.testing.assert_close(factors.text[layer][1], 0.5 * scale * up)
        assert len(factors.text_key) == 1
    assert not adapters.mix([(str(lora_file("without", 2)), 1.0)]).text_key


def test_more_rank_than_a_slot_has_is_refused_with_both_numbers(
    base: StableDiffusionPipeline, lora_file: LoraFile
) -> None:
    face, style, other = lora_file("face", 1), lora_file("style", 2), lora_file("other", 3, targets=("to_k",))
    adapters = Adapters(base, rank_budget=7)
    with pytest.raises(SettingsError, match=r"face\.safetensors.*a rank of 8 together, wanted at most 7"):
        adapters.mix([(str(face), 1.0), (str(style), 1.0)])
    adapters.mix([(str(face), 1.0), (str(other), 1.0)])  # of other layers


def test_of_a_base_in_bfloat16_only_shapes_can_be_compared(lora_file: LoraFile) -> None:
    right = lora_file("right", 1, metadata={"base_sha256": unet_sha256(tiny_base().unet)})
    Adapters(tiny_base().to(torch.bfloat16)).mix([(str(right), 1.0)])
