"""How many identities a worker trains in one pass: as many as fit into its memory and are of use to its processor.

The number decides bytes, so it follows from the machine and the settings alone and not from what happens to be free.
"""

from studiolo.settings import FaceLoraSettings

CPU_SLOTS = 2
"""Slots for each core: more make a pack little faster, leave cores idle in a small job, and its padding is dearer;
measured, see docs/LOG.md."""
ACCELERATOR_SLOTS = 16
"""Slots of an accelerator at most."""
MEMORY_SHARE = 0.5
"""Of the memory, for all workers of the machine together; the rest is for Ray, the driver and the system."""

BASE_BYTES = int(1.2 * 2**30)
"""A worker with the embedded base in two precisions and its samples' engine; measured, see docs/LOG.md."""
ROW_BYTES = 20 * 2**20
"""What a row of the batch adds on the embedded base in bfloat16; measured: 19 MiB, 37 in float32, see docs/LOG.md."""
FACTOR_BYTES = 8 * 2**20
"""A face-LoRA of rank 16: 516,096 numbers, each with its gradient and two moments in float32."""

LATENT_PX = 8
"""Pixels of a picture to one of its latents, along a side."""

SHAPES = {"embedded-base": (16, 128), "facechain-base-film": (64, 320)}
"""Side of the latents and channels at that side of each suite's base: activations grow with both."""


def resolve_slots(settings: FaceLoraSettings, base: str, memory_bytes: int) -> int:
    """Slots of a worker: those of `settings`, else what its share of `memory_bytes` (its accelerator's own, or the
    machine's) holds, at least 1.
    """
    if settings.slots is not None:
        return settings.slots
    share = MEMORY_SHARE * memory_bytes / (1 if settings.accelerator else settings.workers[1])
    if settings.memory_limit_mib is not None:
        share = settings.memory_limit_mib * 2**20
    fitting = int((share - BASE_BYTES) // identity_bytes(settings, base))
    most = ACCELERATOR_SLOTS if settings.accelerator else CPU_SLOTS * settings.cpus_per_worker
    return max(1, min(most, fitting))


def identity_bytes(settings: FaceLoraSettings, base: str) -> int:
    """Memory of one identity in training on `base`: its rows' activations, its factors with all that AdamW keeps."""
    side, width = SHAPES[base]
    if settings.resolution is not None:
        side = settings.resolution // LATENT_PX
    rows = settings.batch_size * (2 if settings.prior_weight else 1)
    row = ROW_BYTES * (side / 16) ** 2 * (width / 128) * (2 if settings.precision == "float32" else 1)
    return int(rows * row + FACTOR_BYTES * settings.rank / 16 * (width / 128) ** 2)
