"""One identity trained alone, in a pack of one."""

from collections.abc import Sequence

from diffusers import StableDiffusionPipeline

from studiolo.settings import FaceLoraSettings
from studiolo.training.cache import TrainingPhoto
from studiolo.training.checkpoints import UnitCheckpoint
from studiolo.training.face_lora import FaceLora
from studiolo.training.pack import Pack, keep, resume


def train_alone(
    base: StableDiffusionPipeline,
    photos: Sequence[TrainingPhoto],
    settings: FaceLoraSettings,
    *,
    identity_id: str = "anna",
    trigger: str = "a woman",
    seed: int = 0,
    checkpoint: UnitCheckpoint | None = None,
) -> FaceLora:
    """Its face-LoRA. Raises what the training ended with."""
    pack = Pack(base, settings, 1)
    learner = pack.learner(identity_id, photos, seed, trigger)
    if checkpoint is not None:
        resume(learner, checkpoint)
    waiting = [learner]

    def tick() -> None:
        if checkpoint is not None:
            keep(learner, checkpoint)

    pack.run(lambda _: [waiting.pop()] if waiting else [], lambda _: None, tick)
    if learner.error is not None:
        raise learner.error
    return pack.face_lora(learner, trigger=trigger, photos=len(photos), seed=seed)
