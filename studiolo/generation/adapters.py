"""LoRA files, read and checked against the base, and mixes of them as low-rank factors. Nothing is injected or merged:
the factors belong to a sample, see `studiolo.generation.grouped`.

Shapes: R rank, I and O a layer's inputs and outputs.
"""

import hashlib
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors import safe_open
from torch import Tensor, nn

from studiolo.errors import SettingsError, WeightsError
from studiolo.generation.grouped import matrix_shape
from studiolo.generation.lora_files import of_layer
from studiolo.weights.fetch import sha256_of

LoraMix = Sequence[tuple[str, float]]
"""(path of a safetensors file, weight) of every LoRA, e.g. a face's and a style's."""

Update = tuple[Tensor, Tensor]
"""`down_RI` and `up_OR` in float32 on the CPU, alpha and weight folded into `up_OR`: the layer is W + up down."""

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_UNET, _TEXT = "unet.", "text_encoder."
_TEXT_NAMES = re.compile(r"\.to_(q|k|v|out)_lora\.")
"""diffusers' old names of the text encoder's projections, which it still gives to those of kohya's files."""


@dataclass(frozen=True, eq=False)
class Factors:
    """What a LoRA, or a mix of them, adds to the layers of the base, by their names."""

    unet: dict[str, Update] = field(default_factory=dict)
    """Updates of the UNet's layers."""
    text: dict[str, Update] = field(default_factory=dict)
    """Updates of the text encoder's layers; published LoRAs often have some."""
    text_key: tuple[tuple[str, float], ...] = ()
    """(sha256, weight) of the files with updates of the text encoder: what a prompt's embedding depends on."""


class Adapters:
    """Reads LoRA files for the base `pipeline`. Files are cached by their sha256, the `cached` used last."""

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        *,
        rank_budget: int = 64,
        cached: int = 8,
    ) -> None:
        self._pipeline = pipeline
        self._rank_budget = rank_budget
        self._base_sha256: str | None = None
        self._cached = cached
        self._loras: OrderedDict[str, Factors] = OrderedDict()

    def mix(self, loras: LoraMix) -> Factors:
        """The LoRAs with their weights as one update a layer: their factors side by side along the rank.

        LoRAs of weight 0 are left out. Raises `WeightsError` naming the file when it cannot be read, was trained for
        another base, or changes anything but linear layers and 1x1 convolutions; `SettingsError` when a layer's ranks
        add up to more than the budget.
        """
        read = [(path, *self._read(Path(path)), weight) for path, weight in loras if weight != 0]
        unet = _side_by_side([(lora.unet, weight) for _, _, lora, weight in read])
        text = _side_by_side([(lora.text, weight) for _, _, lora, weight in read])
        rank = max((len(down_RI) for down_RI, _ in [*unet.values(), *text.values()]), default=0)
        if rank > self._rank_budget:
            files = ", ".join(str(path) for path, *_ in read)
            raise SettingsError(
                f"LoRAs {files}: got a rank of {rank} together, wanted at most {self._rank_budget}, the rank budget of"
                " a slot; raise generation.rank_budget or leave one out"
            )
        return Factors(unet, text, tuple((sha256, weight) for _, sha256, lora, weight in read if lora.text))

    def forget(self, sha256s: Collection[str]) -> int:
        """Drop the LoRAs of these files; how many were kept."""
        return sum(self._loras.pop(sha256, None) is not None for sha256 in sha256s)

    def _read(self, path: Path) -> tuple[str, Factors]:
        if path.suffix != ".safetensors" or not path.is_file():
            raise WeightsError(f"LoRA {path}: got no such file, wanted a .safetensors file; train the identity again")
        sha256 = sha256_of(path)
        lora = self._loras.get(sha256) or self._parse(path)
        self._loras[sha256] = lora
        self._loras.move_to_end(sha256)
        while len(self._loras) > self._cached:
            self._loras.popitem(last=False)
        return sha256, lora

    def _parse(self, path: Path) -> Factors:
        """The file's factors, checked against the base."""
        try:
            return self._factors(path)
        except WeightsError:
            raise
        except Exception as error:  # libraries raise whatever a strange file makes them stumble over
            raise WeightsError(f"LoRA {path}: got a file that cannot be read ({error}), wanted a LoRA") from error

    def _factors(self, path: Path) -> Factors:
        with safe_open(path, framework="pt") as file:
            header, keys = file.metadata() or {}, list(file.keys())
        weights, alphas, config = self._pipeline.lora_state_dict(
            str(path.parent),
            weight_name=path.name,
            use_safetensors=True,
            local_files_only=True,
            return_lora_metadata=True,
        )
        if any("dora_scale" in key for key in keys):
            raise WeightsError(f"LoRA {path}: got a DoRA, wanted plain low-rank updates; train it without DoRA")
        self._check_base(path, header)
        if not any(key.startswith(_UNET) for key in weights):
            raise WeightsError(f"LoRA {path}: got {len(weights)} tensors, none for the UNet, wanted a LoRA")
        parts = {_UNET: self._pipeline.unet, _TEXT: self._pipeline.text_encoder}
        unet, text = (
            _updates(path, _in_peft_names(weights, prefix), _scales(prefix, alphas or {}, config or {}), module)
            for prefix, module in parts.items()
        )
        return Factors(unet, text)

    def _check_base(self, path: Path, header: Mapping[str, str]) -> None:
        """Files of ours name the base in float32; of one that was loaded in bfloat16 only shapes can be compared."""
        trained_on = header.get("base_sha256")
        if trained_on is None:
            return
        if self._base_sha256 is None:
            if self._pipeline.unet.dtype == torch.bfloat16:
                return
            self._base_sha256 = unet_sha256(self._pipeline.unet)
        if trained_on != self._base_sha256:
            raise WeightsError(
                f"LoRA {path}: got one trained for the base {trained_on[:12]}, wanted one for {self._base_sha256[:12]},"
                " which is loaded; train it again or load its base"
            )


def unet_sha256(unet: UNet2DConditionModel) -> str:
    """sha256 (64 hex digits) over the UNet's weights by name, as float32: which base a LoRA belongs to."""
    digest = hashlib.sha256()
    for name, tensor in sorted(unet.state_dict().items()):
        digest.update(f"{name}\0".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _side_by_side(weighted: Sequence[tuple[Mapping[str, Update], float]]) -> dict[str, Update]:
    """sum_i w_i B_i A_i of every layer as one product: the A_i below each other, the w_i B_i beside each other."""
    names = dict.fromkeys(name for updates, _ in weighted for name in updates)
    found = {name: [(updates[name], weight) for updates, weight in weighted if name in updates] for name in names}
    return {
        name: (
            torch.cat([down_RI for (down_RI, _), _ in pairs]),
            torch.cat([weight * up_OR for (_, up_OR), weight in pairs], 1),
        )
        for name, pairs in found.items()
    }


def _in_peft_names(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of one part of the base, in any of diffusers' spellings, as `LAYER.lora_A.weight` and `lora_B`."""
    own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    if prefix == _UNET or not own:
        return dict(convert_unet_state_dict_to_peft(own))
    renamed = {
        _TEXT_NAMES.sub(r".\1_proj.lora.", key).replace(".lora_linear_layer.", ".lora."): own[key] for key in own
    }
    flat = {key.removeprefix("text_model."): value for key, value in renamed.items()}  # as it is since transformers 5
    return dict(convert_unet_state_dict_to_peft(flat))


def _scales(prefix: str, alphas: Mapping[str, float], config: Mapping[str, Any]) -> Callable[[str, int], float]:
    """What the product of a layer's factors of some rank is multiplied by.

    alpha / rank, with alphas from the tensors of the file (kohya's) or from the LoRA's configuration in its header
    (peft's); 1 when it has neither.
    """
    own = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
    by_name = {key.removesuffix(".alpha"): torch.tensor(value) for key, value in alphas.items()}
    by_layer = {key.split(".lora")[0]: value.item() for key, value in _in_peft_names(by_name, prefix).items()}
    pattern = own.get("alpha_pattern") or {}

    def scale(name: str, rank: int) -> float:
        alpha = by_layer.get(name, of_layer(pattern, name, own.get("lora_alpha", rank)))
        return float(alpha / (math.sqrt(rank) if own.get("use_rslora") else rank))

    return scale


def _updates(
    path: Path, factors: Mapping[str, Tensor], scale: Callable[[str, int], float], module: nn.Module
) -> dict[str, Update]:
    """Every update is W + B A with A [R, I], B [O, R] for a layer of `module` that is such a W [O, I]."""
    layers, updates = dict(module.named_modules()), {}
    for key in sorted(factors):
        name = key.removesuffix(_DOWN).removesuffix(_UP)
        if name == key or name + _DOWN not in factors or name + _UP not in factors:
            raise WeightsError(f"LoRA {path}: got {key}, wanted pairs of lora_A and lora_B")
        wanted = matrix_shape(layers.get(name))
        if wanted is None:
            kind = type(layers[name]).__name__ if name in layers else "no layer of this base"
            raise WeightsError(f"LoRA {path}: got an update of {name} ({kind}), wanted linear layers of this base only")
        down_RI, up_OR = factors[name + _DOWN].flatten(1).float(), factors[name + _UP].flatten(1).float()
        if (up_OR.shape[0], down_RI.shape[1]) != wanted or down_RI.shape[0] != up_OR.shape[1]:
            raise WeightsError(
                f"LoRA {path}: got {tuple(up_OR.shape)} x {tuple(down_RI.shape)} for {name}, wanted a product of shape"
                f" {wanted}; it was trained for another base"
            )
        updates[name] = (down_RI, scale(name, len(down_RI)) * up_OR)
    return updates
