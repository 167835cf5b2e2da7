"""The sampling actor: drafts in, steps, previews and drawn candidates out. One base, one engine, any number of drafts
at a time.
"""

import io
import logging
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studiolo.errors import DatabaseError, StudioloError, WeightsError
from studiolo.generation.base import load_base
from studiolo.generation.engine import Engine, Events, Portrait, Step
from studiolo.generation.engine import Order as EngineOrder
from studiolo.portraits.orders import to_engine
from studiolo.portraits.rounds import Draft, Drawing, Drawn
from studiolo.portraits.styles import style_lora_path
from studiolo.service.records import Kind
from studiolo.service.speeds import Speeds
from studiolo.settings import GenerationSettings
from studiolo.storage.store import Store
from studiolo.weights.fetch import pull, sha256_of

log = logging.getLogger(__name__)

_PREVIEW_PX = 256
_FAULTS = 3
"""So many drafts that failed one after another by no fault of their own, and the sampler is not well."""


@dataclass
class _File:
    identity_id: str
    path: Path


class FaceLoras:
    """Face-LoRAs of `store` as verified files of this disk, the `kept` used last; not for several threads."""

    def __init__(self, store: Store, kept: int = 16) -> None:
        self._store, self._kept = store, kept
        self._folder = tempfile.TemporaryDirectory(prefix="face-loras-")
        self._files: OrderedDict[str, _File] = OrderedDict()
        """By sha256."""

    def get(self, identity_id: str, path: str, sha256: str) -> Path:
        """The file at `path` of the store. Raises `WeightsError` when it is not the one with `sha256`, `StoreError`."""
        local = self._store.local_path(path)
        if local is None and sha256 not in self._files:
            local = Path(self._folder.name) / f"{sha256}.safetensors"
            local.write_bytes(self._store.read_bytes(path))
        found = self._files.pop(sha256, None) or _File(identity_id, local or Path())
        if not found.path.is_file() or sha256_of(found.path) != sha256:
            self._remove(found)
            raise WeightsError(f"face-LoRA {path}: not the file with the sha256 {sha256[:12]}...; train it again")
        self._files[sha256] = found
        while len(self._files) > self._kept:
            self._remove(self._files.popitem(last=False)[1])
        return found.path

    def forget(self, identity_id: str) -> tuple[list[str], int]:
        """Remove what there is of a person: the sha256 of files that were used, and how many copies there were."""
        gone = [sha256 for sha256, file in self._files.items() if file.identity_id == identity_id]
        return gone, sum(self._remove(self._files.pop(sha256)) for sha256 in gone)

    def _remove(self, file: _File) -> bool:
        """Whether there was a copy; the store's own files stay."""
        copied = file.path.parent == Path(self._folder.name)
        if copied:
            file.path.unlink(missing_ok=True)
        return copied


class Pace:
    """Steps done, and seconds in which there was something to do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside, self._steps, self._busy_s, self._since = 0, 0, 0.0, time.monotonic()

    def begin(self) -> None:
        """A draft comes in."""
        self._account(inside=1)

    def step(self, steps: int) -> None:
        """So many steps of a draft were done."""
        self._account(steps=steps)

    def end(self) -> None:
        """A draft is over."""
        self._account(inside=-1)

    def take(self) -> tuple[int, float]:
        """(steps, busy seconds) since the last call."""
        self._account()
        with self._lock:
            taken = self._steps, self._busy_s
            self._steps, self._busy_s = 0, 0.0
        return taken

    def _account(self, inside: int = 0, steps: int = 0) -> None:
        with self._lock:
            now = time.monotonic()
            self._busy_s += now - self._since if self._inside else 0.0
            self._since = now
            self._inside += inside
            self._steps += steps


class Sampler:
    """Draws drafts with the base `base` (a card's id), their face-LoRAs taken from `store`."""

    def __init__(self, store: Store, base: str, settings: GenerationSettings) -> None:
        self.store, self.base, self.settings = store, base, settings
        self.pace = Pace()
        self._faults = 0

    def open(self, device: str = "cpu") -> None:
        """Load the base on a device."""
        self.engine = Engine.configured(load_base(pull(self.base), device=device), self.settings)
        self._loras, self._reading = FaceLoras(self.store), threading.Lock()

    def sample(self, draft: Draft) -> "Sampling":
        """The draft, which begins at once; from any thread.

        Raises `SettingsError` for what cannot be drawn, `WeightsError` and `StoreError` for a face-LoRA that cannot be
        had, and `UsageError` when the sampler is closed.
        """
        subject, style_lora = draft.subject, style_lora_path(draft.style)
        with self._reading:  # a file may go when another is fetched, but not before the engine has read it
            face_lora = None
            if subject.lora_path is not None:
                face_lora = self._loras.get(draft.order.identity_id, subject.lora_path, subject.lora_sha256)
            fields = to_engine(
                draft.order,
                draft.style,
                {"trigger": subject.trigger, "common_tags": subject.common_tags},
                face_lora_path=str(face_lora) if face_lora else None,
                style_lora_path=str(style_lora) if style_lora else None,
                count=draft.count,
                first_index=draft.first_index,
                fits=self.engine.fits,
            )
            order = EngineOrder(**fields, deadline_s=draft.deadline_s, previews=draft.preview_s > 0)
            events = self.engine.submit(order)
        return Sampling(self, events, fields["prompt"], draft.preview_s)

    def forget(self, identity_id: str) -> dict[str, int]:
        """Drop what is kept of a person whose drafts have ended; how much of what."""
        with self._reading:
            sha256s, copies = self._loras.forget(identity_id)
            return {"copies of face-LoRAs": copies, **self.engine.forget(sha256s)}

    def note(self, error: Exception | None) -> None:
        """A draft ended, with an error or without: what nobody raised on purpose speaks against the sampler."""
        self._faults = 0 if error is None or isinstance(error, StudioloError) else self._faults + 1

    def check(self) -> None:
        """Raises `WeightsError` when nothing comes of drafts any more, such as after a fault of the device."""
        if self._faults >= _FAULTS:
            raise WeightsError(f"sampler: {self._faults} drafts failed one after another; start it again")

    def report(self, speeds: Speeds, worker: str, stop: threading.Event, every_s: float = 2.0) -> None:
        """Say how fast this sampler is, idle or not, until `stop`; then leave."""
        steps, busy_s = 0, 0.0
        while not stop.wait(every_s):
            more_steps, more_busy_s = self.pace.take()
            steps, busy_s = steps + more_steps, busy_s + more_busy_s
            try:
                speeds.report(worker, Kind.PORTRAITS, steps, busy_s)
            except DatabaseError as error:
                log.warning("the speed is not reported: %s", error)
            else:
                steps, busy_s = 0, 0.0
        speeds.leave(worker)

    def close(self) -> None:
        """End all drafts after the step in hand."""
        self.engine.close()


class Sampling(Iterator[Drawing | Drawn]):
    """What comes of one draft. Closing it, from any thread, frees its slots."""

    def __init__(self, sampler: Sampler, events: Events, prompt: str, preview_s: float) -> None:
        self._sampler, self._events, self._prompt, self._preview_s = sampler, events, prompt, preview_s
        self._done, self._over = 0, threading.Lock()
        self._previewed_s = time.monotonic() - preview_s
        sampler.pace.begin()

    def __next__(self) -> Drawing | Drawn:
        try:
            event = next(self._events)
        except StopIteration:
            self._end(None)
            raise
        except Exception as error:
            self._end(error)
            raise
        if isinstance(event, Portrait):
            return Drawn(event.index, event.seed, self._prompt, event.rgb_u8)
        self._sampler.pace.step(event.done - self._done)
        self._done = event.done
        return Drawing(event.done, event.total, self._preview(event))

    def close(self) -> None:
        """Stop it; returns when nothing of it is left in the engine."""
        self._events.close()
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self._over.acquire(blocking=False):  # once, whoever is first
            self._sampler.pace.end()
            self._sampler.note(error)

    def _preview(self, step: Step) -> bytes | None:
        """A small PNG of the first candidate of the step, when one is due."""
        now = time.monotonic()
        if not step.latents or now < self._previewed_s + self._preview_s:
            return None
        self._previewed_s = now
        return _small_png(self._sampler.engine.decode(step.latents[min(step.latents)]))


def _small_png(rgb_u8: NDArray[np.uint8]) -> bytes:
    image, buffer = Image.fromarray(rgb_u8), io.BytesIO()
    image.thumbnail((_PREVIEW_PX, _PREVIEW_PX))
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
