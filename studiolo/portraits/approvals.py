"""The studio's word on each accepted portrait: `approvals.csv` in the output, a file people edit.

    portrait_id,decision,note,album_id,style,rank,path,image_sha256

`decision` is empty, `approve`, `reject` or `more`. The job writes a row for every accepted portrait and keeps what
stands in the first three columns; the others say which picture is meant, `album_id` also of whom: `anna`, or
`anna/other-1` for a further person of the album. A decision counts for the picture it was made
on: when another settings' picture takes its place, it is undecided again.

**More like this.** `more` approves the portrait and orders as many again in its style, by the next run of the job:
candidates of further seeds, nothing trained, of which those are accepted whose faces are nearest to the chosen one's
(L2 distance of embeddings). They are an order of their own, so no other order's key changes. Their indices begin at a
number that the chosen portrait decides (`more_first_index`), and they stay ordered while its decision is `more` or one
of them is approved.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np

from studiolo.albums.records import Reason, Status
from studiolo.errors import SettingsError, nearest
from studiolo.identities.artifacts import album_of

APPROVALS = "approvals.csv"
"""The file's place in the output."""
COLUMNS = ("portrait_id", "decision", "note", "album_id", "style", "rank", "path", "image_sha256")

BATCH = 10_000
"""Indices of one `more`: more candidates than any order makes."""

_FORMULA = re.compile(r"'*[=+@\t\r-]")
"""How cells begin that spreadsheets would calculate; album names are customers' words. They are written behind `'`, and
read without it."""

Row = Mapping[str, Any]


class Decision(StrEnum):
    """What the studio says of a portrait."""

    OPEN = ""
    APPROVE = "approve"
    REJECT = "reject"
    MORE = "more"


class Approvals:
    """The file's rows, by portrait."""

    def __init__(self, rows: Iterable[Mapping[str, str]] = ()) -> None:
        self._rows = {row["portrait_id"]: dict(row) for row in rows}

    @classmethod
    def read(cls, content: bytes) -> "Approvals":
        """From the file's bytes, UTF-8; only the first three columns are needed.

        Raises `SettingsError` for a column or decision that does not exist (with the nearest) and a portrait that
        stands twice.
        """
        try:
            reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig")), strict=True)
            rows = [{name: _from_cell(value or "") for name, value in row.items() if name} for row in reader]
        except (UnicodeDecodeError, csv.Error) as error:
            raise SettingsError(f"{APPROVALS} cannot be read: {error}; save it as CSV with commas, in UTF-8") from None
        for name in reader.fieldnames or ():
            if name not in COLUMNS:
                raise SettingsError(f"{APPROVALS}: no column is called {name!r}; {nearest(name, COLUMNS)}")
        seen: set[str] = set()
        for number, row in enumerate(rows, 2):
            decision = row["decision"] = row.get("decision", "").strip().lower()
            if decision not in set(Decision):
                wanted = nearest(decision, [item.value for item in Decision if item])
                raise SettingsError(f"{APPROVALS}, line {number}: no decision is called {decision!r}; {wanted}")
            if not row.get("portrait_id") or row["portrait_id"] in seen:
                raise SettingsError(
                    f"{APPROVALS}, line {number}: got the portrait {row.get('portrait_id')!r}, each id is wanted once"
                )
            seen.add(row["portrait_id"])
        return cls(rows)

    def decision(self, portrait: Row) -> Decision:
        """The decision on a row of `PORTRAIT_SCHEMA`; open when it was made on another picture."""
        row = self._rows.get(portrait["portrait_id"], {})
        same = row.get("image_sha256") in (None, "", portrait["image_sha256"])
        return Decision(row.get("decision", "")) if same else Decision.OPEN

    def written(self, portraits: Iterable[Row]) -> bytes:
        """The file for a job with these `portraits`: a row for each accepted one, its decision and note kept.

        Rows with a decision or note on portraits that the job did not make stay as well, behind the others.
        """
        accepted: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        known: set[str] = set()
        for row in portraits:  # read once, and what is kept of it is small
            known.add(row["portrait_id"])
            if row["status"] == Status.OK:
                order = tuple(row[name] for name in ("identity_id", "style", "rank", "index"))
                accepted.append((order, self._row(row)))
        rows = [row for _, row in sorted(accepted, key=lambda item: item[0])]
        others = [row for key, row in sorted(self._rows.items()) if key not in known]
        return _csv([*rows, *(row for row in others if row["decision"] or row.get("note"))])

    def without(self, album_ids: Iterable[str], portrait_ids: Iterable[str]) -> bytes:
        """The file without the rows of these albums and portraits."""
        gone, ids = set(album_ids), set(portrait_ids)
        rows = self._rows.values()
        return _csv(
            row for row in rows if album_of(row.get("album_id", "")) not in gone and row["portrait_id"] not in ids
        )

    def _row(self, portrait: Row) -> dict[str, Any]:
        decision = self.decision(portrait)
        return {
            "portrait_id": portrait["portrait_id"],
            "decision": decision.value,
            "note": self._rows.get(portrait["portrait_id"], {}).get("note", ""),
            "album_id": portrait["identity_id"],
            **{name: portrait[name] for name in ("style", "rank", "path", "image_sha256")},
        }


def more_first_index(portrait_id: str) -> int:
    """Index of the first candidate that is made like this portrait: a multiple of `BATCH`, at least `BATCH`.

    100,000 places: two portraits of one order share one with odds of 1 in 100,000, and the later then counts.
    """
    return BATCH * (1 + int(portrait_id[:12], 16) % 100_000)


def chosen_for_more(portraits: Iterable[Row], approvals: Approvals) -> list[Row]:
    """Rows of `PORTRAIT_SCHEMA`, read twice, of which more are wanted: decided so, or one of those made like it is
    approved.
    """
    kept = {
        (row["identity_id"], row["style"], _batch(row))
        for row in portraits
        if row["status"] == Status.OK and approvals.decision(row) in (Decision.APPROVE, Decision.MORE)
    }
    return [
        row
        for row in portraits
        if row["status"] == Status.OK
        and (
            approvals.decision(row) == Decision.MORE
            or (row["identity_id"], row["style"], more_first_index(row["portrait_id"])) in kept
        )
    ]


def rank_alike(portraits: Sequence[Row], wanted: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """`portraits` with those made for a `more` chosen by closeness; the others keep their outcome.

    Of each batch made like a portrait the acceptable candidates (accepted or surplus) are ordered by the L2 distance of
    their embedding to that portrait's, then by index; as many as the order wants (`wanted`, by identity and style) are
    accepted. Ranks go on behind the order's own, batch by batch.
    """
    groups: dict[tuple[str, str], dict[int, list[dict[str, Any]]]] = {}
    for row in portraits:
        batches = groups.setdefault((row["identity_id"], row["style"]), {})
        batches.setdefault(_batch(row), []).append(dict(row))
    ranked: list[dict[str, Any]] = []
    for (identity_id, style), batches in sorted(groups.items()):
        like = {more_first_index(row["portrait_id"]): row for rows in batches.values() for row in rows}
        rank = 0
        for first_index, rows in sorted(batches.items()):
            if first_index in like:
                _choose(rows, like[first_index], wanted[identity_id][style])
            for row in sorted(rows, key=lambda row: row["rank"]):
                if row["rank"]:
                    rank = row["rank"] = rank + 1
            ranked += rows
    return ranked


def _choose(rows: list[dict[str, Any]], chosen: Row, wanted: int) -> None:
    """Set outcome and rank within one batch."""
    target = np.asarray(chosen["embedding"], np.float64)
    good = [row for row in rows if row["status"] == Status.OK or row["reason"] == Reason.SURPLUS]
    good.sort(key=lambda row: (float(np.linalg.norm(np.asarray(row["embedding"]) - target)), row["index"]))
    for place, row in enumerate(good, 1):
        if place <= wanted:
            row.update(status=Status.OK.value, reason=Reason.NONE.value, rank=place)
        else:
            row.update(status=Status.DROPPED.value, reason=Reason.SURPLUS.value, rank=0)


def _batch(row: Row) -> int:
    """First index of the batch it was made in; 0 for the order's own candidates."""
    return int(row["index"]) // BATCH * BATCH


def _csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _to_cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _to_cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _from_cell(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
