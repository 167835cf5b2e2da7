"""Continuous batching: the candidates of many orders, step by step through lanes of fixed size. No threads here."""

import queue
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor

from studiolo.errors import UnacceptableError
from studiolo.generation.adapters import Factors
from studiolo.generation.lane import Lane
from studiolo.generation.order import Order, Portrait, Step, candidate_seed
from studiolo.generation.prompts import Prompt, PromptEncoder
from studiolo.generation.schedulers import make_scheduler
from studiolo.generation.slot import Conditioning, Slot, Start, skipped_steps

LaneKey = tuple[tuple[int, int, int], tuple[str, ...]]
"""The shape [C, h, w] of the latents and the names of the ControlNets."""

_SPOILT = "What is drawn with these LoRAs and weights has no finite values; give the style less weight or leave it out."


class Request:
    """An order inside the engine."""

    def __init__(self, order: Order, lane: LaneKey, factors: Factors) -> None:
        self.order, self.lane, self.factors = order, lane, factors
        self.due = time.monotonic() + order.deadline_s
        self.waiting = deque(range(order.first_index, order.first_index + order.count))
        self.active: dict[int, tuple[int, Slot]] = {}
        """Place in the lane -> (index of the candidate, its slot)."""
        self.prompts_2LD: Tensor | None = None
        self.steps_done = 0
        self.events: queue.SimpleQueue[Step | Portrait | BaseException | None] = queue.SimpleQueue()
        """What came of it; None is the end."""
        self.over = False
        """Whether nothing more is wanted: delivered, failed or cancelled."""

    def fail(self, error: BaseException) -> None:
        """Tell the consumer; nothing more is done."""
        self.events.put(error)
        self.over = True


class Batcher:
    """Lanes of `slots` slots for `unet`, which may be a copy of the one in `pipeline`."""

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        unet: UNet2DConditionModel,
        controlnets: Mapping[str, ControlNetModel],
        slots: int,
        rank_budget: int,
    ) -> None:
        self._pipeline, self._unet, self._controlnets = pipeline, unet, controlnets
        self._slots, self._rank_budget = slots, rank_budget
        self._prompts = PromptEncoder(pipeline, rank_budget)
        self._lanes: dict[LaneKey, Lane] = {}
        self.steps = 0
        """Of all candidates, done so far."""

    def turn(self, requests: Sequence[Request]) -> None:
        """One step of the lane of the request that is due first, its free slots filled before, the first due first."""
        first = min(requests, key=lambda request: request.due)
        here = sorted((one for one in requests if one.lane == first.lane), key=lambda request: request.due)
        taking_part = here
        try:
            lane = self._lane(first.lane)
            self._fill(lane, here)
            taking_part = [request for request in here if request.active]
            if taking_part:
                failed = lane.step()
                taking_part = [request for request in taking_part if not self._has_failed(request, failed)]
                self._report(lane, taking_part)
        except BaseException as error:
            self._lanes.pop(first.lane, None)
            for request in taking_part:
                request.active.clear()
                request.fail(error)

    def forget_prompts(self) -> int:
        """Drop the embeddings of prompts that are kept, from any thread; how many there were."""
        return self._prompts.forget()

    def let_go(self, request: Request) -> None:
        """Free the slots of `request`."""
        for place in request.active:
            self._lanes[request.lane].leave(place)
        request.active.clear()

    def _has_failed(self, request: Request, failed: Mapping[int, Exception]) -> bool:
        """Whether the scheduler of a slot of `request` raised; then it fails, and it alone."""
        errors = [failed[place] for place in request.active if place in failed]
        if errors:
            self.let_go(request)
            request.fail(errors[0])
        return bool(errors)

    def keep_lanes(self, wanted: Iterable[LaneKey]) -> None:
        """Free the lanes that are not `wanted`."""
        keys = set(wanted)
        self._lanes = {key: lane for key, lane in self._lanes.items() if key in keys}

    def _lane(self, key: LaneKey) -> Lane:
        if key not in self._lanes:
            controlnets = {name: self._controlnets[name] for name in key[1]}
            self._lanes[key] = Lane(self._unet, self._slots, key[0], self._rank_budget, controlnets)
        return self._lanes[key]

    def _fill(self, lane: Lane, requests: Sequence[Request]) -> None:
        """Let waiting candidates join. One that cannot be made fails its order alone."""
        free = lane.free
        joining = [*islice(((request, index) for request in requests for index in request.waiting), len(free))]
        self._embed(list(dict.fromkeys(request for request, _ in joining)))
        for place, (request, index) in zip(free, joining, strict=False):
            if request.over:
                continue
            try:
                slot = self._slot(request, index)
                lane.join(place, slot)
            except Exception as error:
                lane.leave(place)
                self.let_go(request)
                request.fail(error)
            else:
                request.waiting.popleft()
                request.active[place] = index, slot

    def _embed(self, requests: Sequence[Request]) -> None:
        """Encode the prompts of `requests`, all together. Those whose prompts cannot be encoded fail."""
        new = [request for request in requests if request.prompts_2LD is None]
        texts = [text for request in new for text in (request.order.negative_prompt, request.order.prompt)]
        prompts = [Prompt(text, new[number // 2].factors) for number, text in enumerate(texts)]
        try:
            embeddings = self._prompts(prompts)
        except Exception as error:
            for request in new:
                request.fail(error)
            return
        for number, request in enumerate(new):
            request.prompts_2LD = torch.stack(embeddings[2 * number : 2 * number + 2])

    def _slot(self, request: Request, index: int) -> Slot:
        order, factor = request.order, self._pipeline.vae_scale_factor
        assert request.prompts_2LD is not None
        pictures = {name: torch.tensor(control.rgb_u8) for name, control in order.controls.items()}
        conditioning = Conditioning(
            request.prompts_2LD,
            order.guidance_scale,
            request.factors.unet,
            {name: (pictures[name].permute(2, 0, 1) / 255, order.controls[name].scale) for name in pictures},
        )
        mask_HW = None if order.mask is None else torch.from_numpy(order.mask[::factor, ::factor].astype(np.float32))
        return Slot(
            make_scheduler(self._pipeline.scheduler, order.scheduler),
            order.steps,
            candidate_seed(order.seed, order.identity_id, index),
            request.lane[0],
            conditioning,
            Start(order.latents, order.strength, mask_HW),
            eta=order.eta,
            device=self._unet.device,
        )

    def _report(self, lane: Lane, requests: Sequence[Request]) -> None:
        """Tell `requests`, which all had a step, of it and of the portraits that are finished."""
        finished: list[tuple[Request, int, Slot]] = []
        for request in requests:
            order = request.order
            request.steps_done += len(request.active)
            self.steps += len(request.active)
            shown = request.active.values() if order.previews else ()
            total = order.count * (order.steps - skipped_steps(order.steps, order.strength))
            request.events.put(Step(request.steps_done, total, {i: slot.latents[0].cpu() for i, slot in shown}))
            for place, (index, slot) in [*request.active.items()]:
                if not slot.finished:
                    continue
                lane.leave(place)
                del request.active[place]
                if slot.latents.isfinite().all():
                    finished.append((request, index, slot))
                else:
                    self.let_go(request)
                    request.fail(UnacceptableError("lora", _SPOILT))
                    break
        for request, index, rgb_u8 in self._decode(sorted(finished, key=lambda one: one[1])):
            seed = candidate_seed(request.order.seed, request.order.identity_id, index)
            request.events.put(Portrait(index, seed, rgb_u8))
        for request in requests:
            if not (request.active or request.waiting):
                request.over = True

    def decode(self, latents_NCHW: Tensor) -> NDArray[np.uint8]:
        """Pictures [N, H, W, 3] of scaled latents; from any thread."""
        vae = self._pipeline.vae
        scaled_NCHW = (latents_NCHW / vae.config.scaling_factor).to(vae.device, vae.dtype)
        images_NHW3 = vae.decode(scaled_NCHW, return_dict=False)[0].float().permute(0, 2, 3, 1).cpu().numpy()
        images_NHW3 = np.nan_to_num(images_NHW3)  # grey, where a LoRA spoilt it
        return np.rint(np.clip(images_NHW3 / 2 + 0.5, 0, 1) * 255).astype(np.uint8)

    def _decode(
        self, finished: Sequence[tuple[Request, int, Slot]]
    ) -> Iterator[tuple[Request, int, NDArray[np.uint8]]]:
        """Pictures [H, W, 3], a fixed number at a time, the rest padded."""
        on_cpu = self._pipeline.vae.device.type == "cpu"
        size = 1 if on_cpu else self._slots  # more at a time are no faster on a CPU
        for first in range(0, len(finished), size):
            batch = finished[first : first + size]
            latents_NCHW = torch.cat([slot.latents for *_, slot in batch])
            padding = (0,) * 7 + (size - len(batch),)
            images_NHW3 = self.decode(torch.nn.functional.pad(latents_NCHW, padding))
            for (request, index, _), image in zip(batch, images_NHW3, strict=False):
                yield request, index, image
