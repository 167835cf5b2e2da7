"""Captions of many rows in parts that are kept as they are made, for captioners whose work is dear: one that is
interrupted goes on behind the last part.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from studiolo.datasets.captions.captioner import Caption, Captioner, Row
from studiolo.errors import PhotoError
from studiolo.keys import canonical_json
from studiolo.storage.store import Store


def in_parts(
    captioner: Captioner,
    rows: Sequence[Row],
    store: Store,
    folder: str,
    working_on: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> list[list[Caption]]:
    """Captions of `rows`; each part of them is written below `folder` when it is made, and read from there again.

    A part is named by the captioner's id and its rows, so that neither another captioner nor other rows are taken for
    it. `forget_parts` removes them once the whole is written. A part that `working_on` its name refuses has none.
    """
    size = captioner.rows_per_part or max(len(rows), 1)
    captions: list[list[Caption]] = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        name = _name(captioner, part)
        path = f"{folder}/{name}.json"
        if captioner.rows_per_part and store.exists(path):
            captions += store.read_json(path)
            continue
        try:
            with working_on(name):
                made = captioner(part)
        except PhotoError:
            made = [[] for _ in part]
        if captioner.rows_per_part:
            store.write_json(path, made)
        captions += made
    return captions


def forget_parts(store: Store, folder: str) -> None:
    """Removes all parts below `folder`."""
    for path in store.list(folder):
        store.remove(path)


def _name(captioner: Captioner, rows: Sequence[Row]) -> str:
    return hashlib.sha256(canonical_json([captioner.id, *(row["row_id"] for row in rows)]).encode()).hexdigest()
