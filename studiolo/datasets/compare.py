"""Two releases of one output beside each other."""

from collections import Counter
from typing import Any

from studiolo.datasets import releases
from studiolo.storage.store import Store

Row = dict[str, Any]

ABSENT = "absent"

_COLUMNS = ("row_id", "keep", "reason", "identity", "split")


def compare(store: Store, one: str, other: str) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """How many rows went from what to what, and of those kept in both how many changed identity or split.

    What becomes of a row is its split, the reason that it is left out, or `absent`. The rows of `one` are in memory.
    """
    before = {row["row_id"]: row for row in _rows(store, one)}
    moves, changes = Counter[tuple[str, str]](), Counter[str]()
    for row in _rows(store, other):
        was = before.pop(row["row_id"], None)
        moves[_fate(was), _fate(row)] += 1
        if was is not None and was["keep"] and row["keep"]:
            changes.update(name for name in ("identity", "split") if was[name] != row[name])
    for was in before.values():
        moves[_fate(was), ABSENT] += 1
    return moves, changes


def _rows(store: Store, name: str) -> Any:
    return store.iter_rows(releases.place(name, releases.DECISIONS), _COLUMNS)


def _fate(row: Row | None) -> str:
    if row is None:
        return ABSENT
    return str(row["split"] if row["keep"] else row["reason"])
