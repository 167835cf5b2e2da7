"""Identities an hour: packs of 1 to 16 over one frozen base, against one at a time and against a published loop.

All sides learn from the same number of samples of random latents, in turn, so that a neighbour on the machine slows all
alike; `one_at_a_time` is a pack of one, `published` the loop of diffusers' LoRA example (peft layers, AdamW, batch 1,
float32 and bfloat16 as accelerate does it) with its latents and prompts cached, which that example does not do.

    python -m benchmarks.pack_training [--quick] [--rounds N] [--base embedded|sd15]

`sd15` is Stable Diffusion 1.5's architecture with random weights at 512 px, rank 32, on CUDA.
"""

import argparse
import copy
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig

from benchmarks.report import write
from benchmarks.workloads import stable_diffusion_scheduler, stable_diffusion_unet
from studiolo.generation.base import TEXT_LENGTH, load_base
from studiolo.settings import FaceLoraSettings
from studiolo.training.cache import Cache
from studiolo.training.learner import Draw, Learner
from studiolo.training.losses import training_losses
from studiolo.training.pack import Pack
from studiolo.weights.fetch import pull

CURVE = (1, 2, 4, 8, 16)
_VIEWS = 8


@dataclass(frozen=True)
class Denoiser:
    """The part of a pipeline that training steps use."""

    unet: UNet2DConditionModel
    scheduler: DDIMScheduler


@dataclass(frozen=True)
class Side:
    """One way to train: a call does `samples` samples' worth of work, over all its identities."""

    step: Callable[[], None]
    samples: int


def main() -> None:
    """Time every side and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of packs of 1 and 4: shows that it runs")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median counts")
    parser.add_argument("--base", choices=("embedded", "sd15"), default="embedded", help="sd15 needs CUDA")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    sd15 = arguments.base == "sd15"
    settings = FaceLoraSettings(rank=32, alpha=32.0, batch_size=1) if sd15 else FaceLoraSettings()
    denoiser = _sd15() if sd15 else _embedded()
    curve = CURVE[:3:2] if arguments.quick else CURVE
    makers: dict[str, Callable[[], Side]] = {
        "published_float32": lambda: _published(denoiser, settings, torch.float32),
        "published_bfloat16": lambda: _published(denoiser, settings, torch.bfloat16),
        **{f"pack_{slots}": lambda slots=slots: _pack(denoiser, settings, slots) for slots in curve},  # type: ignore[misc]
    }
    rounds = 1 if arguments.quick else arguments.rounds
    seconds, peaks = _times(makers, rounds)
    wanted = settings.steps * settings.batch_size
    hourly = {name: round(3600 / (wanted * each), 3) for name, each in seconds.items()}
    most = hourly[f"pack_{curve[-1]}"]
    published = max(hourly["published_float32"], hourly["published_bfloat16"])
    figures = {
        "base": arguments.base,
        "rounds": rounds,
        "samples_per_identity": wanted,
        "rank": settings.rank,
        "batch_of_an_identity": settings.batch_size,
        "threads": torch.get_num_threads(),
        "identities_per_hour": hourly,
        "accelerator_peak_mib": peaks,
    }
    ratios = {
        f"pack_{curve[-1]}_over_one_at_a_time": round(most / hourly["pack_1"], 3),
        f"pack_{curve[-1]}_over_published_float32": round(most / hourly["published_float32"], 3),
        f"pack_{curve[-1]}_over_published_bfloat16": round(most / hourly["published_bfloat16"], 3),
        f"pack_{curve[-1]}_over_published_best": round(most / published, 3),
    }
    suffix = ("-sd15" if sd15 else "") + ("-quick" if arguments.quick else "")
    write(f"pack_training{suffix}", ratios, figures)


def _embedded() -> Denoiser:
    base = load_base(pull("embedded-base"))
    return Denoiser(base.unet, base.scheduler)


def _sd15() -> Denoiser:
    unet = stable_diffusion_unet("cuda").requires_grad_(False).eval().to(torch.bfloat16)
    return Denoiser(unet, stable_diffusion_scheduler())


def _cache(denoiser: Denoiser) -> Cache:
    config = denoiser.unet.config
    length = 77 if config.cross_attention_dim == 768 else TEXT_LENGTH
    shape = (_VIEWS, config.in_channels, config.sample_size, config.sample_size)
    return Cache(
        mean_NCHW=torch.randn(shape),
        std_NCHW=torch.full(shape, 0.1),
        mask_NHW=torch.ones(_VIEWS, *shape[2:]),
        prompt_N=torch.arange(_VIEWS) % 2,
        prompts_PLD=torch.randn(2, length, config.cross_attention_dim),
    )


def _learner(denoiser: Denoiser, settings: FaceLoraSettings, pack: Pack, number: int) -> Learner:
    noise_steps = denoiser.scheduler.config.num_train_timesteps
    device = denoiser.unet.device
    return Learner(str(number), _cache(denoiser), pack.layers, settings, number, noise_steps=noise_steps, device=device)


def _pack(denoiser: Denoiser, settings: FaceLoraSettings, slots: int) -> Side:
    pack = Pack(cast(StableDiffusionPipeline, denoiser), settings, slots)
    pack.slots = [_learner(denoiser, settings, pack, number) for number in range(slots)]
    return Side(pack.step, slots * settings.batch_size)


def _published(denoiser: Denoiser, settings: FaceLoraSettings, dtype: torch.dtype) -> Side:
    """One sample a step, as the example does: frozen weights in `dtype`, LoRA weights in float32 under autocast."""
    unet = copy.deepcopy(denoiser.unet).to(dtype)
    unet.add_adapter(LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=list(settings.targets)))
    trained = [weight.data.float() for weight in unet.parameters() if weight.requires_grad]
    for weight, value in zip((w for w in unet.parameters() if w.requires_grad), trained, strict=True):
        weight.data = value
    parameters = [weight for weight in unet.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate)
    single = settings.model_copy(update={"batch_size": 1})
    learner = _learner(denoiser, single, Pack(cast(StableDiffusionPipeline, denoiser), single, 1), 0)
    device = unet.device

    def step() -> None:
        draw = learner.draw()
        batch: dict[str, Any] = {name: getattr(draw, name).to(device) for name in Draw.__dataclass_fields__}
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = training_losses(
                unet,
                denoiser.scheduler,
                batch["latents_BCHW"],
                batch["noise_BCHW"],
                batch["timesteps_B"],
                batch["prompts_BLD"],
                min_snr_gamma=settings.min_snr_gamma,
                mask_BHW=batch["mask_BHW"],
            ).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
        optimiser.step()
        optimiser.zero_grad()

    return Side(step, 1)


def _times(makers: dict[str, Callable[[], Side]], rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds a sample, and on an accelerator the peak of its memory in MiB, by side."""
    on_gpu = torch.cuda.is_available()
    taken: dict[str, list[float]] = {name: [] for name in makers}
    peaks: dict[str, float] = {}
    for _ in range(rounds):
        for name, make in makers.items():
            gc.collect()  # what is left of the side before would count as memory of this one
            side = make()
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            side.step()  # warms up
            repeats = max(1, 16 // side.samples)
            _wait(on_gpu)
            started = time.perf_counter()
            for _ in range(repeats):
                side.step()
            _wait(on_gpu)
            taken[name].append((time.perf_counter() - started) / (repeats * side.samples))
            if on_gpu:
                peaks[name] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
            del side
    return {name: statistics.median(values) for name, values in taken.items()}, peaks


def _wait(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
