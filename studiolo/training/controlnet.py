"""Training of ControlNets for a base: of poses and of edges, side by side on the same frozen UNet.

Each sample shows one of them, or both, so that each works alone and they work together at the price of one pass
through the UNet.

Shapes: N views, B batch, C latent channels, h and w of the latents, S side of a view, L tokens, D width.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pydantic
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor

from studiolo.errors import TrainingError
from studiolo.generation.autoencoder import cast_weights
from studiolo.generation.base import tokenize
from studiolo.generation.controlnets import EDGES, POSE, controlnet_for, residuals
from studiolo.generation.engine import Control, Engine, Order, Portrait
from studiolo.perception.conditions import pose_picture
from studiolo.settings import Section
from studiolo.training.checkpoints import Budget
from studiolo.training.faces import CaptionShares, random_caption
from studiolo.training.loop import warmup_cosine
from studiolo.training.losses import training_losses
from studiolo.training.precision import Descent
from studiolo.training.sights import Examples


class ControlNetSettings(Section):
    """How ControlNets are trained."""

    batch_size: int = pydantic.Field(32, ge=1)
    """Samples a step."""
    learning_rate: float = pydantic.Field(1e-3, gt=0)
    """Peak AdamW learning rate."""
    warmup_steps: int = pydantic.Field(100, ge=0)
    """Steps until the peak."""
    final_rate: float = pydantic.Field(0.03, ge=0, le=1)
    """Share of the peak at the end of the cosine."""
    weight_decay: float = pydantic.Field(0.01, ge=0)
    """AdamW's weight decay."""
    gradient_clip: float = pydantic.Field(1.0, gt=0)
    """Largest gradient norm."""
    caption_dropout: float = pydantic.Field(0.1, ge=0, le=1)
    """Share of samples with the empty prompt."""
    pose_share: float = pydantic.Field(0.8, ge=0, le=1)
    """Share of samples that show a pose; the others show edges alone."""
    edges_share: float = pydantic.Field(0.7, ge=0, le=1)
    """Share of the samples with a pose that show edges as well."""
    landmarks_share: float = pydantic.Field(0.65, ge=0, le=1)
    """Share of the poses with the face's landmarks; the others are bones alone."""
    whole_edges_share: float = pydantic.Field(0.15, ge=0, le=1)
    """Share of the edges that show the face, too."""
    ema_decay: float = pydantic.Field(0.999, ge=0, lt=1)
    """Decay of the moving average that is packaged."""
    views_per_face: int = pydantic.Field(2, ge=1)
    """Views of each face, seen and encoded once."""
    held_out: int = pydantic.Field(64, ge=1)
    """Last views, a fifth of all at most, which are never trained on: the sheet and the gains are of these."""
    checkpoint_minutes: float = pydantic.Field(10.0, gt=0)
    """Minutes between checkpoints, each with a sample sheet."""


class ControlNetTrainer:
    """Trains a ControlNet of poses and one of edges for `base`, which stays as it is.

    Timesteps are drawn with a density that grows with them: where things lie is decided in much noise, and there the
    base errs most without being told.

    All random numbers come from one CPU generator, whose state is part of the checkpoint: a resumed run equals an
    uninterrupted one.

    Raises `TrainingError` when there are too few examples to hold one out.
    """

    def __init__(
        self,
        base: StableDiffusionPipeline,
        examples: Examples,
        settings: ControlNetSettings,
        budget: Budget,
        *,
        seed: int = 0,
        device: str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self._base, self._examples, self._settings, self.budget = base, examples, settings, budget
        self._learned = len(examples.views) - max(1, min(settings.held_out, len(examples.views) // 5))
        if self._learned < 1:
            raise TrainingError(f"ControlNets: got {len(examples.views)} views, wanted two at least")
        self._generator = torch.Generator().manual_seed(seed)
        unet = cast_weights(copy.deepcopy(base.unet).to(device), dtype)
        self._unet = unet.to(memory_format=torch.channels_last)
        self._text = copy.deepcopy(base.text_encoder).to(device)
        self._networks = {name: _fresh(base, name, seed).train().to(device) for name in (POSE, EDGES)}
        self._descent = Descent(
            [*self._networks.values()],
            dtype,
            weight_decay=settings.weight_decay,
            gradient_clip=settings.gradient_clip,
            ema_decay=settings.ema_decay,
        )

    def step(self) -> float:
        """One step on a random batch; its loss. Raises `TrainingError` when that is no longer a number."""
        settings = self._settings
        rate = settings.learning_rate * warmup_cosine(self.budget, settings.warmup_steps, settings.final_rate)
        value = self._descent.step(self._loss(), rate)
        self.budget.spent_steps += 1
        if not math.isfinite(value):
            raise TrainingError(
                f"ControlNets: the loss is {value} after {self.budget.spent_steps} steps, wanted a number; resume from"
                f" the last checkpoint with a learning rate below {settings.learning_rate:g}"
            )
        return value

    @torch.no_grad()
    def gains(self) -> dict[str, float]:
        """For each network, by what share it lowers the base's loss on the views held out; noise and words are the same
        at each call.
        """
        numbers = list(range(self._learned, len(self._examples.views)))
        shown = self._shown(numbers, torch.Generator().manual_seed(0))
        whole, nothing = (torch.full_like(shown[POSE][1], scale) for scale in (1.0, 0.0))

        def loss(named: str | None) -> float:
            given = {name: (pictures, whole if name == named else nothing) for name, (pictures, _) in shown.items()}
            generator = torch.Generator().manual_seed(1)
            return self._losses(torch.tensor(numbers), given, generator).mean().item()

        base = loss(None)
        return {name: 1 - loss(name) / base for name in self._networks}

    def averaged(self) -> dict[str, ControlNetModel]:
        """ControlNets with the moving average as their weights, in float32, frozen and in eval mode."""
        averages = iter(self._descent.averages)
        made = {}
        for name in self._networks:
            network = controlnet_for(self._base.unet).float()
            for weight in network.parameters():
                weight.data = next(averages).cpu().clone()
            made[name] = network.requires_grad_(False).eval()
        return made

    def state_dict(self) -> dict[str, Any]:
        """Everything a resume needs: masters, average, optimiser, random state, what was spent."""
        return {
            **self._descent.state_dict(),
            "generator": self._generator.get_state(),
            "steps": self.budget.spent_steps,
            "seconds": self.budget.elapsed_s,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self._descent.load_state_dict(state)
        self._generator.set_state(state["generator"])
        self.budget.resume(state["steps"], state["seconds"])

    def _loss(self) -> Tensor:
        generator = self._generator
        view_B = torch.randint(self._learned, (self._settings.batch_size,), generator=generator)
        return self._losses(view_B, self._shown(view_B.tolist(), generator), generator).mean()

    def _losses(self, view_B: Tensor, shown: dict[str, tuple[Tensor, Tensor]], generator: torch.Generator) -> Tensor:
        """Losses [B] of views with what is `shown` of them."""
        examples, size = self._examples, len(view_B)
        mean_BChw, std_BChw = examples.mean_NChw[view_B].float(), examples.std_NChw[view_B].float()
        clean_BChw = mean_BChw + std_BChw * torch.randn(mean_BChw.shape, generator=generator)
        noise_BChw = torch.randn(mean_BChw.shape, generator=generator)
        count = self._base.scheduler.config.num_train_timesteps
        timesteps_B = (count * torch.rand(size, generator=generator).sqrt()).long().clamp(max=count - 1)
        shares = CaptionShares(self._settings.caption_dropout, tags=0.85, style=0.95)
        captions = [random_caption(examples.views[view], shares, generator) for view in view_B.tolist()]
        with torch.no_grad():
            tokens_BL = tokenize(self._base.tokenizer, captions)
            prompts_BLD = self._text(tokens_BL.to(self._text.device)).last_hidden_state
        return training_losses(
            _Controlled(self._unet, self._networks, shown),
            self._base.scheduler,
            clean_BChw,
            noise_BChw,
            timesteps_B,
            prompts_BLD,
            min_snr_gamma=None,
            memory_format=torch.channels_last,
        )

    def _shown(self, views: Sequence[int], generator: torch.Generator) -> dict[str, tuple[Tensor, Tensor]]:
        """Pictures [B, 3, S, S] and scales [B, 1, 1, 1] of each network."""
        settings = self._settings
        poses, edges, pose_scales, edge_scales = [], [], [], []
        for view in views:
            posed, edged, whole, landmarks = torch.rand(4, generator=generator).tolist()
            sight = self._examples.sights[view]
            shows_pose = posed < settings.pose_share
            points = sight.landmarks_px if landmarks < settings.landmarks_share else None
            poses.append(pose_picture(sight.joints_px, len(sight.edges), points))
            seen = sight.edges & ((whole < settings.whole_edges_share) | ~sight.face)
            edges.append(np.repeat(seen[..., None].astype(np.uint8) * 255, 3, axis=-1))
            pose_scales.append(float(shows_pose))
            edge_scales.append(float(not shows_pose or edged < settings.edges_share))
        return {POSE: self._given(poses, pose_scales), EDGES: self._given(edges, edge_scales)}

    def _given(self, pictures: Sequence[NDArray[np.uint8]], scales: Sequence[float]) -> tuple[Tensor, Tensor]:
        pictures_B3SS = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        unet = self._unet
        return (
            pictures_B3SS.to(unet.device, unet.dtype, memory_format=torch.channels_last),
            torch.tensor(scales).view(-1, 1, 1, 1).to(unet.device, unet.dtype),
        )


class _Controlled:
    """A UNet with what ControlNets add, called as `training_losses` calls a UNet."""

    def __init__(
        self, unet: Any, networks: Mapping[str, ControlNetModel], shown: Mapping[str, tuple[Tensor, Tensor]]
    ) -> None:
        self._unet, self._networks, self._shown = unet, networks, shown
        self.device, self.dtype = unet.device, unet.dtype

    def __call__(self, latents_BChw: Tensor, timesteps_B: Tensor, prompts_BLD: Tensor, **options: Any) -> Any:
        added = residuals(self._networks, self._shown, latents_BChw, timesteps_B, prompts_BLD)
        return self._unet(latents_BChw, timesteps_B, prompts_BLD, **added, **options)


def _fresh(base: StableDiffusionPipeline, name: str, seed: int) -> ControlNetModel:
    """A ControlNet whose random weights come from the seed alone.

    The last layer that reads the picture begins at random, not at nothing: the layers behind the blocks begin at
    nothing already, so the network still adds nothing, and learns what is shown from the first step on.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + (name == EDGES))
        network = controlnet_for(base.unet)
        torch.nn.init.kaiming_normal_(network.controlnet_cond_embedding.conv_out.weight, nonlinearity="linear")
        return network.requires_grad_(True)


def controlled_sheet(
    base: StableDiffusionPipeline,
    networks: Mapping[str, ControlNetModel],
    examples: Examples,
    columns: int = 6,
    steps: int = 12,
) -> NDArray[np.uint8]:
    """A column for each of the last examples: the view through the autoencoder, its pose, its edges, and what the base
    makes of the pose, of the edges outside the face, and of both: [6 S, columns * S, 3].
    """
    engine = Engine(base, controlnets=networks, precision="bfloat16")
    sheet = []
    for number in range(max(0, len(examples.sights) - columns), len(examples.sights)):
        sight, view = examples.sights[number], examples.views[number]
        side_px = len(sight.edges)
        pose = pose_picture(sight.joints_px, side_px, sight.landmarks_px)
        edges = np.repeat(((sight.edges & ~sight.face)[..., None] * 255).astype(np.uint8), 3, axis=-1)
        controls = {POSE: Control(pose), EDGES: Control(edges)}
        prompt = ", ".join([view.trigger, *view.tags, *view.style])
        events = [
            engine.submit(
                Order(
                    seed=0,
                    identity_id="sheet",
                    prompt=prompt,
                    steps=steps,
                    eta=1.0,
                    size_px=side_px,
                    controls={name: controls[name] for name in shown},
                )
            )
            for shown in ((POSE,), (EDGES,), (POSE, EDGES))
        ]
        made = [event.rgb_u8 for its in events for event in its if isinstance(event, Portrait)]
        sheet.append(np.concatenate([engine.decode(examples.mean_NChw[number].float()), pose, edges, *made]))
    return np.concatenate(sheet, axis=1)
