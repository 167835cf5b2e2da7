"""A face-LoRA in both formats is the same to diffusers and to ours."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from studiolo.generation.adapters import Adapters
from studiolo.generation.tiny import tiny_base
from studiolo.identities.artifacts import LORA_FILE
from studiolo.training.kohya import kohya_bytes
from tests.training.alone import train_alone
from tests.training.test_pack import SETTINGS, photos

Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same face-LoRA as diffusers' and as kohya's, a 1x1 convolution among its layers."""
    folder = tmp_path_factory.mktemp("formats")
    targets = (*SETTINGS.targets, "conv_shortcut")
    settings = SETTINGS.model_copy(update={"alpha": 6.0, "steps": 2, "targets": targets})
    lora = train_alone(tiny_base(), photos(0), settings)
    ours = lora.save(folder)
    theirs = folder / "kohya.safetensors"
    theirs.write_bytes(kohya_bytes(ours.read_bytes()))
    return {"diffusers": ours, "kohya": theirs}


def by_diffusers(path: Path) -> Factors:
    """A, and B times the scale, of every layer of the one adapter that is loaded."""
    pipeline = tiny_base()
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    found = {}
    for name, layer in pipeline.unet.named_modules():
        if hasattr(layer, "lora_A") and layer.lora_A:
            (adapter,) = layer.lora_A
            down, up = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
            found[name] = (down.detach().flatten(1), layer.scaling[adapter] * up.detach().flatten(1))
    return found


def by_ours(path: Path) -> Factors:
    """The same by the engine's reader."""
    return dict(Adapters(tiny_base()).mix([(str(path), 1.0)]).unet)


def test_both_formats_are_read_to_the_same_factors_by_diffusers_and_by_us(files: dict[str, Path]) -> None:
    ways = [read(path) for read in (by_diffusers, by_ours) for path in files.values()]
    first = ways[0]
    assert any(name.endswith("conv_shortcut") for name in first)
    assert all(torch.count_nonzero(up) for _, up in first.values())
    for other in ways[1:]:
        assert first.keys() == other.keys()
        for name, (down, up) in first.items():
            torch.testing.assert_close(down, other[name][0], rtol=0, atol=0)
            torch.testing.assert_close(up, other[name][1], rtol=1e-6, atol=0)


def test_names_and_metadata_are_those_of_kohya(files: dict[str, Path]) -> None:
    with safe_open(files["kohya"], framework="pt") as file:
        keys, header = set(file.keys()), file.metadata()
        assert all(file.get_tensor(key).item() == 6.0 for key in keys if key.endswith(".alpha"))
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"
    assert {f"{layer}.{part}" for part in ("lora_down.weight", "lora_up.weight", "alpha")} <= keys
    assert len(keys) % 3 == 0
    assert (header["ss_network_module"], header["ss_network_dim"], header["ss_network_alpha"]) == (
        "networks.lora",
        "4",
        "6.0",
    )
    assert (header["ss_num_train_images"], header["ss_mixed_precision"]) == ("1", "no")
    assert files["diffusers"].name == LORA_FILE
    assert kohya_bytes(files["diffusers"].read_bytes()) == files["kohya"].read_bytes()
