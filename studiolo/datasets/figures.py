"""Every number on a release's card, counted from its tables and from nothing else.

The card is written from what `release_figures` returns, and `card.check_card` counts again: a number that the tables
do not bear out cannot stand.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from studiolo.datasets.captions.findings import GENDERS
from studiolo.datasets.records import PARTS, WHOLE, Split
from studiolo.datasets.release_files import ReleaseFiles, Row

Figures = dict[str, Any]

SURE_OF_GENDER = 0.8
"""Probability from which a face is counted as a woman's or a man's."""

NOT_SURE = "not sure"
DECADES = (*(f"{low}-{low + 9}" for low in range(0, 80, 10)), "80+")
"""Age groups of the paper's figure 4."""

SIZES = (("1", 1), ("2", 2), ("3-5", 5), ("6-10", 10), ("11-30", 30), ("31-100", 100), ("over 100", 10**12))
"""Groups of identities by the number of their rows, and the largest number of each."""

QUALITY_BINS = 20

_COLUMNS = (
    *("source", "licence", "split", "identity", "known", "attributes", "quality", "parts"),
    *("captioner", "captions", "face_model", "image_model"),
)


def release_figures(files: ReleaseFiles) -> Figures:
    """All figures of a release, a JSON value; the same release gives the same value.

    Ages and genders are the model's estimates, not the people's own words.
    """
    decided, kept = _Decided(), _Kept()
    for row in files.decisions(("source", "keep", "reason")):
        decided.add(row)
    for _, row in files.rows(_COLUMNS):
        kept.add(row)
    return {
        "name": files.name,
        "rows": {
            "listed": decided.rows,
            "kept": kept.rows,
            "dropped": decided.rows - decided.kept,
        },
        "reasons": _sorted(decided.reasons),
        "sources": {
            name: {
                "listed": count,
                "kept": kept.sources[name],
                "licences": _sorted(kept.licences_of(name)),
            }
            for name, count in sorted(decided.sources.items())
        },
        "licences": _sorted(kept.licences),
        **kept.figures(),
        "circles_across_splits": files.record["merged_across_splits"],
        "files": {
            "count": len(files.data_files()),
            "bytes": sum(file["size_bytes"] for file in files.data_files()),
        },
    }


def differences(stated: Any, counted: Any, where: str = "") -> list[str]:
    """Each place at which two figures differ, as a sentence; empty when they are equal."""
    if isinstance(stated, Mapping) and isinstance(counted, Mapping):
        names = [*stated, *(name for name in counted if name not in stated)]
        found = (differences(stated.get(name), counted.get(name), f"{where}.{name}".lstrip(".")) for name in names)
        return [sentence for sentences in found for sentence in sentences]
    return [] if stated == counted else [f"{where}: the card says {stated!r}, the tables {counted!r}"]


class _Decided:
    def __init__(self) -> None:
        self.rows = self.kept = 0
        self.reasons: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()

    def add(self, row: Row) -> None:
        self.rows += 1
        self.sources[row["source"]] += 1
        if row["keep"]:
            self.kept += 1
        else:
            self.reasons[row["reason"]] += 1


class _Kept:
    def __init__(self) -> None:
        self.rows = self.phrases = 0
        self.sources: Counter[str] = Counter()
        self.licences: Counter[str] = Counter()
        self._source_licences: Counter[tuple[str, str]] = Counter()
        self._people: Counter[tuple[str, bool, str]] = Counter()  # identity, known, split
        self._ages: Counter[tuple[str, str]] = Counter()
        self._parts: Counter[str] = Counter()
        self._captions: Counter[str] = Counter()
        self._words: Counter[str] = Counter()
        self._models: dict[str, Counter[str]] = {name: Counter() for name in ("captioner", "face_model", "image_model")}
        self._quality = array("f")

    def add(self, row: Row) -> None:
        self.rows += 1
        self.sources[row["source"]] += 1
        self.licences[row["licence"]] += 1
        self._source_licences[row["source"], row["licence"]] += 1
        self._people[row["identity"], row["known"], row["split"]] += 1
        self._ages[decade_of(row["attributes"]["age_years"]), gender_of(row["attributes"]["p_female"])] += 1
        self._parts.update(part["part"] for part in row["parts"])
        for caption in row["captions"] or ():
            self._captions[caption["part"]] += 1
            self._words[caption["part"]] += len(caption["text"].split())
            self.phrases += len(caption["evidence"] or ())
        for name, counter in self._models.items():
            counter[str(row[name] or "none")] += 1
        self._quality.append(row["quality"]["score"])

    def licences_of(self, source: str) -> Counter[str]:
        """Rows of one source, by licence."""
        return Counter({licence: n for (name, licence), n in self._source_licences.items() if name == source})

    def figures(self) -> Figures:
        """What is counted of the kept rows."""
        genders = (*GENDERS, NOT_SURE)
        captioned = [part for part in (WHOLE, *PARTS) if self._captions[part]]
        return {
            "splits": {split.value: self._split(split) for split in Split},
            "identities": self._identities(),
            "gender": {gender: sum(self._ages[decade, gender] for decade in DECADES) for gender in genders},
            "age": {decade: {gender: self._ages[decade, gender] for gender in genders} for decade in DECADES},
            "parts": {
                part: {"rows": self._parts[part], "share": _share(self._parts[part], self.rows)} for part in PARTS
            },
            "captions": {
                part: {"rows": self._captions[part], "words": _share(self._words[part], self._captions[part], 1)}
                for part in captioned
            },
            "phrases_measured": self.phrases,
            "models": {name: _sorted(counter) for name, counter in self._models.items()},
            "quality": _quality(np.asarray(self._quality)),
        }

    def _split(self, split: Split) -> Figures:
        people = {identity: n for (identity, _, name), n in self._people.items() if name == split}
        return {"rows": sum(people.values()), "identities": len(people)}

    def _identities(self) -> Figures:
        known: Counter[str] = Counter()
        unknown: Counter[str] = Counter()
        for (identity, is_known, _), n in self._people.items():
            (known if is_known else unknown)[identity] += n
        sizes = [*known.values(), *unknown.values()]
        return {
            "all": len(sizes),
            "known": len(known),
            "unknown": len(unknown),
            "rows_of_known": sum(known.values()),
            "largest": max(sizes, default=0),
            "sizes": _sizes(sizes),
        }


def decade_of(age_years: float) -> str:
    """The group of `DECADES` that an age falls in."""
    return DECADES[min(int(age_years // 10), len(DECADES) - 1)]


def gender_of(p_female: float) -> str:
    """woman, man, or not sure."""
    if p_female >= SURE_OF_GENDER:
        return "woman"
    return "man" if 1 - p_female >= SURE_OF_GENDER else NOT_SURE


def _sizes(sizes: Iterable[int]) -> dict[str, int]:
    counts = dict.fromkeys((name for name, _ in SIZES), 0)
    for size in sizes:
        counts[next(name for name, largest in SIZES if size <= largest)] += 1
    return counts


def _quality(scores: Any) -> Figures:
    if not len(scores):
        return {"quartiles": [], "histogram": [0] * QUALITY_BINS}
    counts, _ = np.histogram(scores, QUALITY_BINS, (0.0, 1.0))
    return {
        "quartiles": [round(float(value), 3) for value in np.quantile(scores.astype(np.float64), (0.25, 0.5, 0.75))],
        "histogram": [int(count) for count in counts],
    }


def _share(count: int, of: int, digits: int = 3) -> float:
    return round(count / of, digits) if of else 0.0


def _sorted(counter: Mapping[str, int]) -> dict[str, int]:
    """The largest first, those alike by name."""
    ordered: Sequence[tuple[str, int]] = sorted(counter.items(), key=lambda item: (-item[1], str(item[0])))
    return {str(name): int(count) for name, count in ordered if count}
