"""Do portraits look like the person? Ten people, against photos used neither for training nor anywhere else.

Each person's album loses `benchmarks.held_out` before the studio job sees it. The control makes the same candidates
(prompts, seeds, styles) with the base alone. Figures before selection take every candidate with a face, after
selection the accepted portraits, both without fusion: they say what was learned. `fused` are the same candidates with
a photo of the album set in: they say what is delivered.

    python -m benchmarks.likeness [--quick] [--keep FOLDER]
"""

import argparse
import contextlib
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.finisher import SEEING
from benchmarks.held_out import is_held_out
from benchmarks.report import write
from jobs.studio_job import run
from studiolo.albums.decode import decode
from studiolo.albums.samples import extract_people
from studiolo.generation.base import load_base
from studiolo.generation.engine import Engine, Order, Portrait
from studiolo.metrics.identity import bootstrap_over_people, compare_paired, likeness_by_person, rank_1
from studiolo.perception.perceive import perceive_photo
from studiolo.perception.similarity import Similarity
from studiolo.perception.suite import Suite, open_suite
from studiolo.portraits.files import decode_portrait
from studiolo.portraits.fusion import fuse, in_look, open_templates
from studiolo.portraits.orders import order_seed
from studiolo.portraits.styles import load_style
from studiolo.portraits.upscaling import open_upscaler
from studiolo.settings import GenerationSettings, PerceptionSettings, StudioSettings
from studiolo.storage.store import Store
from studiolo.weights.fetch import pull

STYLES = ("studio", "black-and-white")

Embeddings = dict[str, NDArray[np.float32]]


def main() -> None:
    """Run both sides and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three people and 40 steps: shows that it runs")
    parser.add_argument("--keep", type=Path, help="keep the job's output in this folder")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        held_out = _prepare(work, people=3 if arguments.quick else 10)
        settings = StudioSettings.load(
            None,
            {
                "albums": str(work / "albums"),
                "out": str(work / "out"),
                "styles": STYLES,
                "per_style": 2,
                "face_lora": {"steps": 40} if arguments.quick else {},
                "generation": {"fusion": 0.0, "accept_similarity": 0.1},
            },
        )
        run(settings)
        suite = open_suite(settings.suite)
        known = {person: _embed(photos, suite) for person, photos in held_out.items()}
        rows = Store(settings.out).read_table("portraits.parquet").to_pylist()
        made, accepted = _portraits(rows), _portraits([row for row in rows if row["rank"] > 0])
        control = _control(settings, rows, suite)
        fused = _fused(Store(settings.out), rows, suite)
        figures, ratios = _figures(known, made, accepted, control, fused)
        figures["portraits"] = {"candidates": len(rows), "accepted": sum(row["rank"] > 0 for row in rows)}
    write("likeness-quick" if arguments.quick else "likeness", ratios, figures)


def _prepare(work: Path, people: int) -> dict[str, list[bytes]]:
    """Albums without the held-out photos under `work/albums`; the held-out photos by person."""
    folders = extract_people(work / "albums", people)
    held_out: dict[str, list[bytes]] = {}
    for folder in folders:
        photos = sorted(path for path in folder.iterdir() if is_held_out(path.name))
        held_out[folder.name] = [path.read_bytes() for path in photos]
        for path in photos:
            path.unlink()
    return held_out


def _embed(photos: list[bytes], suite: Suite) -> NDArray[np.float32]:
    """Embeddings [N, 128] of the largest face of each photo; a photo without one is left out."""
    settings = PerceptionSettings()
    seen = [perceive_photo(suite, decode(photo, settings), settings).faces for photo in photos]
    return np.array([faces[0]["embedding"] for faces in seen if faces], np.float32)


def _portraits(rows: list[dict[str, Any]]) -> Embeddings:
    by_person: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        if row["embedding"] is not None:
            by_person[row["identity_id"]].append(row["embedding"])
    return {person: np.array(embeddings, np.float32) for person, embeddings in by_person.items()}


def _fused(store: Store, rows: list[dict[str, Any]], suite: Suite) -> Embeddings:
    """The candidates fused as the job does by default."""
    crops: dict[str, list[tuple[NDArray[np.uint8], float]]] = defaultdict(list)
    for row in store.read_table("references.parquet").to_pylist():
        crop_rgb_u8 = decode(store.read_bytes(row["crop_path"]), SEEING)
        crops[row["identity_id"]].append((crop_rgb_u8, row["quality_score"]))
    templates = {person: open_templates(items, suite, SEEING) for person, items in crops.items()}
    by_person: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        image = decode_portrait(store.read_bytes(row["path"]))[0]
        for found in suite.detector(image, SEEING.detector_score)[:1]:
            strength = GenerationSettings().fusion
            drawn = in_look(templates[row["identity_id"]], load_style(row["style"]).words)
            image, _ = fuse(image, found.landmarks_px, drawn, suite.mesher, strength)
        faces = perceive_photo(suite, image, SEEING).faces
        by_person[row["identity_id"]] += [faces[0]["embedding"]] if faces else []
    return {person: np.array(embeddings, np.float32) for person, embeddings in by_person.items()}


def _control(settings: StudioSettings, rows: list[dict[str, Any]], suite: Suite) -> Embeddings:
    """The same candidates by the base without a face-LoRA."""
    engine = Engine.configured(load_base(pull("embedded-base")), settings.generation)
    upscaler = open_upscaler(settings.generation.upscale)
    orders: dict[tuple[str, str, str], int] = defaultdict(int)
    for row in rows:
        orders[row["identity_id"], row["style"], row["prompt"]] += 1
    by_person: dict[str, list[Any]] = defaultdict(list)
    for (person, style, prompt), count in sorted(orders.items()):
        order = Order(
            identity_id=person,
            prompt=prompt,
            seed=order_seed(settings.seed, style),
            count=count,
            steps=settings.generation.steps,
            guidance_scale=settings.generation.guidance_scale,
            eta=settings.generation.eta,
        )
        for event in engine.submit(order):
            if isinstance(event, Portrait):
                faces = perceive_photo(suite, upscaler(event.rgb_u8), SEEING).faces
                by_person[person] += [faces[0]["embedding"]] if faces else []
    return {person: np.array(embeddings, np.float32) for person, embeddings in by_person.items()}


def _figures(
    known: Embeddings, made: Embeddings, accepted: Embeddings, control: Embeddings, fused: Embeddings
) -> tuple[dict[str, Any], dict[str, float]]:
    """Likeness (median distance, and calibrated) by person, rank-1, and the comparison with the control."""
    similarity = Similarity.load()
    sides = {"candidates": made, "accepted": accepted, "control": control, "fused": fused}
    figures: dict[str, Any] = {"people": len(known), "held_out_photos": sum(len(photos) for photos in known.values())}
    distances = {}
    for name, side in sides.items():
        distances[name] = likeness_by_person(side, known)
        people = [person for person, embeddings in side.items() for _ in embeddings]
        hits = rank_1(np.concatenate([*side.values()]), people, known) if people else np.zeros(0)
        by_person = [float(hits[np.array(people) == person].mean()) for person in sorted(set(people))]
        figures[name] = {
            "distance_l2_by_person": {person: round(value, 4) for person, value in distances[name].items()},
            "similarity_median": round(float(np.median([similarity.score(d) for d in distances[name].values()])), 4),
            "rank_1": round(float(hits.mean()), 4) if len(hits) else None,
            "rank_1_over_people": vars(bootstrap_over_people(by_person)) if by_person else None,
        }
    for name in ("candidates", "accepted", "fused"):
        shared = distances[name].keys() & distances["control"].keys()
        comparison = compare_paired(
            {person: distances[name][person] for person in shared},
            {person: distances["control"][person] for person in shared},
            higher_is_better=False,
        )
        figures[name]["against_control"] = {
            "wins": comparison.wins,
            "losses": comparison.losses,
            "difference_l2": vars(comparison.difference),
            "p_value": comparison.p_value,
        }
    ratios = {
        f"distance_{name}_over_control": round(
            float(np.median([*distances[name].values()]) / np.median([*distances["control"].values()])), 4
        )
        for name in ("candidates", "accepted", "fused")
    }
    return figures, ratios


if __name__ == "__main__":
    main()
