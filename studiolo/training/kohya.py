"""A face-LoRA in the format of kohya's trainer, which the webui and its kin read."""

import hashlib
import json

from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors.torch import load, save
from torch import Tensor, tensor

from studiolo.training.face_lora import lora_bytes

_PREFIX = "lora_unet_"
_SIDES = {".lora_A.weight": ".lora_down.weight", ".lora_B.weight": ".lora_up.weight"}


def kohya_bytes(diffusers_file: bytes) -> bytes:
    """The face-LoRA that `FaceLora.save` wrote, as kohya's `networks.lora` names it, alpha beside each layer."""
    start = 8 + int.from_bytes(diffusers_file[:8], "little")
    header = json.loads(diffusers_file[8:start])["__metadata__"]
    alpha = float(json.loads(header[LORA_ADAPTER_METADATA_KEY])["unet.lora_alpha"])
    factors = convert_unet_state_dict_to_peft(
        {name.removeprefix("unet."): weight for name, weight in load(diffusers_file).items()}
    )
    weights: dict[str, Tensor] = {}
    for name, weight in sorted(factors.items()):
        side = next(side for side in _SIDES if name.endswith(side))
        layer = _PREFIX + name.removesuffix(side).replace(".", "_")
        weights[layer + _SIDES[side]] = weight
        weights[f"{layer}.alpha"] = tensor(alpha)
    return lora_bytes(weights, _metadata(header, alpha) | _hashes(weights))


def _metadata(header: dict[str, str], alpha: float) -> dict[str, str]:
    """What the webui shows of a file; all values are texts."""
    settings = json.loads(header["settings"])
    return {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(settings["rank"]),
        "ss_network_alpha": str(alpha),
        "ss_learning_rate": str(settings["learning_rate"]),
        "ss_lr_scheduler": settings["schedule"],
        "ss_optimizer": "torch.optim.adamw.AdamW",
        "ss_max_train_steps": str(settings["steps"]),
        "ss_batch_size_per_device": str(settings["batch_size"]),
        "ss_num_train_images": header["photos"],
        "ss_min_snr_gamma": str(settings["min_snr_gamma"]),
        "ss_noise_offset": str(settings["noise_offset"]),
        "ss_caption_dropout_rate": str(settings["caption_dropout"]),
        "ss_mixed_precision": {"bfloat16": "bf16", "float32": "no"}[settings["precision"]],
        "ss_seed": header["seed"],
        "ss_output_name": "face-lora",
        "ss_tag_frequency": json.dumps({"album": {header["trigger"]: int(header["photos"])}}),
        "ss_training_comment": f"trigger: {header['trigger']}; base unet sha256: {header['base_sha256']}",
    }


def _hashes(weights: dict[str, Tensor]) -> dict[str, str]:
    """The hash by which the webui knows a LoRA whatever its metadata: sha256 of all behind a header without any."""
    content = save(weights)
    return {"sshs_model_hash": hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()}
