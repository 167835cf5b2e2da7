"""Samples of a base as latents, by diffusers' own pipeline: made where there is an accelerator, judged elsewhere.

`python -m benchmarks.base --prompts FILE` writes the prompts, this samples them, and `benchmarks.base --latents FOLDER`
decodes what it finds as FOLDER/base.npz (and before.npz) and looks at it.

    python -m benchmarks.base_latents --prompts FILE --base FOLDER --out FILE.npz [--device cuda]
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from studiolo.errors import SettingsError
from studiolo.generation.base import load_base
from studiolo.generation.slot import MOST_ETA
from studiolo.settings import GenerationSettings

_BATCH = 500
_FIRST_SEED = 1_000_000


def main() -> None:
    """Sample and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, required=True, help="JSON list, by `benchmarks.base --prompts`")
    parser.add_argument("--base", type=Path, required=True, help="folder of the base")
    parser.add_argument("--out", type=Path, required=True, help="file for the latents, NAME.npz")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    prompts = json.loads(arguments.prompts.read_text(encoding="utf-8"))
    dtype = torch.float32 if arguments.device == "cpu" else torch.float16
    base = load_base(arguments.base, dtype, device=arguments.device)
    write_latents(arguments.out, prompts, sample_latents(base, prompts, GenerationSettings()))


@torch.no_grad()
def sample_latents(
    base: StableDiffusionPipeline, prompts: Sequence[str], settings: GenerationSettings
) -> NDArray[np.float16]:
    """Latents [N, C, H, W] of one sample of each prompt; its seed is its place's."""
    found = []
    for at in range(0, len(prompts), _BATCH):
        batch = list(prompts[at : at + _BATCH])
        latents = base(
            batch,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            eta=min(settings.eta, MOST_ETA),
            generator=[torch.Generator().manual_seed(_FIRST_SEED + at + place) for place in range(len(batch))],
            output_type="latent",
        ).images
        found.append(latents.half().cpu().numpy())
    return np.concatenate(found)


def write_latents(path: Path, prompts: Sequence[str], latents_NCHW: NDArray[np.float16]) -> None:
    """Keep latents with the hash of their prompts and the device they were sampled on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    np.savez(path, latents=latents_NCHW, prompts=_hash(prompts), device=device)


def read_latents(path: Path, prompts: Sequence[str]) -> tuple[NDArray[np.float16], str]:
    """Latents [N, C, H, W] of `prompts`, and the device. Raises `SettingsError` when they are of other prompts."""
    with np.load(path) as kept:
        if str(kept["prompts"]) != _hash(prompts):
            raise SettingsError(f"latents {path}: made for other prompts than these {len(prompts)}; make them anew")
        return kept["latents"], str(kept["device"])


def _hash(prompts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest()


if __name__ == "__main__":
    main()
