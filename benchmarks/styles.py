"""Can one tell the styles apart? A linear classifier on image features, trained on some seeds, asked about others.

The twelve embedded styles (all but `plain`) are rendered by the bare base for the same people: six prompts, N seeds
each, the same noise for every style. The first half of the seeds trains the classifier, the other half is classified.

    python -m benchmarks.styles [--quick] [--seeds N] [--base FOLDER]
    python -m benchmarks.styles --identities OUT [--base FOLDER] [--sheet FILE]

The second measures nothing: it writes the sheet of the styles for three people of a finished studio job, with their
face-LoRAs, each the candidate nearest to the person's references.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from actors.finisher import SEEING
from benchmarks.report import write
from benchmarks.sampling import Wanted, features_of, sample, workers
from studiolo.albums.records import Status
from studiolo.errors import SettingsError
from studiolo.generation.base import load_base
from studiolo.generation.engine import Engine, Portrait, candidate_seed
from studiolo.generation.engine import Order as EngineOrder
from studiolo.perception.similarity import Similarity
from studiolo.perception.suite import Suite, open_suite
from studiolo.portraits.orders import Order, order_seed, to_engine
from studiolo.portraits.prompts import portrait_prompt
from studiolo.portraits.scoring import score_portrait
from studiolo.portraits.sheets import SheetRow, Tile, contact_sheet
from studiolo.portraits.styles import Style, all_styles
from studiolo.settings import GenerationSettings
from studiolo.storage.store import Store
from studiolo.weights.fetch import pull

Row = dict[str, Any]

SEED = 0
SHEET = Path("docs/images/styles-base.jpg")
SHEET_PEOPLE, CANDIDATES = 3, 4
PEOPLE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a handsome man", ("brown hair",)),
    ("a handsome man", ("black hair", "smile")),
    ("a beautiful woman", ("blonde hair", "smile")),
    ("a beautiful woman", ("brown hair",)),
    ("a mature man", ("grey hair",)),
    ("a mature woman", ("red hair",)),
)
"""Trigger and tags of each prompt."""


def main() -> None:
    """Measure, or write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one person, two seeds, 8 steps: shows that it runs")
    parser.add_argument("--seeds", type=int, default=8, help="seeds of each prompt, at least 2; 8 when absent")
    parser.add_argument("--base", type=Path, help="folder of the base; the packaged one when absent")
    parser.add_argument("--identities", type=Path, help="output of a studio job: write the sheet of its people")
    parser.add_argument("--sheet", type=Path, default=SHEET, help=f"where the sheet goes; {SHEET} when absent")
    arguments = parser.parse_args()
    generation = GenerationSettings(steps=8) if arguments.quick else GenerationSettings()
    styles = [style for name, style in all_styles().items() if name != "plain"]
    base = arguments.base or pull("embedded-base")
    if arguments.identities:
        rows = 1 if arguments.quick else SHEET_PEOPLE
        sheet = identity_sheet(Store(arguments.identities), base, styles, generation, rows)
        jpeg = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
        Store(arguments.sheet.parent).write_bytes(arguments.sheet.name, jpeg.tobytes())
        print(arguments.sheet)
        return
    people, seeds = (PEOPLE[:1], 2) if arguments.quick else (PEOPLE, arguments.seeds)
    if seeds < 2:
        raise SettingsError(f"styles: got {seeds} seeds, wanted at least 2: some to train on, some to ask about")
    ratios, figures = measure(base, styles, people, seeds, generation)
    write("styles-quick" if arguments.quick else "styles", ratios, figures)


def measure(
    base: Path,
    styles: Sequence[Style],
    people: Sequence[tuple[str, tuple[str, ...]]],
    seeds: int,
    generation: GenerationSettings,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ratios and figures of `base`."""
    places = [(place, who, turn) for place in range(len(styles)) for who in range(len(people)) for turn in range(seeds)]
    wanted = [
        Wanted(portrait_prompt(*people[who], styles[place].words), candidate_seed(SEED, f"person {who}", turn))
        for place, who, turn in places
    ]
    with workers(base, generation) as pool:
        pictures = []
        for number, one in enumerate(sample(pool, wanted), 1):
            pictures.append(one.rgb_u8)
            if number % 96 == 0 or number == len(wanted):
                print(f"sampled {number} of {len(wanted)}", file=sys.stderr, flush=True)
        features = features_of(pool, pictures)
    style = np.array([place for place, _, _ in places])
    training = np.array([turn < seeds // 2 for _, _, turn in places])
    guessed = classify(features[training], style[training], features[~training])
    figures = style_figures([one.name for one in styles], style[~training], guessed)
    figures |= {"people": len(people), "seeds": seeds, "trained_on": int(training.sum())}
    return {"accuracy_over_chance": round(figures["accuracy"] * len(styles), 3)}, figures


def classify(
    known_ND: NDArray[np.float32], classes_N: NDArray[np.int64], asked_MD: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Classes [M] of the rows asked about, by a linear classifier trained on the known ones."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return np.asarray(classifier.fit(known_ND, classes_N).predict(asked_MD), np.int64)


def style_figures(names: Sequence[str], true: NDArray[np.int64], guessed: NDArray[np.int64]) -> dict[str, Any]:
    """Accuracy, of all and by style, and which styles are taken for which."""
    right = true == guessed
    wrong = Counter((names[i], names[j]) for i, j in zip(true[~right], guessed[~right], strict=True))
    return {
        "asked": len(true),
        "accuracy": round(float(right.mean()), 4),
        "accuracy_by_style": {name: round(float(right[true == place].mean()), 4) for place, name in enumerate(names)},
        "taken_for": [[*pair, count] for pair, count in sorted(wrong.items(), key=lambda item: (-item[1], item[0]))],
    }


def identity_sheet(
    store: Store, base: Path, styles: Sequence[Style], generation: GenerationSettings, people: int
) -> NDArray[np.uint8]:
    """A row for each of the first trained people of a studio job, a column for each style."""
    identities = {row["identity_id"]: row for row in store.read_table("identities.parquet").to_pylist()}
    loras = store.read_table("face_loras.parquet").to_pylist()
    trained = [row for row in loras if row["status"] == Status.OK][:people]
    if len(trained) < people:
        raise SettingsError(f"identities: got {store.url} with {len(trained)} face-LoRAs, wanted at least {people}")
    engine, suite, rows = Engine.configured(load_base(base), generation), open_suite("embedded"), []
    for lora in trained:
        identity, tiles = identities[lora["identity_id"]], []
        with store.as_local_file(lora["path"]) as path:
            for style in styles:
                tiles.append(Tile(_nearest(engine, suite, identity, style, generation, path)))
                print(f"{lora['identity_id']}: {style.name}", file=sys.stderr, flush=True)
        rows.append(SheetRow("", tiles))
    return contact_sheet(rows, [style.title for style in styles], tile_px=128)


def _nearest(
    engine: Engine, suite: Suite, identity: Row, style: Style, generation: GenerationSettings, lora: Path
) -> NDArray[np.uint8]:
    """Of a few candidates the one nearest to the person's references."""
    order = Order(
        identity_id=identity["identity_id"],
        style=style.name,
        count=CANDIDATES,
        seed=order_seed(SEED, style.name),
        generation=generation,
    )
    fields = to_engine(order, style, identity, face_lora_path=str(lora), fits=engine.fits)
    made = [event for event in engine.submit(EngineOrder(**fields)) if isinstance(event, Portrait)]
    references = np.array([reference["embedding"] for reference in identity["references"]], np.float32)
    similarity = Similarity.load(suite.name)
    scores = [score_portrait(one.rgb_u8, suite, references, similarity, SEEING).similarity for one in made]
    return made[int(np.argmax(scores))].rgb_u8


if __name__ == "__main__":
    main()
