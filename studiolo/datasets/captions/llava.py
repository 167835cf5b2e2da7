"""Captions by LLaVA, as ConsistentID made its own: two prompts a picture, greedy decoding."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studiolo.datasets.captions.captioner import FACE_PROMPT, PERSON_PROMPT, Caption, Row, Usage, version_of
from studiolo.datasets.captions.descriptions import captions_of
from studiolo.datasets.captions.pictures import picture_of
from studiolo.datasets.captions.settings import LlavaSettings
from studiolo.errors import WeightsError
from studiolo.weights.cards import load_card
from studiolo.weights.fetch import pull

_CONVERSATION = "USER: <image>\n{} ASSISTANT:"
"""How LLaVA 1.5 was spoken to in its training."""


class Llava:
    """A `LlavaForConditionalGeneration` and its processor."""

    def __init__(self, settings: LlavaSettings | None = None) -> None:
        self.settings = settings or LlavaSettings()
        decisive = self.settings.model_dump(exclude={"card"})
        card = load_card(self.settings.card)
        self.id = f"{card.id}@{version_of(card.key(), _CONVERSATION, PERSON_PROMPT, FACE_PROMPT, decisive)}"
        self.rows_per_part: int | None = 2 * self.settings.batch_size
        self.usage = Usage()
        self._model: Any = None
        self._processor: Any = None

    def open(self, device: str = "cpu") -> None:
        """Fetch, verify and load the model: bfloat16 on an accelerator, float32 on a processor."""
        self.use(*load_llava(pull(self.settings.card), device))

    def use(self, model: Any, processor: Any) -> None:
        """Work with a model and processor that are loaded already."""
        self._model, self._processor = model, processor

    def __call__(self, rows: Sequence[Row]) -> list[list[Caption]]:
        """See `Captioner`."""
        size = self.settings.batch_size
        captions: list[list[Caption]] = []
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            pictures = [picture_of(row, self.settings.side_px) for row in batch]
            pictures += [pictures[-1]] * (size - len(pictures))
            told = zip(self._ask(pictures, PERSON_PROMPT), self._ask(pictures, FACE_PROMPT), strict=True)
            captions += [captions_of(person, features) for person, features in list(told)[: len(batch)]]
        return captions

    def close(self) -> None:
        """Let go of the model."""
        self._model = self._processor = None

    def _ask(self, pictures: list[Any], prompt: str) -> list[str]:
        import torch

        texts = [_CONVERSATION.format(prompt)] * len(pictures)
        inputs = self._processor(images=pictures, text=texts, return_tensors="pt").to(
            self._model.device, dtype=self._model.dtype
        )
        with torch.inference_mode():
            tokens = self._model.generate(**inputs, do_sample=False, max_new_tokens=self.settings.max_new_tokens)
        answers = tokens[:, inputs["input_ids"].shape[1] :]  # all prompts are equally long
        return list(self._processor.batch_decode(answers, skip_special_tokens=True))


def load_llava(folder: Path, device: str = "cpu") -> tuple[Any, Any]:
    """Model and processor from a folder of a hub's files. Raises `WeightsError` when they are no LLaVA's."""
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=dtype, local_files_only=True)
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"llava: {folder}: {error}; pull its card again") from error
    return model.eval().requires_grad_(False).to(device), processor
