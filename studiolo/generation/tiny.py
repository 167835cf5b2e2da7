"""The base's real classes at a tiny size with fixed random weights: everything runs as with a real base, only
the pictures mean nothing. For tests and trials.
"""

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizerFast

from studiolo.generation.autoencoder import SpaceToDepthAutoencoderKL
from studiolo.generation.base import TEXT_LENGTH, assemble

_WIDTH = 32
_WORDS = ("a", "photo", "portrait", "of", "person", "man", "woman", "studio", "sks")
_SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def tiny_base(seed: int = 0, latent_channels: int = 8) -> StableDiffusionPipeline:
    """A base for 64 px with 8x8 latents, in float32, frozen; the same weights for the same `seed`.

    The embedded base's latents have 8 channels, Stable Diffusion's 4: diffusers' inpainting takes no others.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return assemble(
            _autoencoder(latent_channels), _unet(latent_channels), _text_encoder(), tiny_tokenizer(), _scheduler()
        )


def tiny_tokenizer() -> CLIPTokenizerFast:
    """CLIP's byte-level BPE with merges for a few words; any text can be encoded."""
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in _WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            if (parts[0], parts[1]) not in merges:
                merges.append((parts[0], parts[1]))
            parts[:2] = [parts[0] + parts[1]]
            if parts[0] not in tokens:
                tokens.append(parts[0])
    vocabulary = {token: index for index, token in enumerate([*tokens, *_SPECIAL])}
    return CLIPTokenizerFast(vocab=vocabulary, merges=merges, model_max_length=TEXT_LENGTH)


def _autoencoder(latent_channels: int) -> SpaceToDepthAutoencoderKL:
    return SpaceToDepthAutoencoderKL(
        block_out_channels=(12, 48, 16, 16), latent_channels=latent_channels, norm_num_groups=8, sample_size=64
    )


def _text_encoder() -> CLIPTextModel:
    tokenizer = tiny_tokenizer()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=_WIDTH,
            intermediate_size=2 * _WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            projection_dim=_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _unet(latent_channels: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=latent_channels,
        out_channels=latent_channels,
        layers_per_block=1,
        block_out_channels=(32, 32),
        norm_num_groups=8,
        attention_head_dim=4,
        cross_attention_dim=_WIDTH,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
