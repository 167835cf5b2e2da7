"""The endpoint's trainer as a process: its settings made whole, its signals, and a watchdog over it."""

import logging
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext

import torch

from actors.leased_trainer import LeasedTrainer
from jobs.machine import with_slots
from pipelines.watchdog import Watchdog
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.logs import configure
from studiolo.service.metrics import PrometheusMeters
from studiolo.service.service import Service

_log = logging.getLogger(__name__)


def run(settings: EndpointSettings, once: bool = False) -> None:
    """Work until SIGTERM or SIGINT; with `once` until nothing is queued. Raises `StudioloError`."""
    configure()
    settings = settings.model_copy(update={"face_lora": with_slots(settings.face_lora, settings.base)})
    torch.set_num_threads(settings.face_lora.cpus_per_worker)
    watchdog = Watchdog(settings.face_lora.memory_limit_mib)

    def watch(limit_s: float) -> AbstractContextManager[Callable[[], None]]:
        return watchdog.watching(limit_s, lambda why: _log.error("the trainer ends itself: it %s", why))

    meters, port = PrometheusMeters(), settings.trainer.metrics_port
    with meters.serve(port) if port else nullcontext(), closing(Service.open(settings, meters)) as service:
        trainer = LeasedTrainer(service, settings, worker_name(), watch)
        with told_to_end(trainer.drain):
            trainer.open()
            trainer.work(once)


def worker_name() -> str:
    """Unlike any other process's, here or elsewhere."""
    return f"trainer-{socket.gethostname()}-{secrets.token_hex(4)}"


@contextmanager
def told_to_end(drain: Callable[[], None]) -> Iterator[None]:
    """Within the `with` SIGTERM and SIGINT call `drain` in place of ending the process."""
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {one: signal.signal(one, lambda *_: drain()) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
