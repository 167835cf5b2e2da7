"""LoRA mixes: which LoRAs with which weights act on a pipeline, and nothing of them afterwards."""

import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from studiolo.errors import WeightsError
from studiolo.weights.fetch import sha256_of

Mix = Sequence[tuple[str, float]]
"""(path of a safetensors file, weight) of every LoRA, e.g. a face's and a style's."""

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, eq=False)
class _Lora:
    """A file that was read and fits the base."""

    weights: dict[str, Tensor]
    alphas: dict[str, float] | None
    metadata: dict[str, Any] | None


class Adapters:
    """Sets LoRA mixes on `pipeline`. Files are cached by their sha256, the `cached` used last.

    The base's own weights are never touched: nothing is merged, the extra layers are taken out again.
    """

    def __init__(self, pipeline: StableDiffusionPipeline, cached: int = 8) -> None:
        self._pipeline = pipeline
        self._cached = cached
        self._loras: OrderedDict[str, _Lora] = OrderedDict()
        self._base_sha256: str | None = None

    @contextmanager
    def mix(self, loras: Mix) -> Iterator[None]:
        """While open, the LoRAs act on the pipeline, added up with their weights; afterwards it is as before.

        LoRAs of weight 0 are left out. Raises `WeightsError` naming the file when it cannot be read, was trained
        for another base, or changes anything but linear layers and 1x1 convolutions.
        """
        wanted = [(Path(path), weight) for path, weight in loras if weight != 0]
        fitting = [(path, self._read(path), weight) for path, weight in wanted]
        if not fitting:
            yield
            return
        names = [f"lora_{index}" for index in range(len(fitting))]
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a second LoRA is meant
                for name, (path, lora, _) in zip(names, fitting, strict=True):
                    self._inject(path, lora, name)
            self._pipeline.set_adapters(names, adapter_weights=[weight for *_, weight in fitting])
            yield
        finally:
            self._pipeline.unload_lora_weights()

    def _read(self, path: Path) -> _Lora:
        if path.suffix != ".safetensors" or not path.is_file():
            raise WeightsError(f"LoRA {path}: got no such file, wanted a .safetensors file; train the identity again")
        sha256 = sha256_of(path)
        if sha256 not in self._loras:
            self._loras[sha256] = self._parse(path)
        self._loras.move_to_end(sha256)
        while len(self._loras) > self._cached:
            self._loras.popitem(last=False)
        return self._loras[sha256]

    def _parse(self, path: Path) -> _Lora:
        """The file in diffusers' names, checked against the base."""
        try:
            with safe_open(path, framework="pt") as file:
                header, keys = file.metadata() or {}, list(file.keys())
            weights, alphas, metadata = self._pipeline.lora_state_dict(
                str(path.parent),
                weight_name=path.name,
                use_safetensors=True,
                local_files_only=True,
                return_lora_metadata=True,
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise WeightsError(f"LoRA {path}: got a file that cannot be read ({error}), wanted a LoRA") from error
        if any("dora_scale" in key for key in keys):
            raise WeightsError(f"LoRA {path}: got a DoRA, wanted plain low-rank updates; train it without DoRA")
        self._check_base(path, header)
        _check_targets(path, weights, self._pipeline.unet)
        if alphas is None:  # diffusers looks at one name only, and would drop the rest of a file with both spellings
            weights = convert_unet_state_dict_to_peft(weights)
        return _Lora(weights, alphas, metadata)

    def _check_base(self, path: Path, header: Mapping[str, str]) -> None:
        """Files of ours name the base; in bfloat16 its digest is another one, and only shapes can be compared."""
        trained_on, unet = header.get("base_sha256"), self._pipeline.unet
        if trained_on is None or unet.dtype == torch.bfloat16:
            return
        if self._base_sha256 is None:
            self._base_sha256 = unet_sha256(unet)
        if trained_on != self._base_sha256:
            raise WeightsError(
                f"LoRA {path}: got one trained for the base {trained_on[:12]}, wanted one for {self._base_sha256[:12]},"
                " which is loaded; train it again or load its base"
            )

    def _inject(self, path: Path, lora: _Lora, name: str) -> None:
        options = {
            "network_alphas": lora.alphas,
            "metadata": lora.metadata,
            "adapter_name": name,
            "_pipeline": self._pipeline,
        }
        try:
            self._pipeline.load_lora_into_unet(dict(lora.weights), unet=self._pipeline.unet, **options)
            if any(key.startswith("text_encoder.") for key in lora.weights):
                encoder = self._pipeline.text_encoder
                self._pipeline.load_lora_into_text_encoder(dict(lora.weights), text_encoder=encoder, **options)
        except (ValueError, RuntimeError, KeyError, AttributeError) as error:
            raise WeightsError(f"LoRA {path}: {error}; wanted one that was trained for this base") from error


def unet_sha256(unet: UNet2DConditionModel) -> str:
    """sha256 (64 hex digits) over the UNet's weights by name, as float32: which base a LoRA belongs to."""
    digest = hashlib.sha256()
    for name, tensor in sorted(unet.state_dict().items()):
        digest.update(f"{name}\0".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_targets(path: Path, weights: Mapping[str, Tensor], unet: UNet2DConditionModel) -> None:
    """Every update is W + B A with A [rank, in], B [out, rank] for a layer of `unet` that is such a W [out, in]."""
    own = {key.removeprefix("unet."): value for key, value in weights.items() if key.startswith("unet.")}
    if not own:
        raise WeightsError(f"LoRA {path}: got {len(weights)} tensors, none for the UNet, wanted a LoRA")
    factors = convert_unet_state_dict_to_peft(own)
    layers = dict(unet.named_modules())
    for key in sorted(factors):
        name = key.removesuffix(_DOWN).removesuffix(_UP)
        if name == key or name + _DOWN not in factors or name + _UP not in factors:
            raise WeightsError(f"LoRA {path}: got {key}, wanted pairs of lora_A and lora_B")
        wanted = _shape(layers.get(name))
        if wanted is None:
            kind = type(layers[name]).__name__ if name in layers else "no layer of this base"
            raise WeightsError(f"LoRA {path}: got an update of {name} ({kind}), wanted linear layers of this base only")
        down, up = factors[name + _DOWN].flatten(1), factors[name + _UP].flatten(1)
        if (up.shape[0], down.shape[1]) != wanted or down.shape[0] != up.shape[1]:
            raise WeightsError(
                f"LoRA {path}: got {tuple(up.shape)} x {tuple(down.shape)} for {name}, wanted a product of shape"
                f" {wanted}; it was trained for another base"
            )


def _shape(layer: nn.Module | None) -> tuple[int, int] | None:
    """[out, in] of a layer that is one matrix for every pixel or token; None for any other."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1:
        return layer.out_channels, layer.in_channels
    return None
