"""One picture on its way: its latents, its own scheduler and all that differs between schedulers.

Shapes: C latent channels, h and w of the latents.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from diffusers import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

MOST_ETA = 0.999
"""At eta 1 and no signal left (zero terminal SNR) DDIM takes the root of 0, or by rounding of a little less."""


@dataclass(frozen=True, eq=False)
class Start:
    """What a picture begins with."""

    latents_CHW: Tensor | None = None
    """Latents of a picture to begin from, scaled; pure noise when None."""
    strength: float = 1.0
    """Share of the steps that are done on `latents_CHW`, above 0, at most 1."""
    mask_HW: Tensor | None = None
    """1 where the picture is made anew, 0 where `latents_CHW` stay; all is made anew when None."""


@dataclass(eq=False)
class Conditioning:
    """What a picture is guided by."""

    prompts_2LD: Tensor
    """Embeddings of the negative prompt and the prompt."""
    guidance_scale: float = 1.0
    """Classifier-free guidance, at least 1; at 1 the negative prompt has no effect."""
    updates: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Low-rank updates of the UNet's layers, see `studiolo.generation.adapters`."""
    controls: Mapping[str, tuple[Tensor, float]] = field(default_factory=dict)
    """By ControlNet: its picture [3, H, W] in 0..1 and its scale."""


class Slot:
    """A picture between its first and its last step, in float32 on `device`.

    The same calls in the same order as diffusers' pipelines make for one picture, so the same random numbers.
    `steps` are those of the whole schedule; `strength` leaves out the first.
    """

    def __init__(
        self,
        scheduler: SchedulerMixin,
        steps: int,
        seed: int,
        shape_CHW: tuple[int, int, int],
        conditioning: Conditioning,
        start: Start | None = None,
        *,
        eta: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        start = start or Start()
        self.conditioning = conditioning
        self._scheduler = scheduler
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._options = self._step_options(eta)
        scheduler.set_timesteps(steps, device=device)
        first = skipped_steps(steps, start.strength)
        if hasattr(scheduler, "set_begin_index") and start.latents_CHW is not None:
            scheduler.set_begin_index(first)
        self._timesteps = scheduler.timesteps[first:]
        self._timestep_values = [float(value) for value in self._timesteps]
        self.steps, self.done = len(self._timesteps), 0
        self._noise = randn_tensor((1, *shape_CHW), generator=self._generator, device=torch.device(device))
        self._original = None if start.latents_CHW is None else start.latents_CHW[None].to(device, torch.float32)
        self._mask = None if start.mask_HW is None else start.mask_HW[None, None].to(device, torch.float32)
        if self._original is None or (self._mask is not None and start.strength == 1):
            self.latents = self._noise * scheduler.init_noise_sigma
        else:
            self.latents = scheduler.add_noise(self._original, self._noise, self._timesteps[:1])

    def _step_options(self, eta: float) -> dict[str, object]:
        """DDIM alone takes eta, UniPC no generator."""
        taken = inspect.signature(self._scheduler.step).parameters
        options = {"eta": min(eta, MOST_ETA), "generator": self._generator}
        return {name: value for name, value in options.items() if name in taken}

    @property
    def finished(self) -> bool:
        """Whether its last step is done."""
        return self.done == self.steps

    @property
    def timestep(self) -> float:
        """Of the next step; whole for all schedulers but Euler's."""
        return self._timestep_values[self.done]

    def model_input(self) -> Tensor:
        """What the UNet sees in the next step, [1, C, h, w]."""
        return self._scheduler.scale_model_input(self.latents, self._timesteps[self.done])

    def step(self, predicted_2CHW: Tensor) -> None:
        """Take the UNet's predictions for the negative prompt and the prompt."""
        without, with_prompt = predicted_2CHW.float().chunk(2)
        scale, timestep = self.conditioning.guidance_scale, self._timesteps[self.done]
        guided = with_prompt if scale == 1 else without + scale * (with_prompt - without)
        self.latents = self._scheduler.step(guided, timestep, self.latents, return_dict=False, **self._options)[0]
        self.done += 1
        if self._mask is not None and self._original is not None:
            kept = self._original
            if not self.finished:
                kept = self._scheduler.add_noise(kept, self._noise, self._timesteps[self.done : self.done + 1])
            self.latents = (1 - self._mask) * kept + self._mask * self.latents


def skipped_steps(steps: int, strength: float) -> int:
    """Of `steps`, those that are left out at the start for `strength`."""
    return max(steps - min(int(steps * strength), steps), 0)
