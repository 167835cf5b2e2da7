"""The engine: the single door to generation. Orders go in, steps and portraits come out.

A batch is made of steps, not of requests: candidates of all orders inside share a lane, each in a slot with its own
timestep, scheduler, prompt, guidance and LoRA mix. One joins at the next step when it arrives and leaves when it is
done. On one machine a candidate's bytes depend on its order alone, never on company, slot or time: the batch is fixed,
and its noise comes from a CPU generator seeded by the order's seed, the identity and the candidate's index.
"""

import copy
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor

from studiolo.errors import SettingsError, UsageError, nearest
from studiolo.generation.adapters import Adapters
from studiolo.generation.autoencoder import cast_weights
from studiolo.generation.base import fits
from studiolo.generation.batching import Batcher, LaneKey, Request
from studiolo.generation.controlnets import require_fitting
from studiolo.generation.grouped import with_own_hooks
from studiolo.generation.order import Control, Order, Portrait, Step, candidate_seed, check_order, check_shapes
from studiolo.generation.schedulers import make_scheduler
from studiolo.settings import GenerationSettings

__all__ = ["Control", "Engine", "Events", "Order", "Portrait", "Step", "Work", "candidate_seed"]


class Work(NamedTuple):
    """What an engine has done since it was made."""

    turns: int
    """Times that a lane was denoised by one step."""
    steps: int
    """Denoising steps, of all candidates together."""
    busy_s: float


class Engine:
    """Makes orders with one base, `slots` candidates at a time, as many orders at once as there are.

    `pipeline` stays as it is, and others may use it meanwhile, other engines too. With a `precision` other than the
    UNet's, the engine works on a copy of its weights. Orders may come from any thread. The work is done by a thread of
    the engine's own, which lives while orders are inside. Raises `SettingsError` for ControlNets of another base.
    """

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        slots: int = 4,
        *,
        rank_budget: int = 64,
        precision: Literal["float32", "bfloat16"] | None = None,
        controlnets: Mapping[str, ControlNetModel] | None = None,
    ) -> None:
        if slots < 1 or rank_budget < 1:
            raise SettingsError(f"engine: got {slots} slots and a rank budget of {rank_budget}, wanted at least 1 each")
        unet, self._pipeline = pipeline.unet, pipeline
        require_fitting(controlnets or {}, unet.config)
        dtype = unet.dtype if precision is None else getattr(torch, precision)
        self._controlnets = {name: _cast(network, dtype) for name, network in (controlnets or {}).items()}
        own_unet = with_own_hooks(unet) if unet.dtype == dtype else _cast(unet, dtype)
        self._batcher = Batcher(pipeline, own_unet, self._controlnets, slots, rank_budget)
        """Belongs to the thread, but for what may be called from any."""
        self._adapters, self._tokenizer = Adapters(pipeline, rank_budget=rank_budget), copy.deepcopy(pipeline.tokenizer)
        self._reading = threading.Lock()
        """Guards the two above."""
        self._changed = threading.Condition()
        """Guards the three below."""
        self._requests: list[Request] = []
        self._thread: threading.Thread | None = None
        self._closed = False
        self._turns, self._busy_s = 0, 0.0

    @classmethod
    def configured(
        cls,
        pipeline: StableDiffusionPipeline,
        settings: GenerationSettings,
        controlnets: Mapping[str, ControlNetModel] | None = None,
    ) -> "Engine":
        """An engine as the settings want it."""
        return cls(
            pipeline,
            settings.slots,
            rank_budget=settings.rank_budget,
            precision=settings.precision,
            controlnets=controlnets,
        )

    @property
    def side_px(self) -> int:
        """Side of the base's own pictures."""
        return int(self._pipeline.unet.config.sample_size * self._pipeline.vae_scale_factor)

    def work(self) -> "Work":
        """What has been done so far; from any thread."""
        return Work(self._turns, self._batcher.steps, self._busy_s)

    @property
    def busy(self) -> bool:
        """Whether there are orders inside."""
        return bool(self._requests)

    def fits(self, prompt: str) -> bool:
        """Whether the base reads `prompt` to its end."""
        with self._reading:
            return fits(self._tokenizer, prompt)

    @torch.inference_mode()
    def encode(self, rgb_u8: NDArray[np.uint8]) -> Tensor:
        """Latents [C, h, w] of a picture [H, W, 3], for `Order.latents`."""
        vae = self._pipeline.vae
        image_13HW = (torch.tensor(rgb_u8).permute(2, 0, 1)[None] / 127.5 - 1).to(vae.device, vae.dtype)
        latents: Tensor = vae.encode(image_13HW).latent_dist.mode()[0] * vae.config.scaling_factor
        return latents.float()

    @torch.inference_mode()
    def decode(self, latents_CHW: Tensor) -> NDArray[np.uint8]:
        """The picture [H, W, 3] of latents, such as those of a `Step`."""
        return self._batcher.decode(latents_CHW[None])[0]

    def forget(self, lora_sha256s: Collection[str]) -> dict[str, int]:
        """Drop LoRAs, by the sha256 of their files, and the embeddings of all prompts; how many were kept of each.

        Slots keep nothing of an order that has ended.
        """
        with self._reading:
            adapters = self._adapters.forget(lora_sha256s)
        return {"adapters": adapters, "prompts": self._batcher.forget_prompts()}

    def submit(self, order: Order) -> "Events":
        """Steps as they happen and portraits as they are finished, by rising index.

        The work begins at once, beside that of all other orders; LoRA files have been read when this returns. Closing
        the iterator, or letting it go, stops the order after the step in hand. Raises `SettingsError` for an order that
        cannot be made, `WeightsError` for a LoRA that does not fit and `UsageError` when the engine is closed.
        """
        lane = self._check(order)
        with self._reading:
            factors = self._adapters.mix([lora for lora in (order.face_lora, order.style_lora) if lora is not None])
        request = Request(order, lane, factors)
        with self._changed:
            if self._closed:
                raise UsageError(f"engine: got an order of {order.identity_id!r} after it was closed; open a new one")
            if self._thread is None:
                # Not a daemon: Python would end in the middle of native code. It sees the main thread's end itself.
                thread = threading.Thread(target=self._work, name="engine")
                thread.start()
                self._thread = thread
            self._requests.append(request)
        return Events(self, request)

    def close(self) -> None:
        """End all work after the step in hand. Orders that are inside end with `UsageError`."""
        with self._changed:
            self._closed, thread = True, self._thread
        if thread is not None:
            thread.join()

    def cancel(self, request: Request) -> None:
        """Stop `request`; returns when nothing of it is left inside."""
        request.over = True
        with self._changed:
            thread = self._thread
            self._changed.wait_for(lambda: request not in self._requests)
            idle = self._thread is None
        if thread is not None and idle:
            thread.join()

    def _check(self, order: Order) -> LaneKey:
        most_steps = self._pipeline.scheduler.config.num_train_timesteps
        check_order(order, most_steps)
        scheduler = make_scheduler(self._pipeline.scheduler, order.scheduler)
        scheduler.set_timesteps(order.steps)
        found = scheduler.timesteps.unique()
        if len(found) < order.steps or found[-1] >= most_steps:  # with `steps_offset`, for as many as the base has
            raise SettingsError(f"order: got {order.steps} steps, wanted fewer with the scheduler {order.scheduler!r}")
        for name in order.controls:
            if name not in self._controlnets:
                raise SettingsError(f"no ControlNet is called {name!r}; {nearest(name, self._controlnets)}")
        factor, config = self._pipeline.vae_scale_factor, self._pipeline.unet.config
        side_px = self.side_px if order.size_px is None else order.size_px
        shape_CHW = (config.in_channels, side_px // factor, side_px // factor)
        check_shapes(order, side_px, shape_CHW, factor)
        return shape_CHW, tuple(sorted(order.controls))

    @torch.inference_mode()
    def _work(self) -> None:
        """The thread: turn by turn until no order is inside."""
        try:
            while requests := self._inside():
                began_s = time.monotonic()
                self._batcher.turn(requests)
                self._turns, self._busy_s = self._turns + 1, self._busy_s + time.monotonic() - began_s
        except BaseException as error:
            with self._changed:
                for request in self._requests:
                    request.fail(error)
                self._requests, self._thread = [], None
                self._batcher.keep_lanes(())
                self._changed.notify_all()
            raise

    def _inside(self) -> list[Request]:
        """The orders to go on with; those that are over are let go, and with the last one the thread."""
        with self._changed:
            if self._closed or not threading.main_thread().is_alive():
                for request in [request for request in self._requests if not request.over]:
                    who = request.order.identity_id
                    request.fail(UsageError(f"engine: closed with an order of {who!r} inside; submit it to a new one"))
            for request in [request for request in self._requests if request.over]:
                self._batcher.let_go(request)
                self._requests.remove(request)
                request.events.put(None)
            self._batcher.keep_lanes(request.lane for request in self._requests)
            if not self._requests:
                self._thread = None
            self._changed.notify_all()
            return [*self._requests]


class Events(Iterator[Step | Portrait]):
    """What comes of one order. Iterating waits for the next step or portrait and raises what went wrong."""

    def __init__(self, engine: Engine, request: Request) -> None:
        self._engine, self._request = engine, request
        self._ended = False

    def __next__(self) -> Step | Portrait:
        event = None if self._ended else self._request.events.get()
        if isinstance(event, Step | Portrait):
            return event
        self._ended = True
        if event is None:
            raise StopIteration
        raise event

    def close(self) -> None:
        """Stop the order after the step in hand; returns when nothing of it is left in the engine.

        A consumer that waits in another thread comes to the end of its iteration.
        """
        self._ended = True
        self._engine.cancel(self._request)

    def __del__(self) -> None:
        self._request.over = True


def _cast(network: Any, dtype: torch.dtype) -> Any:
    """`network`, or a copy of it in `dtype`."""
    return network if network.dtype == dtype else cast_weights(copy.deepcopy(network), dtype)
