"""The engine: the single door to generation. An order goes in, steps and portraits come out.

The batch has a fixed number of slots and candidate i always sits in slot i mod slots, the others padded: kernels
choose their blocking by the batch's size and the place in it, so a candidate's bytes would otherwise depend on
how many others are made with it. Its noise comes from a CPU generator seeded by the order's seed, the identity
and the candidate's index.
"""

import hashlib
import math
import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from studiolo.errors import SettingsError, UsageError
from studiolo.generation.adapters import Adapters
from studiolo.generation.base import fits

_PADDING_SEED = 0

MOST_ETA = 0.999
"""At eta 1 and no signal left (zero terminal SNR) DDIM takes the root of 0, or by rounding of a little less."""


@dataclass(frozen=True)
class Order:
    """What to make: `count` candidates of one identity, indices from `first_index` on."""

    seed: int
    """0 <= seed < 2**63."""
    identity_id: str
    """Whose portraits; part of every candidate's seed."""
    prompt: str
    """What the pictures show."""
    negative_prompt: str = ""
    """What they do not show; without effect at a guidance scale of 1."""
    count: int = 1
    """Candidates."""
    first_index: int = 0
    """Index of the first candidate, so that a later round goes on where the last one ended."""
    steps: int = 30
    """Denoising steps."""
    guidance_scale: float = 2.0
    """Classifier-free guidance, at least 1."""
    eta: float = 0.0
    """Noise DDIM adds back at each step, 0 (none) to 1 (ancestral); it comes from the candidate's own generator."""
    face_lora: tuple[str, float] | None = None
    """(path of the safetensors file, weight)."""
    style_lora: tuple[str, float] | None = None
    """(path of the safetensors file, weight)."""
    size_px: int | None = None
    """Side of the square picture, a multiple of the base's 8; the base's own when None."""


@dataclass(frozen=True)
class Step:
    """`done` of the order's `total` denoising steps, all batches together, are done."""

    done: int
    total: int


@dataclass(frozen=True, eq=False)
class Portrait:
    """A finished candidate: `rgb_u8` [H, W, 3] and the seed it was made from."""

    index: int
    seed: int
    rgb_u8: NDArray[np.uint8]


class Engine:
    """Makes orders with one base, `slots` candidates at a time, one order after another."""

    def __init__(self, pipeline: StableDiffusionPipeline, slots: int = 4) -> None:
        if slots < 1:
            raise SettingsError(f"engine: got {slots} slots, wanted at least 1")
        self._pipeline = pipeline
        self._slots = slots
        self._adapters = Adapters(pipeline)
        self._busy = threading.Lock()

    def fits(self, prompt: str) -> bool:
        """Whether the base reads `prompt` to its end."""
        return fits(self._pipeline.tokenizer, prompt)

    def submit(self, order: Order) -> Iterator[Step | Portrait]:
        """Steps as they happen and portraits as they are finished, by rising index.

        Closing the iterator stops the work after the step in hand. Raises `SettingsError` at once for an order
        that cannot be made; while iterating, `WeightsError` for a LoRA that does not fit and `UsageError` when
        another order is still being made: two at a time would mix their LoRAs.
        """
        self._check(order)
        return self._make(order)

    def _make(self, order: Order) -> Generator[Step | Portrait, None, None]:
        if not self._busy.acquire(blocking=False):
            raise UsageError(
                f"engine: got an order of {order.identity_id!r} while another is being made; finish or close that first"
            )
        try:
            mix = [lora for lora in (order.face_lora, order.style_lora) if lora is not None]
            batches = _batches(order.first_index, order.count, self._slots)
            with self._adapters.mix(mix):
                for number, indices in enumerate(batches):
                    with closing(self._batch(order, indices)) as events:
                        for event in events:
                            if isinstance(event, int):
                                yield Step(number * order.steps + event, len(batches) * order.steps)
                            else:
                                yield event
        finally:
            self._busy.release()

    def _check(self, order: Order) -> None:
        if order.count < 1 or order.steps < 1 or order.first_index < 0:
            raise SettingsError(
                f"order: got {order.count} candidates from index {order.first_index} in {order.steps} steps, wanted at"
                " least 1 candidate, index 0 and 1 step"
            )
        if not 0 <= order.seed < 2**63:
            raise SettingsError(f"order: got the seed {order.seed}, wanted 0 <= seed < 2**63")
        weights = [lora[1] for lora in (order.face_lora, order.style_lora) if lora is not None]
        if not (1 <= order.guidance_scale < math.inf and all(map(math.isfinite, weights))):
            raise SettingsError(
                f"order: got a guidance scale of {order.guidance_scale} and LoRA weights {weights}, wanted a scale of"
                " at least 1 and finite weights"
            )
        most, factor = self._pipeline.scheduler.config.num_train_timesteps, self._pipeline.vae_scale_factor
        if order.steps > most:
            raise SettingsError(f"order: got {order.steps} steps, wanted at most the base's {most}")
        if order.size_px is not None and (order.size_px < factor or order.size_px % factor):
            raise SettingsError(f"order: got a size of {order.size_px} px, wanted a multiple of {factor}")

    def _batch(self, order: Order, indices: tuple[int, ...]) -> Generator[int | Portrait, None, None]:
        """Steps done, then the portraits. The pipeline runs in a thread of its own, so that its callback's steps
        can be handed on as they happen.
        """
        events: queue.Queue[int | NDArray[np.float32] | BaseException] = queue.Queue()
        stopped = threading.Event()

        def step_end(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            pipeline._interrupt = stopped.is_set()
            events.put(step + 1)
            return tensors

        def work() -> None:
            try:
                events.put(self._call(order, indices, step_end))
            except BaseException as error:
                events.put(error)

        thread = threading.Thread(target=work, name="engine", daemon=True)
        thread.start()
        try:
            while isinstance(event := events.get(), int):
                yield event
            if isinstance(event, BaseException):
                raise event
            for index in indices:
                seed = candidate_seed(order.seed, order.identity_id, index)
                yield Portrait(index, seed, np.rint(event[index % self._slots] * 255).astype(np.uint8))
        finally:
            stopped.set()
            thread.join()

    def _call(self, order: Order, indices: tuple[int, ...], step_end: Any) -> NDArray[np.float32]:
        """Pictures [slots, H, W, 3] in 0..1: candidate i in slot i mod slots, padding in the others."""
        seeds = [_PADDING_SEED] * self._slots
        for index in indices:
            seeds[index % self._slots] = candidate_seed(order.seed, order.identity_id, index)
        with torch.inference_mode():
            images: NDArray[np.float32] = self._pipeline(
                [order.prompt] * self._slots,
                negative_prompt=[order.negative_prompt] * self._slots,
                height=order.size_px,
                width=order.size_px,
                num_inference_steps=order.steps,
                guidance_scale=order.guidance_scale,
                eta=min(order.eta, MOST_ETA),
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                output_type="np",
                callback_on_step_end=step_end,
            ).images
        return images


def candidate_seed(order_seed: int, identity_id: str, index: int) -> int:
    """Seed of one candidate, 0 <= seed < 2**63: sha256 over the order's seed, whose picture and which one."""
    digest = hashlib.sha256(f"candidate\0{order_seed}\0{identity_id}\0{index}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _batches(first_index: int, count: int, slots: int) -> list[tuple[int, ...]]:
    """The candidates' indices, cut at the multiples of `slots`."""
    last = first_index + count
    cuts = range(first_index // slots * slots, last, slots)
    return [tuple(range(max(cut, first_index), min(cut + slots, last))) for cut in cuts]
