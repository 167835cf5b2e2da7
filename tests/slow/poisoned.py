"""The studio's actors with a fault: on one photo, one identity and one order they end their process."""

import os
import uuid
from typing import Any

from actors.perceiver import Perceiver
from actors.portraitist import Portraitist
from actors.trainer import Trainer, Work
from studiolo.storage.store import Store

PHOTO_OF, STYLE = "P001", "warm-film"
"""Whose selfie cannot be seen, and which order for them cannot be made."""

UNTRAINABLE = "P002"


def die(store: Store, what: str) -> None:
    """End the process as a fault in native code does, and leave a trace of it."""
    store.write_bytes(f"deaths/{what}/{uuid.uuid4().hex}", b"")
    os.abort()


class PoisonedPerceiver(Perceiver):
    """Dies at the sight of one photo."""

    def _photo(self, album_id: str, uri: str, place: str) -> dict[str, Any]:
        self._poison = album_id == PHOTO_OF and uri == "selfie.jpg"
        return super()._photo(album_id, uri, place)

    def _see(self, row: dict[str, Any], rgb_u8: Any) -> None:
        if self._poison:
            die(self.store, "photo")
        super()._see(row, rgb_u8)


class PoisonedTrainer(Trainer):
    """Dies over one identity."""

    def _work(self, identity: dict[str, Any], photos: Any, key: str) -> Work:
        if identity["identity_id"] == UNTRAINABLE:
            die(self.store, "identity")
        return super()._work(identity, photos, key)


class PoisonedPortraitist(Portraitist):
    """Dies over one order."""

    def _order(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        if row["style"] == STYLE:
            die(self.store, "order")
        return super()._order(row)
