"""A worker that makes portraits for real, with the tiny base: what the endpoint's dispatcher does, in one thread."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from diffusers import StableDiffusionPipeline

from studiolo.generation.engine import Engine, Portrait
from studiolo.generation.engine import Order as EngineOrder
from studiolo.portraits.files import encode_portrait
from studiolo.portraits.orders import to_engine
from studiolo.portraits.requests import PortraitRequest, PortraitsResult, ResultImage
from studiolo.portraits.upscaling import open_upscaler
from studiolo.service.records import Kind, Lease
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
        wanted = PortraitRequest.model_validate(lease.job.request)
        order = wanted.order(lease.job.id, self.settings)
        nobody = {"trigger": "a person", "common_tags": []}
        fields = to_engine(order, wanted.look(), nobody, fits=self.engine.fits)
        upscale, images = open_upscaler(order.generation.upscale), {}
        for event in self.engine.submit(EngineOrder(**fields)):
            if isinstance(event, Portrait):
                rgb_u8 = upscale(event.rgb_u8)
                content = encode_portrait(rgb_u8, {"prompt": fields["prompt"], "seed": event.seed})
                path = f"{lease.folder}/{event.index:03d}.png"
                self.service.store.write_bytes(path, content)
                sha256 = hashlib.sha256(content).hexdigest()
                height, width, _ = rgb_u8.shape
                images[event.index] = ResultImage(
                    path=path, sha256=sha256, seed=event.seed, width_px=width, height_px=height
                )
        return PortraitsResult(images=tuple(images[index] for index in sorted(images)))
