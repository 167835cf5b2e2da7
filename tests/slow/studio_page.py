"""The studio page with the whole service behind it in this process: the embedded models, and a short training."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from actors.dispatcher import Dispatcher
from actors.finisher import PortraitFinisher
from actors.leased_trainer import LeasedTrainer
from actors.sampler import Sampler
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.service import Service
from tests.actors.house import House
from tests.actors.leased import working
from tests.jobs.finished_job import empty_database
from tests.web.server import served
from web.app import create_app
from web.page.app import create_page


@dataclass
class Running:
    """A service that runs, and its page."""

    url: str
    service: Service
    token: str


@contextmanager
def running(folder: Path, steps: int = 10, training_steps: int = 12, slots: int = 2) -> Iterator[Running]:
    """The embedded suite and base behind `/v1` and the page, in `folder`, with a short training."""
    settings = EndpointSettings.model_validate(
        {
            "database": f"sqlite:///{folder}/service.db",
            "store": str(folder / "store"),
            "receipt_key": str(folder / "receipts.pem"),
            "provenance": {"development": str(folder / "provenance")},
            "generation": {"steps": steps, "slots": slots, "accept_similarity": 0.0, "face_share": (0.05, 1.0)},
            "face_lora": {"steps": training_steps, "batch_size": 2, "views_per_photo": 2, "slots": 1},
            "trainer": {"poll_s": 0.2},
            "dispatcher": {"poll_s": 0.1},
            "web": {"poll_s": 0.2},
        }
    )
    with ExitStack() as parts:
        service = Service.open(settings)
        parts.callback(service.close)
        service.store.write_bytes("mlflow.db", empty_database())
        house = EmbeddedHouse(service, settings)
        parts.callback(house.close)
        dispatcher: Dispatcher = house.dispatcher()
        trainer = LeasedTrainer(service, settings, "trainer-1")
        trainer.open()
        parts.enter_context(working(trainer))
        elsewhere = lambda name: {**house.sampler.forget(name), **house.finisher.forget(name)}  # noqa: E731
        endpoint = parts.enter_context(served(create_app(service, settings, dispatcher.live, elsewhere)))
        page = parts.enter_context(served(create_page(settings, endpoint)))
        yield Running(page, service, service.keys.create("studio").token)


class EmbeddedHouse(House):
    """One sampler and one finisher with the embedded models."""

    def __init__(self, service: Service, settings: EndpointSettings) -> None:
        self.service, self.settings, self.dispatchers = service, settings, []
        self.sampler = Sampler(service.store, settings.base, settings.generation, controlnets=settings.controlnets)
        self.sampler.open()
        self.finisher = PortraitFinisher(service.store, settings.suite, settings.generation)
        self.finisher.open()
        self.threads = ThreadPoolExecutor(2)


def photos_of(people: Path, person: str) -> list[Path]:
    """A good album, with a file that is no picture."""
    folder = people / person
    notes = folder.parent / "notes.jpg"
    notes.write_text("this is no picture")
    names = ("portrait.jpg", "selfie.jpg", "expression-01-neutral.jpg", "expression-02-happy.jpg")
    return [*(folder / name for name in names), notes]
