"""LLaVA's real classes at a tiny size with fixed random weights: everything runs, only the words mean nothing. For
tests.
"""

from typing import Any

from studiolo.generation.tiny import tiny_tokenizer

_WIDTH, _IMAGE_PX, _PATCH_PX = 32, 28, 14


def tiny_llava(seed: int = 0) -> tuple[Any, Any]:
    """A model that sees 28 px in four patches, and its processor; the same weights for the same `seed`."""
    import torch
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 512
    tokenizer.padding_side = "left"
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    vision = CLIPVisionConfig(
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=_IMAGE_PX,
        patch_size=_PATCH_PX,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids("<image>")
    )
    images = CLIPImageProcessorPil(
        size={"shortest_edge": _IMAGE_PX}, crop_size={"height": _IMAGE_PX, "width": _IMAGE_PX}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config).eval().requires_grad_(False)
    processor = LlavaProcessor(
        images, tokenizer, patch_size=_PATCH_PX, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    return model, processor
