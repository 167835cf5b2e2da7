"""What tests of the endpoint's actors share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.perceiver import Perceiver
from studiolo.generation.tiny import tiny_base
from studiolo.service.service import Service
from studiolo.storage.ledger import Ledger
from tests.actors.house import House, small_service
from tests.actors.leased import endpoint_settings, models, untracked, use_tiny_base


@pytest.fixture
def tiny_trainer(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint's trainer has the tiny base, and perception models that are opened once."""
    use_tiny_base(monkeypatch.setattr)

    def opened(perceiver: Perceiver, device: str = "cpu") -> None:
        perceiver.suite, perceiver.similarity = models().suite, models().similarity
        perceiver.ledger = Ledger(perceiver.store)

    monkeypatch.setattr(Perceiver, "open", opened)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """An endpoint that tracks nothing."""
    service = untracked(endpoint_settings(tmp_path))
    yield service
    service.close()


@pytest.fixture
def house(weights: Path, tmp_path: Path) -> Iterator[House]:
    """A small house with the tiny base."""
    service = small_service(tmp_path)
    house = House(service)
    house.sampler.use(tiny_base())
    yield house
    house.close()
    service.close()
