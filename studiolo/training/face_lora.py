"""A face-LoRA as a file: one identity's low-rank updates of the frozen base, as diffusers reads and writes them."""

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils import convert_state_dict_to_diffusers, convert_unet_state_dict_to_peft
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import studiolo
from studiolo.errors import WeightsError
from studiolo.generation.grouped import Factors
from studiolo.identities.artifacts import LORA_FILE
from studiolo.keys import PLAN_FIELDS
from studiolo.settings import FaceLoraSettings

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, eq=False)
class FaceLora:
    """A trained face-LoRA."""

    weights: dict[str, Tensor]
    """By diffusers' names, with the prefix `unet.`."""
    metadata: dict[str, str]
    """What it was trained on and how; strings, as the file's header wants them."""
    final_loss: float
    """Mean loss over the last tenth of the steps."""

    def save(self, folder: Path) -> Path:
        """Write `folder/pytorch_lora_weights.safetensors`, which an unmodified pipeline's `load_lora_weights`
        takes.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LORA_FILE
        path.write_bytes(lora_bytes(self.weights, self.metadata))
        return path


def lora_bytes(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file, the same bytes for the same content."""
    return _with_sorted_metadata(save(dict(weights), metadata=dict(metadata)))


def diffusers_weights(factors: Mapping[str, Factors], convolutions: Container[str] = ()) -> dict[str, Tensor]:
    """`down_RI` and `up_OR` of each layer by the names that diffusers writes; those of 1x1 `convolutions` get two axes
    more, as these have.
    """
    layers = {}
    for name, pair in factors.items():
        down, up = (factor[..., None, None] if name in convolutions else factor for factor in pair)
        layers[name + _DOWN], layers[name + _UP] = down, up
    named = convert_state_dict_to_diffusers(layers)
    return {f"unet.{name}": tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(named.items())}


def metadata_of(
    settings: FaceLoraSettings, *, base_sha256: str, trigger: str, photos: int, seed: int, slots: int
) -> dict[str, str]:
    """The file's header: diffusers' configuration of the LoRA, so that alpha is not guessed from the rank, and the
    circumstances.
    """
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=list(settings.targets)).to_dict()
    plain = {f"unet.{name}": sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    return {
        "format": "pt",
        LORA_ADAPTER_METADATA_KEY: json.dumps(plain, sort_keys=True, default=str),
        "base_sha256": base_sha256,
        "trigger": trigger,
        "photos": str(photos),
        "seed": str(seed),
        "slots": str(slots),
        "settings": settings.model_dump_json(exclude=set(PLAN_FIELDS)),
        "studiolo": studiolo.__version__,
    }


def read_factors(path: Path) -> dict[str, Factors]:
    """`down_RI` and `up_OR` of each layer of a face-LoRA's file, its own alpha folded into `up_OR`.

    Raises `WeightsError` for a file that is not a face-LoRA as diffusers writes it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {
                name.removeprefix("unet."): file.get_tensor(name).float().flatten(1) for name in list(file.keys())
            }
        factors = convert_unet_state_dict_to_peft(weights)
        config = json.loads(header[LORA_ADAPTER_METADATA_KEY])
        scale = float(config["unet.lora_alpha"]) / float(config["unet.r"])
        names = sorted({name.removesuffix(_DOWN).removesuffix(_UP) for name in factors})
        return {name: (factors[name + _DOWN], scale * factors[name + _UP]) for name in names}
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise WeightsError(
            f"face-LoRA {path}: got a file that cannot be read ({error}), wanted one that `python -m jobs train` made"
        ) from error


def fitting(factors: Mapping[str, Factors], like: Mapping[str, tuple[int, int]], settings: FaceLoraSettings) -> None:
    """Raises `WeightsError` unless `factors` are of layers of `like` ([O, I]) and have the rank of `settings`."""
    for name, (down_RI, up_OR) in factors.items():
        got = (up_OR.shape[0], down_RI.shape[1], down_RI.shape[0])
        wanted = (*like[name], settings.rank) if name in like else None
        if got != wanted:
            raise WeightsError(
                f"face-LoRA to start from: got {name} of {got} (outputs, inputs, rank), wanted"
                f" {wanted or 'no such layer'}; train it with the same face_lora.rank, face_lora.targets and base"
            )


def _with_sorted_metadata(content: bytes) -> bytes:
    """A safetensors file with its metadata in the order of their names: the library writes them in a random one.

    The header is JSON behind its length (8 bytes), filled with blanks to a multiple of 8; tensors follow unchanged.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]
