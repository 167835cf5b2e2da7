"""A worker that makes portraits for real, with the tiny base: what the endpoint's dispatcher does, in one thread."""

import hashlib
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from diffusers import StableDiffusionPipeline
from PIL import Image

from studiolo.generation.engine import Engine, Portrait
from studiolo.generation.engine import Order as EngineOrder
from studiolo.portraits.files import encode_portrait
from studiolo.portraits.orders import to_engine
from studiolo.portraits.requests import EditRequest, PortraitRequest, PortraitsResult, ResultImage, request_of
from studiolo.portraits.upscaling import open_upscaler
from studiolo.service.records import Kind, Lease, template_path
from studiolo.service.service import Service
from studiolo.settings import GenerationSettings


class Painter:
    """Leases jobs of portraits and completes them."""

    def __init__(self, service: Service, base: StableDiffusionPipeline, settings: GenerationSettings) -> None:
        self.service, self.settings = service, settings
        self.engine = Engine.configured(base, settings)

    @contextmanager
    def working(self) -> Iterator[None]:
        """It works as long as the `with`."""
        stop = threading.Event()
        thread = threading.Thread(target=self._work, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()

    def _work(self, stop: threading.Event) -> None:
        while not stop.wait(0.02):
            for lease in self.service.queue.lease([Kind.PORTRAITS], "painter", 30):
                result = self.paint(lease)
                self.service.queue.complete(lease, result.model_dump(mode="json"))

    def paint(self, lease: Lease) -> PortraitsResult:
        """The pictures of one job, in the store."""
        wanted = request_of(lease.job.request)
        order = self._edit(lease, wanted) if isinstance(wanted, EditRequest) else self._portraits(lease, wanted)
        size = (wanted.upscale if isinstance(wanted, PortraitRequest) else None) or self.settings.upscale
        upscale, images = open_upscaler(size), {}
        for event in self.engine.submit(order):
            if isinstance(event, Portrait):
                rgb_u8 = upscale(event.rgb_u8)
                content = encode_portrait(rgb_u8, {"prompt": order.prompt, "seed": event.seed})
                path = f"{lease.folder}/{event.index:03d}.png"
                self.service.store.write_bytes(path, content)
                sha256 = hashlib.sha256(content).hexdigest()
                height, width, _ = rgb_u8.shape
                images[event.index] = ResultImage(
                    path=path, sha256=sha256, seed=event.seed, width_px=width, height_px=height
                )
        return PortraitsResult(images=tuple(images[index] for index in sorted(images)))

    def _portraits(self, lease: Lease, wanted: PortraitRequest) -> EngineOrder:
        nobody = {"trigger": "a person", "common_tags": []}
        order = wanted.order(lease.job.id, self.settings)
        return EngineOrder(**to_engine(order, wanted.look(), nobody, fits=self.engine.fits))

    def _edit(self, lease: Lease, wanted: EditRequest) -> EngineOrder:
        """The whole template drawn anew: no face is looked for."""
        content, side_px = self.service.store.read_bytes(template_path(lease.job.id)), self.engine.side_px
        template = Image.open(io.BytesIO(content)).convert("RGB").resize((side_px, side_px))
        return EngineOrder(
            seed=wanted.job_seed(lease.job.id),
            identity_id=wanted.identity_id,
            prompt=wanted.prompt,
            count=wanted.count,
            steps=self.settings.steps,
            latents=self.engine.encode(np.asarray(template)),
            strength=wanted.strength,
        )
