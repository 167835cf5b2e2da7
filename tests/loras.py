"""LoRA files in the names that trainers write, with random weights for given layers of a base."""

import json
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

Layers = Mapping[str, tuple[int, int]]
"""[O, I] by name, behind `unet.` or `text_encoder.`."""
Tensors = dict[str, NDArray[np.generic]]


def factors(layers: Layers, rank: int = 4, seed: int = 0) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """`down_RI` and `up_OR` of each layer."""
    rng = np.random.default_rng(seed)
    return {
        name: (
            rng.standard_normal((rank, inputs), np.float32) / np.float32(inputs**0.5),
            0.3 * rng.standard_normal((outputs, rank), np.float32),
        )
        for name, (outputs, inputs) in sorted(layers.items())
    }


def kohya(layers: Layers, rank: int = 4, alpha: float | None = 2.0) -> Tensors:
    """As kohya's trainer writes it; without alphas when None."""
    tensors: Tensors = {}
    for name, (down, up) in factors(layers, rank).items():
        part, _, layer = name.partition(".")
        prefix = "lora_unet_" if part == "unet" else "lora_te_text_model_"
        flat = prefix + layer.replace(".", "_")
        tensors[f"{flat}.lora_down.weight"], tensors[f"{flat}.lora_up.weight"] = down, up
        if alpha is not None:
            tensors[f"{flat}.alpha"] = np.asarray(alpha, np.float32)
    return tensors


def diffusers(layers: Layers, rank: int = 4, sides: tuple[str, str] = ("lora.down", "lora.up")) -> Tensors:
    """As diffusers writes it, or peft, with the sides' names."""
    named = {name: pair for name, pair in factors(layers, rank).items()}
    return {f"{name}.{side}.weight": pair[number] for name, pair in named.items() for number, side in enumerate(sides)}


def attention(layers: Layers, ends: Iterable[str] = ("to_q", "to_v")) -> Layers:
    """The UNet's layers with these ends."""
    return {name: shape for name, shape in layers.items() if name.startswith("unet.") and name.endswith(tuple(ends))}


def file(tensors: Tensors, config: object | None = None) -> bytes:
    """The file, with peft's configuration in its header if there is one."""
    metadata = {"format": "pt"} if config is None else {"format": "pt", "lora_adapter_metadata": json.dumps(config)}
    return save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, metadata)


def changed(tensors: Tensors, change: Callable[[Tensors], object]) -> bytes:
    """The file after `change`."""
    copy = dict(tensors)
    change(copy)
    return file(copy)
