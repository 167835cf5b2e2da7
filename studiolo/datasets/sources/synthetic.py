"""Random faces, made from their numbers when they are read: a data set of any size for everybody."""

import re
from collections.abc import Iterator

from studiolo.datasets.settings import SourceSettings
from studiolo.datasets.sources.listed import Listed
from studiolo.datasets.sources.reading import synthetic_face
from studiolo.errors import SettingsError
from studiolo.training.synthesis import CARD, SIDE_PX
from studiolo.weights.cards import CommercialUse, load_card

SEED_STRIDE = 10**7
"""Faces of one seed; those of the next have the numbers that follow."""

_DEFAULTS = {"seed": 0, "side": 512}
_LEAST = {"count": 1, "seed": 0, "side": 128}
_MOST = {"count": SEED_STRIDE, "seed": 10**6, "side": SIDE_PX}


def licence() -> tuple[str, CommercialUse]:
    """Licence of random faces, and whether it allows commercial use."""
    card = load_card(CARD)
    return f"{card.licence}; {card.commercial_note}", card.commercial_use


def list_synthetic(source: SourceSettings) -> Iterator[Listed]:
    """Faces 0, 1, ... of the seed; seed 0 has those of `python -m jobs synthesise`."""
    values = _values(source)
    version = f"{load_card(CARD).key()[:16]}-{values['side']}"
    for index in range(values["count"]):
        number = values["seed"] * SEED_STRIDE + index
        yield Listed(f"{index:07d}.jpg", synthetic_face(number, values["side"]), f"{version}-{number}")


def _values(source: SourceSettings) -> dict[str, int]:
    wanted = "count=N,seed=S,side=PX"
    values = dict(_DEFAULTS)
    for part in source.place.split(","):
        found = re.fullmatch(r"\s*(count|seed|side)=(\d+)\s*", part)
        if not found:
            raise SettingsError(f"source {source.name!r}: got {part!r}, wanted {wanted}")
        name, value = found[1], int(found[2])
        if not _LEAST[name] <= value <= _MOST[name]:
            raise SettingsError(f"source {source.name!r}: got {name}={value}, wanted {_LEAST[name]} to {_MOST[name]}")
        values[name] = value
    if "count" not in values:
        raise SettingsError(f"source {source.name!r}: got {source.place!r}, wanted {wanted}")
    return values
