from pathlib import Path

import pytest

from studiolo.albums.decode import decode
from studiolo.perception.detect import RgbU8
from studiolo.perception.perceive import PerceivedPhoto, perceive_photo
from studiolo.perception.suite import Suite, open_suite
from studiolo.settings import PerceptionSettings

SETTINGS = PerceptionSettings()
NAMES = ("portrait.jpg", "selfie.jpg", "full-body-outdoors.jpg", "expression-02-happy.jpg", "expression-14-shocked.jpg")


@pytest.fixture(scope="session")
def suite() -> Suite:
    return open_suite("embedded")


@pytest.fixture(scope="session")
def photos(people: Path) -> dict[tuple[str, str], RgbU8]:
    """(person, name) -> photo, five each of two people."""
    return {
        (person, name): decode((people / person / name).read_bytes(), SETTINGS)
        for person in ("P001", "P002")
        for name in NAMES
    }


@pytest.fixture(scope="session")
def perceived(suite: Suite, photos: dict[tuple[str, str], RgbU8]) -> dict[tuple[str, str], PerceivedPhoto]:
    return {key: perceive_photo(suite, photo, SETTINGS) for key, photo in photos.items()}
