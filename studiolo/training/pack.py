"""Pack training: K identities' face-LoRAs in one forward pass over one frozen base, equal to training each alone.

Slot k of the pack has rows k * B to (k + 1) * B - 1 of the batch and its own update of every layer
(`studiolo.generation.grouped`). No row acts on another: the base's weights are frozen, its normalisations work within a
sample, and the losses are summed, so that each identity's gradient is what it would be alone. What else could tie them
together (optimiser, schedule, clip, random numbers) each `Learner` has for itself.

Kernels choose their blocking by the size of the batch, so the number of slots is fixed and idle ones are padded: an
identity's bytes depend on K, and neither on its slot nor on its neighbours.

Shapes: K slots, B rows a slot, N = K * B rows, S numbers of an identity.
"""

import copy
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from studiolo.errors import DeviceMemoryError, SettingsError, TrainingError, nearest
from studiolo.generation.adapters import unet_sha256
from studiolo.generation.autoencoder import cast_weights
from studiolo.generation.grouped import attach, matrix_shape
from studiolo.settings import FaceLoraSettings
from studiolo.training.cache import Cache, TrainingPhoto, build_cache
from studiolo.training.checkpoints import UnitCheckpoint
from studiolo.training.face_lora import FaceLora, diffusers_weights, fitting, metadata_of, read_factors
from studiolo.training.layout import Layout
from studiolo.training.learner import Draw, Learner, concatenated
from studiolo.training.losses import training_losses
from studiolo.training.prior import class_cache


class Pack:
    """`slots` places for identities in training over the frozen UNet of `base`, which itself is left as it is."""

    def __init__(self, base: StableDiffusionPipeline, settings: FaceLoraSettings, slots: int) -> None:
        self._base, self._settings = base, settings
        self._unet = copy.deepcopy(base.unet).requires_grad_(False)
        cast_weights(self._unet, getattr(torch, settings.precision))
        if settings.gradient_checkpointing:
            self._unet.enable_gradient_checkpointing()
            self._unet.train()  # diffusers checkpoints in no other mode; the base has no dropout
        self.layers = target_layers(self._unet, settings.targets)
        self._start = read_factors(Path(settings.start)) if settings.start else {}
        fitting(self._start, self.layers, settings)
        self._scale = settings.alpha / settings.rank
        self._layout = Layout(self.layers, settings.rank)
        self._scales_S = self._layout.scales(self._scale).to(self._unet.device)
        empty_KS = torch.zeros(slots, self._layout.size, dtype=self._unet.dtype, device=self._unet.device)
        self._leaves = {
            name: (down_KRI.contiguous().requires_grad_(), up_KOR.contiguous().requires_grad_())
            for name, (down_KRI, up_KOR) in self._layout.factors(empty_KS).items()
        }
        """What the layers add, in the base's precision; zero in idle slots."""
        attach(self._unet, self.layers, self._leaves.get)
        self.slots: list[Learner | None] = [None] * slots
        self._classes: dict[str, Cache] = {}

    def learner(
        self,
        identity_id: str,
        photos: Sequence[TrainingPhoto],
        seed: int,
        trigger: str = "",
        reference_diversity: float | None = None,
    ) -> Learner:
        """An identity that can join; `trigger` names its class, `reference_diversity` is for `contenders`.

        Raises `TrainingError` without photos.
        """
        if not photos:
            raise TrainingError(f"face-LoRA of {identity_id!r}: got no photos, wanted at least 1")
        settings, own_seed = self._settings, identity_seed(seed, identity_id)
        views, ratio, looks = settings.views_per_photo, settings.view_face_ratio, settings.look_share
        rng = np.random.default_rng(own_seed)
        cache = build_cache(self._base, photos, views, ratio, rng, looks, settings.resolution)
        return Learner(
            identity_id,
            cache,
            self.layers,
            settings,
            own_seed,
            noise_steps=self._base.scheduler.config.num_train_timesteps,
            start={name: (down, up / self._scale) for name, (down, up) in self._start.items()},
            prior=self._class(trigger) if settings.prior_weight else None,
            reference_diversity=reference_diversity,
            device=self._unet.device,
        )

    def run(
        self,
        take: Callable[[int], Iterable[Learner]],
        done: Callable[[Learner], None],
        tick: Callable[[], None],
        more: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train all that `take` gives; returns when it gives nothing and no slot is busy.

        `take(free)` gives at most `free` learners; when it gives fewer it is asked again once a slot falls free, or
        `more` says after a step that it may have some by now. `done` gets each that is finished, has failed (its
        `error` says why) or was withdrawn, `tick` is called after each step. Raises `DeviceMemoryError` when the
        accelerator's memory does not hold them.
        """
        try:
            self._run(take, done, tick, more)
        except torch.OutOfMemoryError as error:
            raise self._too_large(error) from error

    def _run(
        self,
        take: Callable[[int], Iterable[Learner]],
        done: Callable[[Learner], None],
        tick: Callable[[], None],
        more: Callable[[], bool],
    ) -> None:
        asked = False
        while True:
            free = [slot for slot, learner in enumerate(self.slots) if learner is None]
            if free and not asked:
                for slot, joining in zip(free, take(len(free)), strict=False):
                    self.slots[slot] = joining
                asked = True
            if not any(self.slots):
                return
            if not any(learner is not None and learner.finished for learner in self.slots):
                self.step()
                tick()
                asked = asked and not more()
            for slot, learner in enumerate(self.slots):
                if learner is not None and learner.finished:
                    self.slots[slot], asked = None, False
                    done(learner)
            if not any(self.slots):
                self._give()  # nobody's weights stay in them

    def step(self) -> None:
        """One step of every identity; one whose loss is no longer a number gets its `error`, the others go on."""
        draws = {slot: learner.draw() for slot, learner in enumerate(self.slots) if learner is not None}
        idle = _blank(next(iter(draws.values())))
        self._give()
        losses_KB = self._losses(concatenated([draws.get(slot, idle) for slot in range(len(self.slots))]))
        losses = {slot: self._learner(slot).loss(losses_KB[slot]) for slot in draws}
        torch.stack([*losses.values()]).sum().backward()  # type: ignore[no-untyped-call]
        self._take(losses)
        for slot, loss in zip(losses, torch.stack([*losses.values()]).tolist(), strict=True):
            learner = self._learner(slot)
            try:
                learner.update(loss)
            except TrainingError as error:
                learner.error = TrainingError(f"face-LoRA of {learner.identity_id!r}: {error}")

    def face_lora(self, learner: Learner, *, trigger: str, photos: int, seed: int) -> FaceLora:
        """What `learner` has learned."""
        header = metadata_of(
            self._settings,
            base_sha256=self._base_sha256,
            trigger=trigger,
            photos=photos,
            seed=seed,
            slots=len(self.slots),
        )
        convolutions = {name for name, layer in self._unet.named_modules() if isinstance(layer, nn.Conv2d)}
        return FaceLora(diffusers_weights(learner.factors, convolutions), header, learner.final_loss)

    def _too_large(self, error: torch.OutOfMemoryError) -> DeviceMemoryError:
        """What to lower. The number of slots decides bytes, so it is not lowered without being asked."""
        settings, rows = self._settings, self._settings.batch_size * (2 if self._settings.prior_weight else 1)
        asked = " ".join(str(error).partition(" Of the allocated memory")[0].split())
        checkpointing = "set face_lora.gradient_checkpointing, which changes no byte, or "
        return DeviceMemoryError(
            f"face-LoRA training: got {asked!r} with {len(self.slots)} slots of {rows} rows of the batch each, wanted"
            f" room for them; {'' if settings.gradient_checkpointing else checkpointing}lower face_lora.slots or"
            " face_lora.batch_size, which trains all identities that are not done anew"
        )

    @cached_property
    def _base_sha256(self) -> str:
        return unet_sha256(self._base.unet)

    def _class(self, trigger: str) -> Cache:
        """The base's own pictures of a class, made once."""
        if trigger not in self._classes:
            settings = self._settings
            self._classes[trigger] = class_cache(self._base, trigger, settings.prior_images, settings.resolution)
        return self._classes[trigger]

    def _learner(self, slot: int) -> Learner:
        learner = self.slots[slot]
        assert learner is not None
        return learner

    def _losses(self, draw: Draw) -> Tensor:
        """Losses [K, B] of the rows of all slots."""
        device = self._unet.device
        losses_N = training_losses(
            self._unet,
            self._base.scheduler,
            draw.latents_BCHW.to(device),
            draw.noise_BCHW.to(device),
            draw.timesteps_B.to(device),
            draw.prompts_BLD.to(device),
            min_snr_gamma=self._settings.min_snr_gamma,
            mask_BHW=draw.mask_BHW.to(device),
        )
        return losses_N.view(len(self.slots), -1)

    @torch.no_grad()
    def _give(self) -> None:
        """Every slot's weights as they are now, for the layers."""
        for slot, learner in enumerate(self.slots):
            own_S = torch.zeros_like(self._scales_S) if learner is None else learner.masters * self._scales_S
            for name, pair in self._layout.factors(own_S).items():
                for leaf, weight in zip(self._leaves[name], pair, strict=True):
                    leaf[slot] = weight

    def _take(self, slots: Iterable[int]) -> None:
        """The gradient of each of `slots`, for its identity."""
        leaves = [leaf for pair in self._leaves.values() for leaf in pair]
        gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
        for slot in slots:
            own_S = torch.cat([gradient[slot].flatten() for gradient in gradients])
            self._learner(slot).take(own_S * self._scales_S)
        for leaf in leaves:
            leaf.grad = None


def resume(learner: Learner, checkpoint: UnitCheckpoint) -> None:
    """Go on from the checkpoint when there is one."""
    state = checkpoint.load()
    if state is not None:
        learner.load_state_dict(state)


def keep(learner: Learner, checkpoint: UnitCheckpoint) -> None:
    """Make a checkpoint when it is time for one."""
    if checkpoint.due and learner.error is None:
        checkpoint.save(learner.state_dict())


def target_layers(unet: nn.Module, targets: Iterable[str]) -> dict[str, tuple[int, int]]:
    """[O, I] of every layer whose name is or ends in one of `targets`.

    Raises `SettingsError` for a target that names no layer, and for one with a layer that is more than one matrix, such
    as a convolution with a spatial kernel.
    """
    named: Mapping[str, nn.Module] = dict(unet.named_modules())
    found: dict[str, tuple[int, int]] = {}
    for target in targets:
        names = [name for name in named if name == target or name.endswith(f".{target}")]
        if not names:
            ends = {name.rpartition(".")[2] for name, layer in named.items() if matrix_shape(layer) is not None}
            raise SettingsError(
                f"face_lora.targets: no layer of the base is called {target!r}; {nearest(target, ends)}"
            )
        for name in names:
            shape = matrix_shape(named[name])
            if shape is None:
                raise SettingsError(
                    f"face_lora.targets: got {target!r}, which is {name} ({type(named[name]).__name__}), wanted linear"
                    " layers and 1x1 convolutions: others have no update that is one matrix"
                )
            found[name] = shape
    return dict(sorted(found.items()))


def identity_seed(seed: int, identity_id: str) -> int:
    """Seed of everything random in an identity's training, 0 <= seed < 2**63."""
    digest = hashlib.sha256(f"face-lora\0{seed}\0{identity_id}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _blank(draw: Draw) -> Draw:
    """What stands in an idle slot."""
    return Draw(*(torch.zeros_like(getattr(draw, name)) for name in Draw.__dataclass_fields__))
