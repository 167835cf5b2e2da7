"""Prompts: encoded as the pipeline does, together or alone, each with its own LoRAs' part."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from studiolo.generation.adapters import Adapters, Factors
from studiolo.generation.prompts import Prompt, PromptEncoder
from studiolo.generation.tiny import tiny_base
from tests.generation.conftest import LoraFile

LAYER = "encoder.layers.1.self_attn.{}_proj"


@pytest.fixture
def encoder(base: StableDiffusionPipeline) -> PromptEncoder:
    return PromptEncoder(base, rank_budget=8)


@pytest.fixture
def text_lora(lora_file: LoraFile) -> Path:
    """With updates of the UNet and of the text encoder."""
    path, generator = lora_file("style", 1, targets=("to_q", "to_v")), torch.Generator().manual_seed(3)
    tensors = load_file(path)
    for name in ("q", "out"):
        key = f"text_encoder.text_model.{LAYER.format(name)}.lora_linear_layer"
        tensors[f"{key}.down.weight"] = torch.randn(4, 32, generator=generator)
        tensors[f"{key}.up.weight"] = torch.randn(32, 4, generator=generator)
    save_file(tensors, path)
    return path


def plain(text: str) -> Prompt:
    return Prompt(text, Factors())


def test_as_the_pipeline_encodes_them(base: StableDiffusionPipeline, encoder: PromptEncoder) -> None:
    texts = ["a portrait", "a studio photo of a man", "", "sks", "woman"]
    for text, found in zip(texts, encoder([plain(text) for text in texts]), strict=True):
        wanted = base.encode_prompt(text, "cpu", 1, False)[0][0]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_company_changes_nothing(base: StableDiffusionPipeline, text_lora: Path) -> None:
    factors = Adapters(base).mix([(str(text_lora), 1.0)])
    prompts = [plain("a man"), Prompt("a man", factors), plain("a woman"), Prompt("", factors), plain("a studio photo")]
    together = PromptEncoder(base, 8)(prompts)
    for prompt, found in zip(prompts, together, strict=True):
        assert torch.equal(PromptEncoder(base, 8)([prompt])[0], found)


def test_a_text_encoder_lora_acts_as_in_diffusers(
    base: StableDiffusionPipeline, encoder: PromptEncoder, text_lora: Path
) -> None:
    with_lora = Prompt("a man", Adapters(base).mix([(str(text_lora), 0.6)]))
    before, found, after = encoder([plain("a man"), with_lora, plain("a man")])
    loaded = tiny_base()
    loaded.load_lora_weights(text_lora.parent, weight_name=text_lora.name, adapter_name="style")
    loaded.set_adapters(["style"], [0.6])
    torch.testing.assert_close(found, loaded.encode_prompt("a man", "cpu", 1, False)[0][0], rtol=1e-4, atol=1e-5)
    assert (found - before).abs().max() > 0.01
    assert torch.equal(before, after)


def test_the_pipelines_tokenizer_is_left_as_it_is(base: StableDiffusionPipeline, encoder: PromptEncoder) -> None:
    """Another thread may use it without the padding, which is a state of the tokenizer."""
    base.tokenizer.backend_tokenizer.no_padding()
    encoder([plain("a man")])
    assert base.tokenizer.backend_tokenizer.padding is None


def test_prompts_are_encoded_once(encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encoder([plain("a man"), plain("a woman"), plain("a man")])
    monkeypatch.setattr(PromptEncoder, "_encode", None)
    again = encoder([plain("a woman"), plain("a man")])
    assert torch.equal(first[0], again[1])
    assert torch.equal(first[1], again[0])


def test_the_cache_has_an_end(base: StableDiffusionPipeline) -> None:
    encoder = PromptEncoder(base, rank_budget=8, cached=2)
    encoder([plain(text) for text in ("a", "of", "man", "woman", "photo")])
    assert len(encoder._known) == 2
