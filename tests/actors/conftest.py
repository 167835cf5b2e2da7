"""What tests of the endpoint's trainer share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.perceiver import Perceiver
from studiolo.service.service import Service
from studiolo.storage.ledger import Ledger
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
