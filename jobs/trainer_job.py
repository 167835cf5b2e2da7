"""The endpoint's trainer as a process: its settings made whole, its signals, and a watchdog over it."""

import errno
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from itertools import count

import torch

from actors.leased_trainer import LeasedTrainer
from jobs.machine import with_slots
from pipelines.watchdog import Watchdog
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.logs import configure
from studiolo.service.metrics import PrometheusMeters
from studiolo.service.service import Service
from studiolo.settings import FaceLoraSettings


def run(settings: EndpointSettings, once: bool = False) -> None:
    """Work until SIGTERM or SIGINT; with `once` until nothing is queued. Raises `StudioloError`."""
    configure()
    settings = settings.model_copy(update={"face_lora": on_this_machine(settings)})
    torch.set_num_threads(settings.face_lora.cpus_per_worker)
    watchdog = Watchdog(settings.face_lora.memory_limit_mib)
    meters, port = PrometheusMeters(), settings.trainer.metrics_port
    with (
        meters.serve(port) if port else nullcontext(),
        closing(Service.open(settings, meters)) as service,
        worker_name() as worker,
    ):
        trainer = LeasedTrainer(service, settings, worker, watchdog.watching)
        with told_to_end(trainer.drain):
            trainer.open()
            trainer.work(once)


def on_this_machine(settings: EndpointSettings) -> FaceLoraSettings:
    """How identities are learned here; slots that are not given are those that the trainer's device is good for.

    Raises `SettingsError` for an accelerator that is not there.
    """
    on_device = settings.face_lora.model_copy(update={"accelerator": settings.trainer.device != "cpu"})
    return settings.face_lora.model_copy(update={"slots": with_slots(on_device, settings.base).slots})


@contextmanager
def worker_name() -> Iterator[str]:
    """The machine's name and a number that no other trainer on it has at the time: after a crash it is the same again.

    The system frees the number with the process: it is held by an address of a socket that nobody connects to.
    """
    with socket.socket(socket.AF_UNIX) as claim:
        for number in count():
            try:
                claim.bind(f"\0studiolo-trainer-{number}")
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            yield f"trainer-{socket.gethostname()}-{number}"
            return


@contextmanager
def told_to_end(drain: Callable[[], None]) -> Iterator[None]:
    """Within the `with` SIGTERM and SIGINT call `drain` in place of ending the process; a second Ctrl-C ends it.

    `drain` must take no lock: what it interrupts may hold it.
    """
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}

    def told(*_: object) -> None:
        drain()
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    for one in before:
        signal.signal(one, told)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
