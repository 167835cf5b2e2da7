"""What becomes of each row: keep or not and why, whom it shows, what it is for. Pure functions of `Measures`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studiolo.datasets.annotate import OPTED_OUT
from studiolo.datasets.duplicates import NONE, exact_duplicates, near_duplicates
from studiolo.datasets.identities import NOBODY, Identities, identify, splits, wrong_labels
from studiolo.datasets.measures import Measures
from studiolo.datasets.records import Drop, Split
from studiolo.datasets.settings import ReleaseSettings, SourceSettings
from studiolo.datasets.sources import licence_of

Row = dict[str, Any]

DROPS = tuple(Drop)
"""A row's reason is kept as an index of this."""


@dataclass(frozen=True, eq=False)
class Decisions:
    """What becomes of the rows of some `Measures`."""

    drops: NDArray[np.int8]
    """[N], indices of `DROPS`."""
    duplicate_of: NDArray[np.int64]
    """[N]: index of the row that is kept instead, or `duplicates.NONE`."""
    from_label: NDArray[np.float64]
    """[N]: distance from the middle face of its label, where that is too far."""
    identities: Identities
    splits: list[Split]
    """Of each identity."""
    across_splits: int
    """Circles of identities whose members would have been in several splits; they are in train."""

    @property
    def kept(self) -> NDArray[np.bool_]:
        """[N]."""
        return self.drops == DROPS.index(Drop.NONE)


def decide(measures: Measures, settings: ReleaseSettings) -> Decisions:
    """Judge all rows, in the order in which they were first seen: what comes later changes no earlier row's fate,
    except that a group may grow.
    """
    rows = measures.rows
    drops = _by_itself(measures, settings)
    alone = drops == DROPS.index(Drop.NONE)
    from_label = wrong_labels(measures.faces, rows["label"], alone, settings.wrong_label_distance)
    drops[from_label > 0] = DROPS.index(Drop.WRONG_LABEL)
    duplicate_of = _duplicates(measures, settings, drops)
    identities = identify(
        measures.faces,
        rows["label"],
        rows["annotated"] & (from_label == 0),
        measures.labels,
        _Names(rows),
        settings.cluster_distance,
    )
    of_identity, across = splits(identities, settings.validation_share, settings.test_share)
    return Decisions(drops, duplicate_of, from_label, identities, of_identity, across)


def _by_itself(measures: Measures, settings: ReleaseSettings) -> NDArray[np.int8]:
    """Why a row is dropped whatever the others are; of several reasons the first."""
    rows = measures.rows
    opted_out = np.zeros(len(rows), np.bool_)
    opted_out[[index for index, (reason, _) in measures.refused.items() if reason == OPTED_OUT]] = True
    reasons = {
        Drop.OPTED_OUT: opted_out,
        Drop.NOT_LISTED: ~rows["listed"],
        Drop.NOT_ANNOTATED: ~rows["annotated"],
        Drop.UNSAFE: rows["unsafe"] > settings.unsafe_above,
        Drop.TOO_SMALL: rows["face_px"] < settings.min_face_px,
        Drop.SEVERAL_FACES: rows["second_face_share"] > settings.max_second_face_share,
        Drop.POSE: (abs(rows["yaw_deg"]) > settings.max_yaw_deg) | (abs(rows["pitch_deg"]) > settings.max_pitch_deg),
        Drop.LOW_QUALITY: rows["quality"] < settings.min_quality,
    }
    indices = [DROPS.index(drop) for drop in reasons]
    return np.select(list(reasons.values()), indices, DROPS.index(Drop.NONE)).astype(np.int8)


def _duplicates(measures: Measures, settings: ReleaseSettings, drops: NDArray[np.int8]) -> NDArray[np.int64]:
    """Marks duplicates in `drops`; what each is a duplicate of."""
    rows, kept = measures.rows, drops == DROPS.index(Drop.NONE)
    duplicate_of = exact_duplicates(rows["content"], kept)
    drops[duplicate_of != NONE] = DROPS.index(Drop.EXACT_DUPLICATE)
    kept &= duplicate_of == NONE
    near = near_duplicates(rows["phash"], measures.images, kept, settings.duplicate_bits, settings.duplicate_cosine)
    drops[near != NONE] = DROPS.index(Drop.NEAR_DUPLICATE)
    return np.where(near != NONE, near, duplicate_of)


class _Names:
    """Ids of rows by index, made when they are asked for."""

    def __init__(self, rows: NDArray[Any]) -> None:
        self._rows = rows

    def __getitem__(self, index: int, /) -> str:
        return bytes(self._rows["row_id"][index]).hex()


def decision_rows(
    measures: Measures, decisions: Decisions, settings: ReleaseSettings, sources: Mapping[str, SourceSettings]
) -> Iterator[Row]:
    """Rows of `DECISION_SCHEMA`, in order; `sources` are those of the measures, by name."""
    names = _Names(measures.rows)
    shards = {shard.part.number: shard.path for shard in measures.shards}
    kept = decisions.kept
    for index, row in enumerate(measures.rows):
        source = sources[measures.sources[row["source"]]]
        who = int(decisions.identities.of_row[index])
        other = int(decisions.duplicate_of[index])
        drop = DROPS[decisions.drops[index]]
        yield {
            "row_id": names[index],
            "source": source.name,
            "shard": shards[int(row["part"])],
            "index": int(row["index"]),
            "keep": bool(kept[index]),
            "reason": drop.value,
            "detail": _detail(measures, decisions, index, drop, settings),
            "duplicate_of": names[other] if other != NONE else None,
            "identity": decisions.identities.names[who] if who != NOBODY else None,
            "known": decisions.identities.known[who] if who != NOBODY else None,
            "split": decisions.splits[who].value if kept[index] else None,
            "label": _label(measures, row, source.name) if drop is not Drop.OPTED_OUT else None,
            "licence": measures.licences[row["licence"]] if row["licence"] >= 0 else licence_of(source),
            "weight": source.weight,
        }


def _label(measures: Measures, row: Any, source: str) -> str | None:
    return measures.labels[row["label"]].removeprefix(f"{source}/") if row["label"] >= 0 else None


def _detail(measures: Measures, decisions: Decisions, index: int, drop: Drop, settings: ReleaseSettings) -> str:
    row = measures.rows[index]
    match drop:
        case Drop.NOT_ANNOTATED | Drop.OPTED_OUT:
            return ": ".join(filter(None, measures.refused[index]))
        case Drop.UNSAFE:
            return f"score {row['unsafe']:.2f}, limit {settings.unsafe_above:g}"
        case Drop.TOO_SMALL:
            return f"{row['face_px']:.0f} px across, wanted {settings.min_face_px}"
        case Drop.SEVERAL_FACES:
            return (
                f"the second has {row['second_face_share']:.2f} of its side, limit {settings.max_second_face_share:g}"
            )
        case Drop.POSE:
            limits = f"{settings.max_yaw_deg:g} and {settings.max_pitch_deg:g}"
            return f"yaw {row['yaw_deg']:.0f}, pitch {row['pitch_deg']:.0f} degrees, limits {limits}"
        case Drop.LOW_QUALITY:
            return f"score {row['quality']:.2f}, wanted {settings.min_quality:g}"
        case Drop.WRONG_LABEL:
            far = decisions.from_label[index]
            return f"distance {far:.2f} from the middle face of its label, limit {settings.wrong_label_distance:g}"
        case Drop.NEAR_DUPLICATE:
            other = measures.rows["phash"][decisions.duplicate_of[index]]
            return f"{int(np.bitwise_count(row['phash'] ^ other))} of 64 bits differ"
    return ""
