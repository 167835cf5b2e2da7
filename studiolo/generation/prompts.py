"""Prompts as embeddings: encoded a fixed number at a time, each with the text part of its own LoRAs, and cached.

Shapes: L tokens, D their width.
"""

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from studiolo.generation.adapters import Factors
from studiolo.generation.base import tokenize
from studiolo.generation.grouped import FactorBuffers, with_own_hooks

_BATCH = 4
"""Prompts encoded at a time, the rest padded: kernels choose their blocking by the size of the batch."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A text and the LoRAs it is read with."""

    text: str
    factors: Factors

    @property
    def key(self) -> tuple[str, tuple[tuple[str, float], ...]]:
        """What the embedding depends on."""
        return self.text, self.factors.text_key


class PromptEncoder:
    """Embeds prompts with the text encoder of `pipeline`; the `cached` used last are kept.

    Its tokenizer is its own: the padding is a state of the tokenizer, and another thread may ask it without.
    """

    def __init__(self, pipeline: StableDiffusionPipeline, rank_budget: int, cached: int = 256) -> None:
        self._tokenizer, self._encoder = copy.deepcopy(pipeline.tokenizer), with_own_hooks(pipeline.text_encoder)
        self._rank_budget, self._cached = rank_budget, cached
        self._known: OrderedDict[tuple[str, tuple[tuple[str, float], ...]], Tensor] = OrderedDict()

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Prompt]) -> list[Tensor]:
        """The embedding [L, D] of each prompt."""
        known = self._known
        found = {prompt.key: known[prompt.key] for prompt in prompts if prompt.key in known}
        missing = list({prompt.key: prompt for prompt in prompts if prompt.key not in found}.values())
        for first in range(0, len(missing), _BATCH):
            batch = missing[first : first + _BATCH]
            found.update(zip((prompt.key for prompt in batch), self._encode(batch), strict=False))
        for key, embedding in found.items():
            known[key] = embedding
            known.move_to_end(key)
        while len(known) > self._cached:
            known.popitem(last=False)
        return [found[prompt.key] for prompt in prompts]

    def forget(self) -> int:
        """Drop all embeddings, from any thread; how many there were."""
        known, self._known = self._known, OrderedDict()
        return len(known)

    def _encode(self, batch: Sequence[Prompt]) -> Tensor:
        """Embeddings [_BATCH, L, D]; the last ones are padding."""
        encoder = self._encoder
        factors = FactorBuffers(_BATCH, self._rank_budget, encoder.dtype, encoder.device)
        for row, prompt in enumerate(batch):
            factors.write(row, prompt.factors.text)
        texts = [prompt.text for prompt in batch] + [""] * (_BATCH - len(batch))
        with factors.acting(encoder):
            embeddings: Tensor = encoder(tokenize(self._tokenizer, texts).to(encoder.device))[0]
        return embeddings
