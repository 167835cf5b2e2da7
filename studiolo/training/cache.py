"""Everything a face-LoRA learns from, encoded once: latents of many views, their masks, and the captions'
embeddings.

Shapes: N views, C latent channels, H and W of the latents, P prompts, L tokens, D width.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from studiolo.albums.geometry import FACE_CENTRE
from studiolo.generation.base import fits, tokenize
from studiolo.identities.captions import fit_phrases
from studiolo.identities.references import CROP_FACE_RATIO
from studiolo.training.looks import LOOKS, put_look, without_lost_colours

_JITTER = 0.04  # of the view's side, either way

_ENCODE_BATCH = 16
_OTHER_SIDE = {"left": "right", "right": "left"}


@dataclass(frozen=True, eq=False)
class TrainingPhoto:
    """One reference as the trainer reads it."""

    rgb_u8: NDArray[np.uint8]
    """[S, S, 3], upright, the face in the middle at `CROP_FACE_RATIO` of the side."""
    mask: NDArray[np.float32]
    """[S, S] in 0..1: the head."""
    caption: str

    @property
    def sha256(self) -> str:
        """Hash (64 hex digits) of pixels, mask and caption."""
        digest = hashlib.sha256(np.ascontiguousarray(self.rgb_u8).tobytes())
        digest.update(np.ascontiguousarray(self.mask, np.float32).tobytes())
        digest.update(f"{self.rgb_u8.shape}\0{self.caption}".encode())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Cache:
    """The views of one identity, encoded."""

    mean_NCHW: Tensor
    """Mean of the latents, scaled as the denoiser expects them."""
    std_NCHW: Tensor
    """Their standard deviation: a view's latents are mean + std * noise."""
    mask_NHW: Tensor
    """Share of the head in each latent pixel, 0..1."""
    prompt_N: Tensor
    """Row of `prompts_PLD` of each view."""
    prompts_PLD: Tensor
    """Prompt embeddings; row 0 is the empty prompt's."""


def build_cache(
    base: StableDiffusionPipeline,
    photos: Sequence[TrainingPhoto],
    views_per_photo: int,
    face_ratio: tuple[float, float],
    rng: np.random.Generator,
    look_share: float = 0.0,
    side_px: int | None = None,
) -> Cache:
    """`views_per_photo` random views of every photo, each also flipped, through `base`'s encoders.

    A share of `look_share` gets a look, see `random_look`. Views have the side `side_px`, else the base's own.
    """
    if side_px is None:
        side_px = base.unet.config.sample_size * base.vae_scale_factor
    images: list[NDArray[np.uint8]] = []
    masks: list[NDArray[np.float32]] = []
    captions: list[str] = []
    for photo in photos:
        for _ in range(views_per_photo):
            image, mask = random_view(photo, side_px, face_ratio, rng)
            image, caption = random_look(image, photo.caption, look_share, rng, partial(fits, base.tokenizer))
            images += [image, np.ascontiguousarray(image[:, ::-1])]
            masks += [mask, np.ascontiguousarray(mask[:, ::-1])]
            captions += [caption, flipped_caption(caption)]
    prompts = ["", *dict.fromkeys(captions)]
    mean, std = encode_images(base, images)
    mask_NHW = torch.from_numpy(np.stack(masks))
    return Cache(
        mean_NCHW=mean,
        std_NCHW=std,
        mask_NHW=F.adaptive_avg_pool2d(mask_NHW[:, None], (mean.shape[2], mean.shape[3]))[:, 0],
        prompt_N=torch.tensor([prompts.index(caption) for caption in captions]),
        prompts_PLD=encode_prompts(base, prompts),
    )


def random_view(
    photo: TrainingPhoto, side_px: int, face_ratio: tuple[float, float], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A square view of `photo`, [side_px, side_px, 3], and its mask (FaceChain's random crop, section 2.1.1).

    The face takes a random share of the side within `face_ratio` and lies about `FACE_CENTRE`; no view
    reaches beyond the stored crop.
    """
    stored_px = photo.rgb_u8.shape[0]
    view_px = min(stored_px, round(CROP_FACE_RATIO * stored_px / rng.uniform(*face_ratio)))
    centre = np.array(FACE_CENTRE) + rng.uniform(-_JITTER, _JITTER, 2)
    x, y = np.rint(stored_px / 2 - centre * view_px).astype(int).clip(0, stored_px - view_px)
    shrinks = cv2.INTER_AREA if view_px > side_px else cv2.INTER_CUBIC
    image = cv2.resize(photo.rgb_u8[y : y + view_px, x : x + view_px], (side_px, side_px), interpolation=shrinks)
    mask = cv2.resize(
        photo.mask[y : y + view_px, x : x + view_px].astype(np.float32),
        (side_px, side_px),
        interpolation=cv2.INTER_AREA,
    )
    return image, mask


def random_look(
    rgb_u8: NDArray[np.uint8],
    caption: str,
    share: float,
    rng: np.random.Generator,
    fits: Callable[[str], bool] = lambda text: True,
) -> tuple[NDArray[np.uint8], str]:
    """The view and its caption as they are or, with probability `share`, in one of the looks that the base knows.

    The look's words go into the caption, in the place of its last tags when not all of it `fits`: an identity
    learned from colour photos alone would take their sense away.
    """
    if rng.random() >= share:
        return rgb_u8, caption
    look = str(rng.choice(list(LOOKS)))
    trigger, *tags = caption.split(", ")
    return put_look(rgb_u8, look), fit_phrases(trigger, without_lost_colours(tuple(tags), look), look, fits)


def flipped_caption(caption: str) -> str:
    """`caption` of the mirrored picture: left and right change places."""
    return re.sub(r"\b(left|right)\b", lambda side: _OTHER_SIDE[side[0]], caption)


@torch.no_grad()
def encode_images(base: StableDiffusionPipeline, images: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [N, C, H, W] of the latents of images [S, S, 3], scaled for the denoiser."""
    means, stds = [], []
    for start in range(0, len(images), _ENCODE_BATCH):
        pixels = np.stack(images[start : start + _ENCODE_BATCH]).astype(np.float32) / 127.5 - 1
        batch_B3SS = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(base.device, base.vae.dtype)
        latents = base.vae.encode(batch_B3SS).latent_dist
        means.append(latents.mean.float().cpu())
        stds.append(latents.std.float().cpu())
    scale = base.vae.config.scaling_factor
    return torch.cat(means) * scale, torch.cat(stds) * scale


@torch.no_grad()
def encode_prompts(base: StableDiffusionPipeline, prompts: Sequence[str]) -> Tensor:
    """Embeddings [P, L, D] of prompts, padded as the pipeline pads them."""
    embeddings: Tensor = base.text_encoder(tokenize(base.tokenizer, prompts).to(base.device)).last_hidden_state
    return embeddings.float().cpu()
