"""Captions of many rows in parts that are kept as they are made, for captioners whose work is dear: one that is
interrupted goes on behind the last part.
"""

import hashlib
from collections.abc import Sequence

from studiolo.datasets.captions.captioner import Caption, Captioner, Row
from studiolo.keys import canonical_json
from studiolo.storage.store import Store


def in_parts(
    captioner: Captioner, rows: Sequence[Row], store: Store, folder: str, rows_per_part: int = 16
) -> list[list[Caption]]:
    """Captions of `rows`; each part of them is written below `folder` when it is made, and read from there again.

    A part is named by the captioner's id and its rows, so that neither another captioner nor other rows are taken for
    it. `forget_parts` removes them once the whole is written.
    """
    captions: list[list[Caption]] = []
    for start in range(0, len(rows), rows_per_part):
        part = rows[start : start + rows_per_part]
        path = f"{folder}/{_name(captioner, part)}.json"
        if not store.exists(path):
            store.write_json(path, captioner(part))
        captions += store.read_json(path)
    return captions


def forget_parts(store: Store, folder: str) -> None:
    """Removes all parts below `folder`."""
    for path in store.list(folder):
        store.remove(path)


def _name(captioner: Captioner, rows: Sequence[Row]) -> str:
    return hashlib.sha256(canonical_json([captioner.id, *(row["row_id"] for row in rows)]).encode()).hexdigest()
