"""What captions say against what is known: gender and age group of ten people, and how far shapes can be trusted.

Every photo of the sample people is seen as the dataset job sees it. The package states each person's sex and a range of
ten years of age; a group that a caption names counts as right when it shares a year with that range. Shapes have no
truth: their noise is what they vary by between photos of one person, and their quartiles are those of synthetic faces.

    python -m benchmarks.dataset_truth [--quick]

`--quick` takes three people and forty faces.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.calibration import SPOILERS
from benchmarks.report import write
from studiolo.albums.decode import decode
from studiolo.albums.samples import GROUND_TRUTH, PEOPLE, extract_people
from studiolo.datasets.captions.findings import AGE_GROUPS, findings_of
from studiolo.datasets.captions.settings import GrammarSettings
from studiolo.datasets.captions.shapes import SHAPES, measures_of
from studiolo.perception import tag
from studiolo.perception.expression import expression_of
from studiolo.perception.perceive import perceive_photo
from studiolo.perception.suite import Suite, open_suite
from studiolo.settings import PerceptionSettings
from studiolo.training.synthesis import CARD, FaceSynthesiser
from studiolo.weights.fetch import pull

Face = dict[str, Any]

FACE_SIDE_PX = 160
_OF_SEX = {"female": "woman", "male": "man"}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three people, forty faces: shows that it runs")
    quick = parser.parse_args().quick
    suite = open_suite("embedded")
    people = list(_people(suite, 3 if quick else len(PEOPLE)))
    synthetic = list(_synthetic(suite, 40 if quick else 1000))
    gender, age, shapes = gender_figures(people), age_figures(people), shape_figures(people, synthetic)
    figures = {"people": len({face["person"] for face in people}), "faces": len(people), "synthetic": len(synthetic)}
    ratios = {"gender_right": gender["right_of_said"], "age_group_right": age["right_of_said"]}
    write(
        "dataset_truth-quick" if quick else "dataset_truth",
        ratios,
        {**figures, "gender": gender, "age": age, "shapes": shapes},
    )


def gender_figures(faces: list[Face]) -> dict[str, Any]:
    """How often captions name a gender, and how often the one that is stated."""
    said = [(face, face["found"]["gender"].says) for face in faces if "gender" in face["found"]]
    right = [face for face, word in said if word == _OF_SEX[face["sex"]]]
    wrong = Counter(face["person"] for face, word in said if word != _OF_SEX[face["sex"]])
    return {
        "said": _share(len(said), len(faces)),
        "right_of_said": _share(len(right), len(said)),
        "wrong_by_person": dict(sorted(wrong.items())),
    }


def age_figures(faces: list[Face]) -> dict[str, Any]:
    """How far ages are off the middle of the stated range, how often a group is named, and how often a right one."""
    errors = np.array([face["attributes"]["age_years"] - np.mean(face["age_range"]) for face in faces])
    said = [(face, face["found"]["age"].says) for face in faces if "age" in face["found"]]
    right = [face for face, word in said if word in groups_of(face["age_range"])]
    table = Counter((f"{low}-{high}", word) for face, word in said for low, high in [face["age_range"]])
    return {
        "error_years_rms": _rounded(np.sqrt((errors**2).mean())),
        "error_years_mean": _rounded(errors.mean()),
        "said": _share(len(said), len(faces)),
        "right_of_said": _share(len(right), len(said)),
        "said_by_range": {f"{years}: {word}": count for (years, word), count in sorted(table.items())},
    }


def groups_of(age_range: tuple[int, int]) -> set[str]:
    """The age groups that share a year with a range."""
    return {name for name, low, high in AGE_GROUPS if age_range[0] < high and low <= age_range[1]}


def shape_figures(people: list[Face], synthetic: list[Face]) -> dict[str, Any]:
    """For each shape: quartiles of synthetic faces, noise between photos of one person over the spread among faces, how
    often captions name it, and how often two photos of one person are told the opposite.
    """
    figures = {}
    for name in SHAPES:
        values = np.array([face["measures"][name] for face in synthetic if face["at_rest"]])
        by_person: dict[str, list[float]] = {}
        for face in people:
            if face["at_rest"]:
                by_person.setdefault(face["person"], []).append(face["measures"][name])
        residuals = [value - np.mean(of_one) for of_one in by_person.values() for value in of_one]
        freedom = max(len(residuals) - len(by_person), 1)
        noise = float(np.sqrt(np.square(residuals).sum() / freedom))
        said = [(face["person"], face["found"][name].says) for face in people if name in face["found"]]
        both = {person for person, says in said if says == "low"} & {person for person, says in said if says == "high"}
        figures[name] = {
            "quartiles": [round(float(value), 4) for value in np.quantile(values, (0.25, 0.75))],
            "noise": round(noise, 4),
            "noise_over_spread": _rounded(noise / values.std()),
            "said_of_people": _share(len(said), len(people)),
            "said_of_synthetic": _share(sum(name in face["found"] for face in synthetic), len(synthetic)),
            "people_told_both_ways": len(both),
        }
    return figures


def _people(suite: Suite, count: int) -> Iterator[Face]:
    settings = PerceptionSettings()
    with tempfile.TemporaryDirectory() as folder:
        extract_people(Path(folder), count)
        truth = json.loads((Path(folder) / GROUND_TRUTH).read_text(encoding="utf-8"))["albums"]
        for album, details in sorted(truth.items()):
            for name, photo in details["photos"].items():
                if photo["kind"] not in SPOILERS:
                    rgb_u8 = decode((Path(folder) / album / name).read_bytes(), settings)
                    known = {"person": album, "sex": details["sex"], "age_range": tuple(details["age_range_years"])}
                    yield from ({**known, **face} for face in _seen(suite, rgb_u8, settings))


def _synthetic(suite: Suite, count: int) -> Iterator[Face]:
    settings, synthesiser = PerceptionSettings(), FaceSynthesiser.open(pull(CARD))
    for number in range(count):
        yield from _seen(suite, synthesiser(number, FACE_SIDE_PX), settings)


def _seen(suite: Suite, rgb_u8: Any, settings: PerceptionSettings) -> Iterator[Face]:
    """The largest face with its measures and findings; colours are not looked at."""
    photo = perceive_photo(suite, rgb_u8, settings)
    if not photo.faces:
        return
    face = photo.faces[0]
    mesh = suite.mesher(photo.rgb_u8, np.asarray(face["landmarks_px"], np.float32).reshape(5, 2))
    expression = expression_of(mesh.points_px)
    row: Mapping[str, Any] = {
        **face,
        "mesh_px": mesh.points_px[:, :2].reshape(-1),
        "expression": vars(expression),
        "tags": tag.expression_tags(expression),
        "parts": [],
    }
    ahead = max(abs(face["pose"]["yaw_deg"]), abs(face["pose"]["pitch_deg"])) < tag.FORWARD_DEG
    yield {
        "attributes": face["attributes"],
        "measures": measures_of(row["mesh_px"]),
        "at_rest": ahead and "neutral expression" in row["tags"],
        "found": findings_of(row, GrammarSettings()),
    }


def _share(count: int, of: int) -> float:
    return round(count / of, 3) if of else 0.0


def _rounded(value: Any) -> float:
    return round(float(value), 3)


if __name__ == "__main__":
    main()
