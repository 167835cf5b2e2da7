"""The models of perception, opened together under one name."""

from dataclasses import dataclass

import cv2

from studiolo.errors import SettingsError, nearest
from studiolo.perception.attributes import AttributeReader, EmbeddedAttributes
from studiolo.perception.detect import Detector, EmbeddedDetector
from studiolo.perception.embed import EmbeddedEmbedder, Embedder
from studiolo.perception.mesh import EmbeddedMesher, Mesher
from studiolo.perception.regions import EmbeddedPersonMask, EmbeddedRegions, PersonMask
from studiolo.perception.safety import EmbeddedSafety, Safety
from studiolo.weights.fetch import pull

PERCEPTION_CARDS: dict[str, tuple[str, ...]] = {
    "embedded": ("yunet", "face-mesh", "selfie-segmentation", "dlib-face", "age-gender", "nsfw"),
}
"""Cards of the models each suite sees with."""


@dataclass(frozen=True, eq=False)
class Suite:
    """One opened model for each capability. Open it where it is used: it cannot be sent to another process."""

    name: str
    detector: Detector
    mesher: Mesher
    person_mask: PersonMask
    regions: EmbeddedRegions
    embedder: Embedder
    attributes: AttributeReader
    safety: Safety


def open_suite(name: str, threads: int = 1) -> Suite:
    """Fetch, verify and open the models of suite `name`, each with `threads` threads.

    Also sets OpenCV's threads for this process. Raises `SettingsError` for an unknown suite or a runtime that is not
    installed,
    `WeightsError` for a model that cannot be had.
    """
    folders = {card_id: pull(card_id) for card_id in _cards(name)}
    cv2.setNumThreads(threads)
    mesher = EmbeddedMesher.open(folders["face-mesh"], threads)
    person_mask = EmbeddedPersonMask.open(folders["selfie-segmentation"], threads)
    return Suite(
        name=name,
        detector=EmbeddedDetector.open(folders["yunet"]),
        mesher=mesher,
        person_mask=person_mask,
        regions=EmbeddedRegions(mesher, person_mask),
        embedder=EmbeddedEmbedder.open(folders["dlib-face"]),
        attributes=EmbeddedAttributes.open(folders["age-gender"], threads),
        safety=EmbeddedSafety.open(folders["nsfw"], threads),
    )


def open_detector(name: str, threads: int = 1) -> Detector:
    """The detector of suite `name` alone, else as `open_suite`."""
    _cards(name)
    cv2.setNumThreads(threads)
    return EmbeddedDetector.open(pull("yunet"))


def _cards(name: str) -> tuple[str, ...]:
    if name not in PERCEPTION_CARDS:
        raise SettingsError(f"no perception suite is called {name!r}; {nearest(name, PERCEPTION_CARDS)}")
    return PERCEPTION_CARDS[name]
