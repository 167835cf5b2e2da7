"""How sure is a distance between two faces? Calibrates `studiolo.perception.similarity` over the sample people.

Every photo of the ten people is perceived as in the job, but for those that `benchmarks.likeness` needs; all pairs of
faces are compared. Each person counts equally among pairs of one person, each pair of people equally among pairs of
two, and both kinds as a whole. A logistic curve is fitted to the distances; `same` and `different` are where it says
0.9 and 0.1. Errors come from a bootstrap over people, not pairs: ten people are ten, however many their photos.

    python -m benchmarks.calibration [--quick] [--keep]

`--quick` takes four people and writes no constants; `--keep` writes calibration/embedded.json and the plot of
docs/similarity.md.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from benchmarks.held_out import is_held_out
from benchmarks.report import write
from studiolo.albums.decode import decode
from studiolo.albums.samples import GROUND_TRUTH, PEOPLE, extract_people
from studiolo.perception.perceive import perceive_photo
from studiolo.perception.similarity import FOLDER, Similarity
from studiolo.perception.suite import open_suite
from studiolo.settings import PerceptionSettings

Floats = NDArray[np.float64]

ROOT = Path(__file__).resolve().parent.parent
PLOT = ROOT / "docs" / "images" / "similarity.png"
SPOILERS = ("duplicate", "exif-rotated", "other-person", "no-face")
SURE = 0.9
ROUNDS = 1000


@dataclass(frozen=True, eq=False)
class Pairs:
    """All pairs of faces of a set of people."""

    distance: Floats  # [P]
    same: NDArray[np.bool_]  # [P]
    first: NDArray[np.int64]  # [P] person
    second: NDArray[np.int64]  # [P]
    other_kind: NDArray[np.bool_]  # [P]: not both from the sheet of expressions

    def weights(self, counts: Floats) -> Floats:
        """[P], summing to 1: half on each kind of pair, there equal for each person or pair of people, times how often
        they are drawn.
        """
        groups = self.first * len(counts) + self.second
        size = np.bincount(groups, minlength=len(counts) ** 2)[groups]
        drawn = np.where(self.same, counts[self.first], counts[self.first] * counts[self.second])
        weight = drawn / size
        for kind in (self.same, ~self.same):
            weight[kind] /= max(2 * weight[kind].sum(), 1e-12)
        return np.asarray(weight)


def main() -> None:
    """Measure, fit, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four people, few rounds: shows that it runs")
    parser.add_argument("--keep", action="store_true", help="write the constants and the plot")
    arguments = parser.parse_args()
    people, rounds = (4, 50) if arguments.quick else (len(PEOPLE), ROUNDS)
    embeddings, person, kind = _faces(people)
    pairs = _pairs(embeddings, person, kind)
    everyone = np.ones(people)
    similarity = fit(pairs, everyone)
    figures = _figures(pairs, everyone, similarity, embeddings, person)
    figures["bootstrap_95"] = _bootstrap(pairs, people, similarity, rounds, embeddings, person)
    figures["calibration_error"] = _round(calibration_error(similarity, pairs, pairs.weights(everyone)))
    figures["left_out"] = _leave_one_out(pairs, people)
    figures.update(faces=len(person), people=people, constants=_constants(similarity))
    if arguments.keep and not arguments.quick:
        _keep(similarity, figures)
        plot(pairs, everyone, similarity)
    name = "calibration-quick" if arguments.quick else "calibration"
    write(name, {"auc": figures["auc"], "rank_1": figures["rank_1"]}, figures)


def fit(pairs: Pairs, counts: Floats) -> Similarity:
    """The logistic curve of least weighted cross-entropy, and the thresholds where it says 0.9 and 0.1."""
    weight = pairs.weights(counts)

    def loss(parameters: Floats) -> float:
        logit = (parameters[0] - pairs.distance) * np.exp(parameters[1])
        return float(weight @ np.logaddexp(0, np.where(pairs.same, -logit, logit)))

    even, log_slope = minimize(
        loss, np.array([0.55, 3.0]), method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-9}
    ).x
    spread = float(np.exp(-log_slope))
    unsure = spread * float(np.log(SURE / (1 - SURE)))
    return Similarity(*(round(float(value), 4) for value in (even, spread, even - unsure, even + unsure)))


def _faces(people: int) -> tuple[Floats, NDArray[np.int64], NDArray[np.str_]]:
    """Embeddings [N, 128], person [N] and kind of photo [N]; the largest face of each photo of one person."""
    suite, settings = open_suite("embedded"), PerceptionSettings()
    embeddings, person, kinds = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        extract_people(Path(folder), people)
        truth = json.loads((Path(folder) / GROUND_TRUTH).read_text(encoding="utf-8"))["albums"]
        for album, details in sorted(truth.items()):
            for name, photo in details["photos"].items():
                if photo["kind"] in SPOILERS or is_held_out(name):
                    continue
                faces = perceive_photo(
                    suite, decode((Path(folder) / album / name).read_bytes(), settings), settings
                ).faces
                if faces:
                    embeddings.append(faces[0]["embedding"])
                    person.append(PEOPLE.index(album))
                    kinds.append(photo["kind"])
    return np.array(embeddings, np.float64), np.array(person), np.array(kinds)


def _pairs(embeddings: Floats, person: NDArray[np.int64], kind: NDArray[np.str_]) -> Pairs:
    first, second = np.triu_indices(len(person), 1)
    distance = np.linalg.norm(embeddings[first] - embeddings[second], axis=1)
    sheet = (kind[first] == "expression") & (kind[second] == "expression")
    low, high = np.minimum(person[first], person[second]), np.maximum(person[first], person[second])
    return Pairs(distance, low == high, low, high, ~sheet)


def _figures(
    pairs: Pairs, counts: Floats, similarity: Similarity, embeddings: Floats, person: NDArray[np.int64]
) -> dict[str, Any]:
    weight = pairs.weights(counts)
    other = np.where(pairs.same, pairs.other_kind, True)
    own, foreign = weight * pairs.same * 2, weight * ~pairs.same * 2
    below, above = pairs.distance < similarity.same_below, pairs.distance > similarity.different_above
    return {
        "auc": _round(_auc(pairs.distance, pairs.same, weight)),
        "auc_without_pairs_of_one_sheet": _round(_auc(pairs.distance[other], pairs.same[other], weight[other])),
        "rank_1": _round(_rank_1(embeddings, person, counts)),
        "equal_error_rate": _round(_equal_error_rate(pairs, weight)),
        "false_same": _round(foreign @ below),
        "false_different": _round(own @ above),
        "own_called_same": _round(own @ below),
        "others_called_different": _round(foreign @ above),
    }


def _auc(distance: Floats, same: NDArray[np.bool_], weight: Floats) -> float:
    """Chance that a pair of one person is nearer than a pair of two; ties count half."""
    order = np.argsort(distance, kind="stable")
    own, foreign = (weight * same)[order], (weight * ~same)[order]
    _, starts = np.unique(distance[order], return_index=True)
    own, foreign = np.add.reduceat(own, starts), np.add.reduceat(foreign, starts)
    farther = foreign.sum() - np.cumsum(foreign)
    return float(own @ (farther + foreign / 2) / max(own.sum() * foreign.sum(), 1e-12))


def _equal_error_rate(pairs: Pairs, weight: Floats) -> float:
    """Error at the one threshold where as many pairs of two people lie below as pairs of one person above."""
    order = np.argsort(pairs.distance, kind="stable")
    below = np.cumsum((2 * weight * ~pairs.same)[order])
    above = 1 - np.cumsum((2 * weight * pairs.same)[order])
    place = int(np.argmin(np.abs(below - above)))
    return float(below[place] + above[place]) / 2


def calibration_error(similarity: Similarity, pairs: Pairs, weight: Floats) -> float:
    """How far what is said lies from what is true: |share of one person - mean similarity| over ten equal bins of
    similarity, weighted by the pairs in them (expected calibration error, Naeini et al. 2015).
    """
    said = np.array([similarity.score(distance) for distance in pairs.distance])
    place = np.minimum((said * 10).astype(int), 9)
    gaps = np.bincount(place, weight * (pairs.same - said), 10)
    return float(np.abs(gaps).sum() / weight.sum())


def _rank_1(embeddings: Floats, person: NDArray[np.int64], counts: Floats) -> float:
    """Share of faces whose nearest other face, among the people drawn, is of the same person; people count as often as
    drawn.
    """
    drawn = np.flatnonzero(counts[person] > 0)
    distances = np.linalg.norm(embeddings[drawn][:, None] - embeddings[drawn][None], axis=2)
    np.fill_diagonal(distances, np.inf)
    hit = person[drawn][distances.argmin(axis=1)] == person[drawn]
    weight = counts[person[drawn]] / np.bincount(person, minlength=len(counts))[person[drawn]]
    return float(weight @ hit / weight.sum())


def _bootstrap(
    pairs: Pairs, people: int, similarity: Similarity, rounds: int, embeddings: Floats, person: NDArray[np.int64]
) -> dict[str, list[float]]:
    """95 % intervals when people are drawn with replacement; the thresholds stay as they are."""
    generator = np.random.default_rng(0)
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        counts = np.bincount(generator.integers(people, size=people), minlength=people).astype(np.float64)
        if (counts > 0).sum() < 2:
            continue
        for name, value in _figures(pairs, counts, similarity, embeddings, person).items():
            found.setdefault(name, []).append(value)
    return {name: [_round(value) for value in np.quantile(values, (0.025, 0.975))] for name, values in found.items()}


def _leave_one_out(pairs: Pairs, people: int) -> dict[str, float]:
    """Errors on pairs of a person that the fit never saw, mean over people."""
    errors = []
    for left_out in range(people):
        similarity = fit(pairs, np.arange(people) != left_out)
        its = (pairs.first == left_out) | (pairs.second == left_out)
        own, foreign = pairs.distance[its & pairs.same], pairs.distance[its & ~pairs.same]
        unseen = np.where(its, _balanced(pairs.same, its), 0.0)
        errors.append(
            (
                (foreign < similarity.same_below).mean(),
                (own > similarity.different_above).mean(),
                calibration_error(similarity, pairs, unseen),
            )
        )
    names = ("false_same", "false_different", "calibration_error")
    return dict(zip(names, map(_round, np.mean(errors, axis=0)), strict=True))


def _balanced(same: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> Floats:
    """[P]: half of the weight on the chosen pairs of one person, half on those of two."""
    return np.where(same, 0.5 / max((same & chosen).sum(), 1), 0.5 / max((~same & chosen).sum(), 1))


def _constants(similarity: Similarity) -> dict[str, float]:
    return {name: getattr(similarity, name) for name in ("even", "spread", "same_below", "different_above")}


def _keep(similarity: Similarity, figures: dict[str, Any]) -> None:
    measured = {name: figures[name] for name in ("people", "faces", "auc", "rank_1", "false_same", "false_different")}
    text = json.dumps({**_constants(similarity), "measured": measured}, indent=1)
    (FOLDER / "embedded.json").write_text(text + "\n", encoding="utf-8")


def plot(pairs: Pairs, counts: Floats, similarity: Similarity) -> None:
    """Left: distances of both kinds of pairs. Right: how often pairs were one person, against what the curve says."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    weight = pairs.weights(counts)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), dpi=110)
    for kind, label, colour in ((pairs.same, "one person", "#2a7"), (~pairs.same, "two people", "#c43")):
        left.hist(
            pairs.distance[kind], 60, range=(0.1, 1.1), weights=2 * weight[kind], alpha=0.6, label=label, color=colour
        )
    steps = np.linspace(0.1, 1.1, 200)
    curve = left.twinx()
    curve.plot(steps, [similarity.score(step) for step in steps], color="#333", lw=1.5)
    curve.set(ylabel="similarity", ylim=(0, 1.02))
    left.axvspan(similarity.same_below, similarity.different_above, color="#999", alpha=0.25, label="unsure")
    left.set(xlabel="Euclidean distance of two faces", ylabel="share of pairs", title="Distances")
    left.legend(loc="upper right")
    said = np.array([similarity.score(distance) for distance in pairs.distance])
    place = np.minimum((said * 10).astype(int), 9)
    total = np.bincount(place, weight, 10)
    share = np.bincount(place, weight * pairs.same, 10) / np.maximum(total, 1e-12)
    mean = np.bincount(place, weight * said, 10) / np.maximum(total, 1e-12)
    right.plot([0, 1], [0, 1], "--", color="#999")
    right.plot(mean[total > 0], share[total > 0], "o-", color="#246")
    right.set(
        xlabel="similarity said", ylabel="share that is one person", title="Calibration", xlim=(0, 1), ylim=(0, 1)
    )
    figure.tight_layout()
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT)
    pyplot.close(figure)


def _round(value: Any) -> float:
    return round(float(value), 4)


if __name__ == "__main__":
    main()
