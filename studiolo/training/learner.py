"""One identity in training: its low-rank factors and everything that is its own.

Nothing here is shared with another identity: optimiser state that is would give the next one in a slot its
predecessor's moments and bias correction, one clip or one generator would tie its result to its neighbours.

Shapes: R rank, I and O a layer's inputs and outputs, N views, b samples of the identity a step, B all its rows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.optimization import get_scheduler
from torch import Tensor, nn

from studiolo.errors import TrainingError
from studiolo.generation.grouped import Factors
from studiolo.settings import FaceLoraSettings
from studiolo.training.cache import Cache
from studiolo.training.layout import Layers, Layout
from studiolo.training.validation import Score, contenders

_WARMUP_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class Draw:
    """What one identity learns from in one step, on the CPU: B rows."""

    latents_BCHW: Tensor
    noise_BCHW: Tensor
    timesteps_B: Tensor
    prompts_BLD: Tensor
    mask_BHW: Tensor


class Learner:
    """Steps of one face-LoRA. All its random numbers come from one CPU generator, whose state is part of `state_dict`:
    it decides the views of a batch too, so a resumed training equals one without a break.

    The float32 masters of all factors lie in one flat leaf (`Layout`), over which the optimiser makes one pass.
    """

    def __init__(
        self,
        identity_id: str,
        cache: Cache,
        layers: Layers,
        settings: FaceLoraSettings,
        seed: int,
        *,
        noise_steps: int,
        start: Mapping[str, Factors] | None = None,
        prior: Cache | None = None,
        reference_diversity: float | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.identity_id, self.settings = identity_id, settings
        self._cache, self._prior, self._noise_steps = cache, prior, noise_steps
        self._reference_diversity = reference_diversity
        self._generator = torch.Generator().manual_seed(seed)
        layout = Layout(layers, settings.rank)
        self.masters = nn.Parameter(torch.zeros(layout.size, device=device))
        """[S], all factors in float32."""
        self.factors = layout.factors(self.masters.detach())
        """`down_RI` and `up_OR` of each layer: views of the masters."""
        self._begin(start or {})
        self._optimiser = new_optimiser(self.masters, settings)
        self._schedule = new_schedule(self._optimiser, settings)
        self.losses: list[float] = []
        """The loss of every step so far."""
        self.curve: list[tuple[int, float, float]] = []
        """(step, likeness, diversity) of every validation so far."""
        self._kept: dict[int, Tensor] = {}
        """By step: the masters of the validated steps that may be the result."""
        self.error: TrainingError | None = None
        """Why it cannot go on."""
        self.withdrawn = False
        """Set by whoever does not want it any more: it leaves its pack before the next step."""

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do: its budget is spent, it failed, it no longer becomes better, or nobody
        wants it."""
        return self.withdrawn or self.error is not None or len(self.losses) >= self.settings.steps or self._stale

    @property
    def due(self) -> bool:
        """Whether it is to be validated now: every `validate_every` steps, and at the last."""
        step, every = len(self.losses), self.settings.validate_every
        judged = bool(self.curve) and self.curve[-1][0] == step
        return bool(every) and self.error is None and not judged and (step % every == 0 or step == self.settings.steps)

    def judge(self, score: Score) -> None:
        """The outcome of a validation: factors that may be the result are kept, see `contenders`."""
        step = len(self.losses)
        self.curve.append((step, score.likeness, score.diversity))
        self._kept[step] = self.masters.detach().clone()
        self._kept = {step: self._kept[step] for step in contenders(self.curve, self._reference_diversity)}

    @torch.no_grad()
    def choose(self) -> int:
        """Go back to the best factors; the step they are of."""
        if not self._kept:
            return len(self.losses)
        self.masters.copy_(self._kept[self._best_step])
        return self._best_step

    @property
    def _best_step(self) -> int:
        return next(iter(self._kept))

    @property
    def _stale(self) -> bool:
        """Whether the last `validation_patience` validations were no better than one before."""
        after = [step for step, _, _ in self.curve if step > self._best_step]
        return len(after) >= self.settings.validation_patience

    @property
    def final_loss(self) -> float:
        """Mean loss over the last tenth of the steps."""
        return float(np.mean(self.losses[-max(1, self.settings.steps // 10) :]))

    def draw(self) -> Draw:
        """The next batch."""
        rows = [self._draw(self._cache, self.settings.caption_dropout, self.settings.background_weight)]
        if self._prior is not None:
            rows.append(self._draw(self._prior, 0.0, 1.0))
        return rows[0] if len(rows) == 1 else concatenated(rows)

    def loss(self, losses_B: Tensor) -> Tensor:
        """The identity's loss from those of its rows: the mean of its own, plus the weighted mean of its class."""
        size = self.settings.batch_size
        own = losses_B[:size].mean()
        return own if self._prior is None else own + self.settings.prior_weight * losses_B[size:].mean()

    def take(self, gradient_S: Tensor) -> None:
        """The gradient of the masters, for `update`."""
        self.masters.grad = gradient_S

    def update(self, loss: float) -> None:
        """One optimiser step along the gradient that was taken.

        Raises `TrainingError` when the loss or the gradient is no longer a number.
        """
        norm = clip_gradient([self.masters], self.settings.gradient_clip)
        self.losses.append(loss)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"got a loss of {loss} and a gradient of length {norm} in step {len(self.losses)}, wanted"
                f" finite ones; use a learning rate below {self.settings.learning_rate:g}"
            )
        self._optimiser.step()
        self._schedule.step()

    def state_dict(self) -> dict[str, Any]:
        """Everything a resume needs."""
        return {
            "masters": self.masters.detach().cpu(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "generator": self._generator.get_state(),
            "losses": self.losses,
            "curve": self.curve,
            "kept": {step: masters.cpu() for step, masters in self._kept.items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.masters.copy_(state["masters"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self._generator.set_state(state["generator"])
        self.losses = list(state["losses"])
        self.curve = [(step, likeness, diversity) for step, likeness, diversity in state["curve"]]
        self._kept = {step: masters.to(self.masters.device) for step, masters in state["kept"].items()}

    @torch.no_grad()
    def _begin(self, start: Mapping[str, Factors]) -> None:
        """The factors of `start`; a layer it has not begins as peft's do: A uniform within 1 / sqrt(I), B zero."""
        for name, (down_RI, up_OR) in self.factors.items():
            drawn_RI = torch.rand(down_RI.shape, generator=self._generator)
            down_RI.copy_((2 * drawn_RI - 1) / math.sqrt(down_RI.shape[1]))
            if name in start:
                down_RI.copy_(start[name][0])
                up_OR.copy_(start[name][1])

    def _draw(self, cache: Cache, dropout: float, background_weight: float) -> Draw:
        settings, generator, size = self.settings, self._generator, self.settings.batch_size
        view_b = torch.randint(len(cache.mean_NCHW), (size,), generator=generator)
        mean_bCHW = cache.mean_NCHW[view_b]
        latents_bCHW = mean_bCHW + cache.std_NCHW[view_b] * torch.randn(mean_bCHW.shape, generator=generator)
        noise_bCHW = torch.randn(mean_bCHW.shape, generator=generator)
        if settings.noise_offset:
            noise_bCHW += settings.noise_offset * torch.randn((*mean_bCHW.shape[:2], 1, 1), generator=generator)
        timesteps_b = torch.randint(self._noise_steps, (size,), generator=generator)
        dropped_b = torch.rand(size, generator=generator) < dropout
        return Draw(
            latents_bCHW,
            noise_bCHW,
            timesteps_b,
            cache.prompts_PLD[cache.prompt_N[view_b].masked_fill(dropped_b, 0)],
            background_weight + (1 - background_weight) * cache.mask_NHW[view_b],
        )


def concatenated(draws: list[Draw]) -> Draw:
    """The rows of all `draws`, in their order."""
    return Draw(*(torch.cat([getattr(draw, name) for draw in draws]) for name in Draw.__dataclass_fields__))


def new_optimiser(masters: nn.Parameter, settings: FaceLoraSettings) -> torch.optim.Optimizer:
    """The optimiser of one identity."""
    return torch.optim.AdamW([masters], lr=settings.learning_rate, fused=True)


def new_schedule(optimiser: torch.optim.Optimizer, settings: FaceLoraSettings) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate over the steps of one identity."""
    warmup = int(_WARMUP_SHARE * settings.steps) if settings.warmup_steps is None else settings.warmup_steps
    return get_scheduler(
        settings.schedule,
        optimiser,
        num_warmup_steps=warmup,
        num_training_steps=settings.steps,
        num_cycles=settings.restarts,
    )


def clip_gradient(parameters: list[nn.Parameter], most: float) -> float:
    """Scale the gradient down to the length `most`; the length it had."""
    return float(torch.nn.utils.clip_grad_norm_(parameters, most))
