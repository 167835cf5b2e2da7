"""A lane: a fixed number of slots whose pictures are denoised together, each at a timestep of its own.

Kernels choose their blocking by the size of the batch, so the batch is always full: idle slots are zeros, and a
picture's bytes do not depend on who is beside it, or in which slot it is.

Shapes: S slots, N = 2 S rows, slot by slot (negative prompt, prompt), C latent channels, h and w of the latents, L
tokens and D their width.
"""

from collections.abc import Mapping

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

from studiolo.generation.controlnets import residuals
from studiolo.generation.grouped import FactorBuffers
from studiolo.generation.slot import Slot

_ROWS = 2
"""Of a slot: the negative prompt's and the prompt's, also where guidance is off."""


class Lane:
    """Denoises up to `slots` pictures of one latent shape with one UNet and the ControlNets `controlnets`."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        slots: int,
        shape_CHW: tuple[int, int, int],
        rank_budget: int,
        controlnets: Mapping[str, ControlNetModel],
    ) -> None:
        self.shape_CHW = shape_CHW
        self._unet, self._controlnets = unet, controlnets
        self._slots: list[Slot | None] = [None] * slots
        self._factors = FactorBuffers(slots, rank_budget, unet.dtype, unet.device)
        self._latents_SCHW = torch.zeros(slots, *shape_CHW, device=unet.device)
        self._prompts_NLD: Tensor | None = None
        self._controls: dict[str, tuple[Tensor, Tensor]] = {}
        """By ControlNet: pictures [N, 3, H, W] and scales [N, 1, 1, 1]; a scale of 0 is exactly nothing."""

    @property
    def free(self) -> list[int]:
        """Slots without a picture."""
        return [index for index, slot in enumerate(self._slots) if slot is None]

    def join(self, index: int, slot: Slot) -> None:
        """Put `slot` at a free `index`; it takes part from the next step on."""
        given, rows = slot.conditioning, slice(_ROWS * index, _ROWS * (index + 1))
        self._slots[index] = slot
        self._factors.write(index, given.updates)
        if self._prompts_NLD is None:
            self._prompts_NLD = self._buffer(given.prompts_2LD.shape[1:])
        self._prompts_NLD[rows] = given.prompts_2LD.to(self._prompts_NLD)
        for name, (picture_3HW, scale) in given.controls.items():
            if name not in self._controls:
                self._controls[name] = self._buffer(picture_3HW.shape), self._buffer((1, 1, 1))
            self._controls[name][0][rows] = picture_3HW.to(self._controls[name][0])
            self._controls[name][1][rows] = scale

    def leave(self, index: int) -> None:
        """Free a slot; nothing of its picture, prompts and LoRAs is left."""
        rows = slice(_ROWS * index, _ROWS * (index + 1))
        self._slots[index] = None
        self._factors.clear(index)
        buffers = [self._prompts_NLD, *(buffer for pair in self._controls.values() for buffer in pair)]
        for buffer in buffers:
            if buffer is not None:
                buffer[rows].zero_()
        self._latents_SCHW[index].zero_()

    @torch.inference_mode()
    def step(self) -> dict[int, Exception]:
        """One step of every picture, each at its own timestep. By index, the slots whose own scheduler raised: these
        are to leave, and the others have done theirs.
        """
        failed: dict[int, Exception] = {}
        active = []
        timesteps_S = torch.zeros(len(self._slots))
        for index, slot in enumerate(self._slots):
            if slot is None:
                continue
            try:
                self._latents_SCHW[index] = slot.model_input()[0]
                timesteps_S[index] = slot.timestep
                active.append((index, slot))
            except Exception as error:
                failed[index] = error
        latents_NCHW = self._latents_SCHW.repeat_interleave(_ROWS, 0).to(self._unet.dtype)
        timesteps_N = timesteps_S.repeat_interleave(_ROWS).to(self._unet.device)
        with self._factors.acting(self._unet):
            predicted_NCHW = self._unet(
                latents_NCHW,
                timesteps_N,
                self._prompts_NLD,
                return_dict=False,
                **residuals(self._controlnets, self._controls, latents_NCHW, timesteps_N, self._prompts_NLD),
            )[0]
        for index, slot in active:
            try:
                slot.step(predicted_NCHW[_ROWS * index : _ROWS * (index + 1)])
            except Exception as error:
                failed[index] = error
        return failed

    def _buffer(self, shape: torch.Size | tuple[int, ...]) -> Tensor:
        rows = _ROWS * len(self._slots)
        return torch.zeros(rows, *shape, dtype=self._unet.dtype, device=self._unet.device)
