"""A small release on disk, of drawn faces: decisions, data files and record as the job writes them."""

import hashlib
from typing import Any

import pyarrow as pa

from studiolo.datasets.captions.grammar import Grammar
from studiolo.datasets.records import DATA_SCHEMA, DECISION_SCHEMA, Drop, Split
from studiolo.storage.store import Store
from tests.datasets.drawn import annotation, kept

NAME = "0001"
ODD = 'Zoë <b onclick="alert(1)">|& "Ö" #1'
DROPPED = (Drop.LOW_QUALITY, Drop.LOW_QUALITY, Drop.NOT_ANNOTATED, Drop.UNSAFE)


def rows(count: int = 12) -> list[dict[str, Any]]:
    """Kept rows: of three named people, one of an odd name, and of unnamed ones; split by identity."""
    made = []
    for number in range(count):
        person = number % 4
        changes: dict[str, Any] = {
            "attributes__p_female": (0.97, 0.02, 0.6)[number % 3],
            "attributes__age_years": float(5 + 7 * number),
            "quality__score": 0.5 + 0.04 * (number % 10),
        }
        if number == 3:
            changes["parts"] = [part for part in annotation()["parts"] if part["part"] != "brows"]
        label = ("anna", ODD, None, "ben")[person]
        changes |= {"label": label, "source": "photos" if label else "synthetic-0"}
        (captions,) = Grammar()([annotation(number, **changes)])
        split = Split.TEST if person == 3 else Split.TRAIN
        row = kept(number, captions, split, **changes)
        if label:
            row |= {"identity": f"photos/{label}", "known": True, "licence": "CC-BY-4.0"}
        row["captioner"] = Grammar().id
        made.append(row)
    return sorted(made, key=lambda row: (row["split"] != Split.TRAIN, row["row_id"]))


def write_release(store: Store, count: int = 12, rows_per_file: int = 5) -> list[dict[str, Any]]:
    """Writes the release `NAME`; returns its kept rows in the order of its files."""
    made, files = rows(count), []
    for split in Split:
        some = [row for row in made if row["split"] == split]
        for number, start in enumerate(range(0, len(some), rows_per_file)):
            within = f"data/{split.value}-{number:05d}-of-00009.parquet"
            path = f"releases/{NAME}/{within}"
            table = pa.Table.from_pylist(some[start : start + rows_per_file], DATA_SCHEMA)
            store.write_rows(path, table.to_pylist(), DATA_SCHEMA)
            content = store.read_bytes(path)
            digest = hashlib.sha256(content).hexdigest()
            about = {"path": within, "split": split.value, "rows": table.num_rows}
            files.append({**about, "size_bytes": len(content), "sha256": digest})
    store.write_rows(f"releases/{NAME}/decisions.parquet", _decisions(made), DECISION_SCHEMA)
    sources = [{"name": name, "weight": 1.0, "commercial_use": "unknown"} for name in ("photos", "synthetic-0", ODD)]
    record = {"name": NAME, "key": "", "settings": {}, "merged_across_splits": 1, "formats": []}
    store.write_json(f"releases/{NAME}/release.json", {**record, "sources": sources, "files": files})
    return made


def _decisions(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    blank = dict.fromkeys(DECISION_SCHEMA.names)
    shared = [name for name in blank if name in DATA_SCHEMA.names]
    decided = [{**blank, **{name: row[name] for name in shared}, "keep": True, "reason": ""} for row in made]
    for number, drop in enumerate(DROPPED):
        row = {**blank, "row_id": f"{number:064x}", "source": "photos"}
        decided.append({**row, "keep": False, "reason": drop.value})
    return decided
