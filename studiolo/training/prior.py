"""Prior preservation (Ruiz et al. 2023, DreamBooth, section 3.2): the base's own pictures of a class, learned beside an
identity so that the class keeps its meaning.
"""

import hashlib

import torch
from diffusers import StableDiffusionPipeline

from studiolo.training.cache import Cache, encode_prompts

STEPS = 30
GUIDANCE_SCALE = 3.0
_BATCH = 4


@torch.inference_mode()
def class_cache(base: StableDiffusionPipeline, prompt: str, count: int, side_px: int | None = None) -> Cache:
    """Latents of `count` pictures that `base` makes of `prompt`, with the side `side_px` or its own; the same for every
    identity and seed of a job.
    """
    digest = hashlib.sha256(f"class\0{prompt}".encode(errors="surrogatepass")).digest()
    first_seed = int.from_bytes(digest[:4], "big")
    latents = []
    for start in range(0, count, _BATCH):  # always whole batches: bytes depend on their size
        latents.append(
            base(
                [prompt] * _BATCH,
                height=side_px,
                width=side_px,
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE_SCALE,
                generator=[torch.Generator().manual_seed(first_seed + start + index) for index in range(_BATCH)],
                output_type="latent",
            ).images
        )
    mean_NCHW = torch.cat(latents)[:count].float().cpu()
    return Cache(
        mean_NCHW=mean_NCHW,
        std_NCHW=torch.zeros_like(mean_NCHW),
        mask_NHW=torch.ones(count, *mean_NCHW.shape[2:]),
        prompt_N=torch.ones(count, dtype=torch.int64),
        prompts_PLD=encode_prompts(base, ["", prompt]),
    )
