"""Numbered samples of a base with their prompts, for labelling by hand, and what the labels say."""

import csv
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from benchmarks.sampling import Sample, Sight
from studiolo.errors import SettingsError
from studiolo.metrics.prompts import KINDS, Attributes
from studiolo.portraits.sheets import SheetRow, Tile, contact_sheet
from studiolo.storage.store import Store

SHOWN = 200
_COLUMNS, _ROWS = 8, 5
_LINE = 21  # characters that fit below a tile


def write_sheet(
    folder: Path, made: Sequence[Sample], prompts: Sequence[str], asked: Sequence[Attributes], seen: Sequence[Sight]
) -> None:
    """The first 200 samples as pages, their prompts with what the tagger saw, and an empty table of labels."""
    store, count = Store(folder), min(SHOWN, len(made))
    tiles = [Tile(made[number].rgb_u8, _words(number, prompts[number])) for number in range(count)]
    page = _COLUMNS * _ROWS
    for at in range(0, count, page):
        rows = [tiles[row : row + _COLUMNS] for row in range(at, min(at + page, count), _COLUMNS)]
        sheet = contact_sheet([SheetRow("", row) for row in rows])
        store.write_bytes(f"page-{at // page + 1}.png", cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
    store.write_json(
        "samples.json",
        [
            {
                "number": number,
                "prompt": prompts[number],
                "asked": {kind: sorted(words) for kind, words in asked[number].items()},
                "seen": {kind: sorted(words) for kind, words in seen[number].attributes.items()},
            }
            for number in range(count)
        ],
    )
    lines = [f"{number},{kind},\n" for number in range(count) for kind in KINDS if kind in asked[number]]
    store.write_bytes("labels.csv", "".join(["number,attribute,holds\n", *lines]).encode())


def hand_figures(folder: Path, labels: Path) -> dict[str, Any]:
    """By attribute, how often it holds by hand, and how often the tagger says the same of the same picture.

    Rows with an empty `holds` are not labelled yet. Raises `SettingsError` for a row that does not fit the sheet.
    """
    samples = {row["number"]: row for row in Store(folder).read_json("samples.json")}
    votes: dict[str, list[tuple[bool, bool]]] = {}
    for row in csv.DictReader(io.StringIO(labels.read_text(encoding="utf-8"))):
        if not (row.get("holds") or "").strip():
            continue
        number, kind, holds = (str(row.get(name)).strip() for name in ("number", "attribute", "holds"))
        if (
            holds not in ("0", "1")
            or not number.isdecimal()
            or kind not in samples.get(int(number), {}).get("asked", {})
        ):
            raise SettingsError(
                f"labels {labels}: got {dict(row)}, wanted a number of {folder}, an attribute its prompt asks for"
                f" ({', '.join(KINDS)}), and 1 or 0"
            )
        asked, seen = samples[int(number)]["asked"][kind], samples[int(number)]["seen"].get(kind, [])
        votes.setdefault(kind, []).append((holds == "1", set(asked) <= set(seen)))
    if not votes:
        raise SettingsError(f"labels {labels}: got no row with `holds`, wanted 1 or 0 in some")
    return {
        kind: {
            "labelled": len(pairs),
            "holds": round(sum(hand for hand, _ in pairs) / len(pairs), 4),
            "tagger_says_the_same": round(sum(hand == tagger for hand, tagger in pairs) / len(pairs), 4),
        }
        for kind, pairs in sorted(votes.items())
    }


def _words(number: int, prompt: str) -> str:
    return "\n".join(textwrap.wrap(f"{number}: {prompt}", _LINE))
