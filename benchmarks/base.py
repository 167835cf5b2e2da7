"""How good is a base? Faces found, prompts followed, distance to real pictures, copies of training pictures, seconds.

Prompts are captions as the trainer says them: those of random training views, backdrops and looks included. The real
pictures are these views. They are two disjoint halves: the Fréchet distance of samples to the one stands beside that
of the other, which is the floor for this many pictures, and what our tagger says of the real views is the ceiling of
the agreement. Nearest neighbours are looked for among all training pictures; the control is a real view that may not
find its own picture, and what it finds when it may is what a copy looks like.

    python -m benchmarks.base [--quick] [--samples N] [--base FOLDER] [--before FOLDER]
        [--sheet FOLDER] [--faces FOLDER] [--captions FILE] [--latents FOLDER | --prompts FILE]
    python -m benchmarks.base --labels FILE [--quick] [--sheet FOLDER]

With `--prompts` it writes the prompts and ends; `benchmarks.base_latents` samples them where there is an accelerator,
and `--latents` judges what it made: then only the first 64 are sampled here too, for the seconds.

The first writes SHEET/page-*.png, numbered samples with their prompts, SHEET/samples.json and SHEET/labels.csv, to be
filled in by hand: does `attribute` hold in the picture, 1 or 0. The second adds these labels to the result kept.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.base_latents import read_latents
from benchmarks.base_sheet import hand_figures, write_sheet
from benchmarks.report import RESULTS, write
from benchmarks.sampling import Sample, Sight, decoded, features_of, sample, see, wanted_of, workers
from jobs import synthesise_job
from jobs.base_job import write_captions
from studiolo.generation.base import fits, load_base
from studiolo.metrics.distributions import frechet_distance, nearest_cosines
from studiolo.metrics.prompts import Attributes, agreement, attributes_of
from studiolo.perception.regions import EmbeddedPersonMask
from studiolo.settings import GenerationSettings
from studiolo.training.base import BaseSettings
from studiolo.training.faces import Face, View, read_faces, views_of
from studiolo.weights.fetch import pull

SEED = 0
TIMED = 64
"""Samples made here for the seconds when the others come from elsewhere."""
FACES = Path("data/faces")
SHEET = Path("out/base-sheet")


def main() -> None:
    """Measure, or add labels to what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="16 samples in 8 steps: shows that it runs")
    parser.add_argument("--samples", type=int, default=2000, help="samples of the base, 2000 when absent")
    parser.add_argument("--base", type=Path, help="folder of the base; the packaged one when absent")
    parser.add_argument("--before", type=Path, help="folder of an earlier base, measured beside it in the same run")
    parser.add_argument("--faces", type=Path, help=f"training pictures; made in {FACES} when absent")
    parser.add_argument("--captions", type=Path, help="JSONL with file, trigger and tags; by the tagger when absent")
    parser.add_argument(
        "--sheet", type=Path, default=SHEET, help=f"folder of the numbered samples; {SHEET} when absent"
    )
    parser.add_argument("--prompts", type=Path, help="only write the prompts, a JSON list, to this file")
    parser.add_argument("--latents", type=Path, help="folder of base.npz and before.npz, by benchmarks.base_latents")
    parser.add_argument("--labels", type=Path, help="CSV number,attribute,holds: adds the control by hand")
    arguments = parser.parse_args()
    name = "base-quick" if arguments.quick else "base"
    if arguments.labels:
        kept = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        by_hand = hand_figures(arguments.sheet, arguments.labels)
        write(name, kept["ratios"], {**kept["figures"], "by_hand": by_hand, "measured_at": kept["commit"]})
        return
    samples = 16 if arguments.quick else arguments.samples
    faces = _faces(arguments.faces, arguments.captions, samples, arguments.quick)
    generation = GenerationSettings(steps=8) if arguments.quick else GenerationSettings()
    bases = {"before": arguments.before} if arguments.before else {}
    bases["base"] = arguments.base or pull("embedded-base")
    if arguments.prompts:
        arguments.prompts.write_text(json.dumps(ask(bases["base"], faces, samples).prompts), encoding="utf-8")
        return
    ratios, figures = measure(bases, faces, samples, generation, arguments.sheet, arguments.latents)
    write(name, ratios, figures)


@dataclass(frozen=True, eq=False)
class Asked:
    """What the bases are asked for."""

    chosen: NDArray[np.int64]
    """Places of the training pictures in random order."""
    views: Sequence[Sequence[View]]
    """Of the first half of them, whose captions are the prompts, and of the second."""
    attributes: list[Attributes]
    prompts: list[str]


def ask(base: Path, faces: Sequence[Face], samples: int) -> Asked:
    """Prompts as random views are captioned, the same for every run on the same pictures."""
    pipeline = load_base(base)
    side_px = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    rng = np.random.default_rng(SEED)
    half = min(samples, len(faces) // 2)
    chosen = rng.permutation(len(faces))
    views = [_views(faces, places, side_px, rng) for places in (chosen[:half], chosen[half : 2 * half])]
    return Asked(chosen, views, *_prompts(views[0], samples, partial(fits, pipeline.tokenizer), rng))


def measure(
    bases: Mapping[str, Path],
    faces: Sequence[Face],
    samples: int,
    generation: GenerationSettings,
    sheet: Path,
    latents: Path | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ratios and figures of the bases, the same prompts and seeds for each; the sheet shows the last of them."""
    wanted = ask(next(iter(bases.values())), faces, samples)
    asked, prompts, views = wanted.attributes, wanted.prompts, wanted.views
    real: _Real | None = None
    ratios: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    for name, base in bases.items():
        with workers(base, generation) as pool:
            real = real or _real(pool, views, faces, wanted.chosen)
            timed = prompts[:TIMED] if latents else prompts
            made = _with_progress(f"{name}: sampled", sample(pool, wanted_of(timed, SEED, "base")), len(timed))
            seconds = float(np.median([one.seconds for one in made]))
            if latents:
                kept, device = read_latents(latents / f"{name}.npz", prompts)
                made = [Sample(rgb_u8, seconds) for rgb_u8 in decoded(pool, kept)]
                figures["sampled_on"] = device
            seen = _with_progress(f"{name}: seen", see(pool, [one.rgb_u8 for one in made]), samples)
            write_sheet(sheet, made, prompts, asked, seen)
            figures[name] = {**_prompt_figures(asked, seen), **_space_figures(pool, made, real)}
        figures[name]["seconds_an_image"] = round(seconds, 3)
        distance, floor = figures[name]["frechet_to_real"], real.figures["frechet_real_to_real"]
        ratios[f"frechet_over_floor_{name}"] = round(distance / max(floor, 1e-9), 3)
    assert real is not None
    figures |= {
        "real": real.figures,
        "samples": samples,
        "training_pictures": len(faces),
        "generation": generation.model_dump(include={"steps", "guidance_scale", "eta"}),
    }
    return ratios, figures


@dataclass(frozen=True, eq=False)
class _Real:
    """What every base is held against."""

    figures: dict[str, Any]
    features_ND: NDArray[np.float32]
    """Of the views whose captions are the prompts."""
    known_MD: NDArray[np.float32]
    """Of all training pictures."""
    most_unseen: float
    """Largest cosine of a real view with a training picture that is not its own."""


def _real(pool: Pool, views: Sequence[Sequence[View]], faces: Sequence[Face], chosen: NDArray[np.int64]) -> _Real:
    """The tagger's ceiling, the Fréchet floor, and what a copy looks like."""
    pictures = [view.rgb_u8 for view in views[0]]
    seen = _with_progress("real: seen", see(pool, pictures), len(pictures))
    real, other = (features_of(pool, [view.rgb_u8 for view in side]) for side in views)
    # The views' own pictures come first, so that view i is made of known row i.
    known = features_of(pool, [faces[place].rgb_u8 for place in chosen])
    unseen, _ = nearest_cosines(real, known, made_of_known=True)
    own, _ = nearest_cosines(real, known)
    figures = _prompt_figures([attributes_of(view.trigger, view.tags + view.style) for view in views[0]], seen) | {
        "frechet_real_to_real": round(frechet_distance(other, real), 3),
        "pictures": len(pictures),
        "nearest_other_picture": _cosines(unseen),
        "nearest_own_picture": _cosines(own),
    }
    return _Real(figures, real, known, float(unseen.max()))


def _faces(folder: Path | None, captions: Path | None, samples: int, quick: bool) -> list[Face]:
    """Captioned training pictures; without a folder those of the first numbers, which the packaged base has seen."""
    if folder is None:
        folder = FACES.with_name("faces-quick") if quick else FACES
        synthesise_job.run(synthesise_job.Run(2 * samples, folder))
    captions = captions or write_captions(folder, folder.with_name(f"{folder.name}-captions.jsonl"))
    faces = read_faces(folder, captions)
    return faces[:64] if quick else faces


def _views(faces: Sequence[Face], places: NDArray[np.int64], side_px: int, rng: np.random.Generator) -> list[View]:
    """One view of each face at `places`, as the trainer makes them."""
    person_mask = EmbeddedPersonMask.open(pull("selfie-segmentation"))
    chosen = [faces[place] for place in places]
    return [views_of(replace(face, person=person_mask(face.rgb_u8)), 1, side_px, rng)[0] for face in chosen]


def _prompts(
    views: Sequence[View], samples: int, fits: Callable[[str], bool], rng: np.random.Generator
) -> tuple[list[Attributes], list[str]]:
    """What is asked for, and the prompts: captions of the views, again from the first when there are too few.

    A caption that the base does not read to its end loses its last phrases.
    """
    settings, asked, prompts = BaseSettings(), [], []
    for number in range(samples):
        view = views[number % len(views)]
        words = (*view.tags, *view.style)
        shares = [settings.tag_share] * len(view.tags) + [settings.style_share] * len(view.style)
        said = [words[place] for place in rng.permutation(len(words)) if rng.random() < shares[place]]
        while not fits(prompt := ", ".join([view.trigger, *said])):
            said.pop()
        asked.append(attributes_of(view.trigger, said))
        prompts.append(prompt)
    return asked, prompts


def _prompt_figures(asked: Sequence[Attributes], seen: Sequence[Sight]) -> dict[str, Any]:
    """Faces found, and agreement of pictures with their words by kind."""
    found = agreement(asked, [one.attributes for one in seen])
    return {
        "one_face": round(float(np.mean([one.faces == 1 for one in seen])), 4),
        "agreement": {
            kind: {key: round(value, 4) for key, value in asdict(figure).items()} for kind, figure in found.items()
        },
    }


def _space_figures(pool: Pool, made: Sequence[Sample], real: _Real) -> dict[str, Any]:
    """Fréchet distance to as many real views, and nearest neighbours among all training pictures."""
    generated = features_of(pool, [one.rgb_u8 for one in made])
    nearest, _ = nearest_cosines(generated, real.known_MD)
    return {
        "frechet_to_real": round(frechet_distance(generated[: len(real.features_ND)], real.features_ND), 3),
        "nearest_training_picture": _cosines(nearest),
        "copies": np.flatnonzero(nearest > real.most_unseen).tolist(),
    }


def _cosines(cosines: NDArray[np.float64]) -> dict[str, float]:
    return {"median": round(float(np.median(cosines)), 4), "max": round(float(cosines.max()), 4)}


def _with_progress(doing: str, items: Any, total: int) -> list[Any]:
    """All items, with a line now and then."""
    found = []
    for item in items:
        found.append(item)
        if len(found) % 100 == 0 or len(found) == total:
            print(f"{doing} {len(found)} of {total}", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    main()
