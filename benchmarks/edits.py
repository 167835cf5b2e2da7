"""What does each control of an edit add? FaceChain's argument (section 2.5) as a table.

People of a studio job are drawn into photos of others. Every variant sees the same templates, sitters, first passes and
noise; one thing is left out at a time. `distance` is that of the face drawn from the sitter's references before fusion,
`delivered` after it; `seam` is how far the drawing differs from the template just outside the mask, in grey levels;
`template` and `target` are distances of the drawn landmarks from the template's and from those asked for, in distances
between the eyes. All are means over the edits with 95 % intervals over the pairs.

    python -m benchmarks.edits [--quick] [--controlnets FOLDER] [--identities OUT] [--sheet FILE]
"""

import argparse
import contextlib
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from actors.finisher import SEEING
from benchmarks.report import write
from jobs.studio_job import run
from studiolo.albums.decode import decode
from studiolo.albums.records import Status
from studiolo.albums.samples import extract_people
from studiolo.errors import SettingsError
from studiolo.generation.base import load_base
from studiolo.generation.controlnets import load_controlnets
from studiolo.generation.engine import Engine, Portrait
from studiolo.metrics.edits import landmark_distance, seam_error
from studiolo.metrics.identity import bootstrap_over_people, reference_distance_l2
from studiolo.perception.chips import scale_of, warp
from studiolo.perception.conditions import face_width_px, landmarks_of
from studiolo.perception.similarity import Similarity
from studiolo.perception.suite import Suite, open_suite
from studiolo.portraits.blending import enlarged, placed, placed_mask
from studiolo.portraits.edit_passes import second_pass
from studiolo.portraits.edit_rounds import Sketch
from studiolo.portraits.edit_templates import EditTemplate
from studiolo.portraits.editing import Editor, Sitter
from studiolo.portraits.edits import EditOrder, template_sha256
from studiolo.portraits.finishing import Finisher
from studiolo.portraits.rounds import Subject
from studiolo.portraits.sheets import SheetRow, Tile, contact_sheet
from studiolo.portraits.upscaling import Upscaler, open_upscaler
from studiolo.settings import GenerationSettings, StudioSettings
from studiolo.storage.store import Store
from studiolo.weights.fetch import pull

RgbU8 = NDArray[np.uint8]

TEMPLATE_PHOTOS = ("portrait.jpg", "expression-02-happy.jpg")
"""Photos of each person who is a template."""
_BAND = 0.05  # of the face's width, beside the mask

VARIANTS: dict[str, dict[str, Any]] = {
    "all": {},
    "template's landmarks": {"landmarks": "template"},
    "without landmarks": {"pose_scale": 0.0},
    "without edges": {"edge_scale": 0.0},
    "without both": {"pose_scale": 0.0, "edge_scale": 0.0},
    "without latents": {"strength": 1.0},
    "first pass, warped": {"landmarks": "sketch"},
}
"""What is different in each variant of the order; `landmarks` says which are shown, and `sketch` draws nothing more."""


MEASURES = ("distance", "delivered", "seam", "template", "target")

Drawn = dict[str, tuple[RgbU8, dict[str, float]]]
"""By variant, the crop of the delivered picture and what was measured."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A sitter, a template, and what they share in all variants."""

    sitter: Sitter
    order: EditOrder
    template: EditTemplate
    sketch: Sketch


def main() -> None:
    """Draw all variants of all pairs, print the table and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one pair, 6 steps: shows that it runs")
    parser.add_argument("--identities", type=Path, help="output of a studio job; made of three people when absent")
    parser.add_argument("--controlnets", type=Path, help="folder of `jobs controlnets`; the packaged ones when absent")
    parser.add_argument("--sheet", type=Path, help="where a sheet of all edits goes")
    arguments = parser.parse_args()
    generation = GenerationSettings(steps=6) if arguments.quick else GenerationSettings()
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        out = arguments.identities or _studio_job(work, arguments.quick)
        networks = load_controlnets(arguments.controlnets or pull("embedded-controlnets"))
        engine = Engine.configured(load_base(pull("embedded-base")), generation, networks)
        suite = open_suite("embedded")
        bench = Bench(engine, suite, generation)
        store, photos = Store(str(out)), _templates(work / "templates", people=1 if arguments.quick else 4)
        sitters = {
            str(row["identity_id"]): stack.enter_context(_sitter(store, row, lora, bench.finisher))
            for row, lora in _learned(store)[: 1 if arguments.quick else None]
        }
        pairs, rows = [], []
        for name, sitter in sitters.items():
            for photo in [photo for who, photo in photos if who != name][: 1 if arguments.quick else None]:
                pair = bench.pair(name, sitter, photo)
                if pair is not None:
                    pairs.append(pair)
                    rows.append({name: bench.variant(pair, **change) for name, change in VARIANTS.items()})
                print(f"{len(pairs)} pairs", file=sys.stderr, flush=True)
    if arguments.sheet is not None:
        _write_sheet(arguments.sheet, pairs, rows)
    variants = _summary(rows)
    print(_table(variants))
    ratios = {
        f"{name}: {measure} over all's": round(values[measure]["estimate"] / variants["all"][measure]["estimate"], 3)
        for name, values in variants.items()
        for measure in ("distance", "seam", "template")
        if name != "all" and values[measure] and variants["all"][measure]
    }
    write("edits-quick" if arguments.quick else "edits", ratios, {"pairs": len(pairs), "variants": variants})


class Bench:
    """Draws variants and measures them."""

    def __init__(self, engine: Engine, suite: Suite, generation: GenerationSettings) -> None:
        self.engine, self.suite, self.generation = engine, suite, generation
        self.finisher = Finisher(suite, Similarity.load(suite.name), generation, SEEING)
        self.editor = Editor(engine, self.finisher, SEEING)
        self.upscaler: Upscaler = open_upscaler(generation.upscale)

    def pair(self, name: str, sitter: Sitter, photo: RgbU8) -> Pair | None:
        """The first pass of the sitter called `name` in a template; None where no face was drawn."""
        order = EditOrder(identity_id=name, template_sha256=template_sha256(photo), generation=self.generation)
        template = self.editor.look(order, photo)
        sketch = self.editor.sketch(order, template, sitter)
        return None if sketch is None else Pair(sitter, order, template, sketch)

    def variant(self, pair: Pair, landmarks: str = "warped", **change: float) -> tuple[RgbU8, dict[str, float]]:
        """The crop of what is delivered, and what was measured."""
        template, sitter = pair.template, pair.sitter
        face = template.face
        side_px, hw_px = len(face.mask), (template.rgb_u8.shape[0], template.rgb_u8.shape[1])
        shown = face.landmarks_px if landmarks == "template" else pair.sketch.landmarks_px
        if landmarks == "sketch":
            sketch, size = self.upscaler(pair.sketch.rgb_u8), (side_px, side_px)
            drawn = np.asarray(cv2.warpAffine(sketch, pair.sketch.matrix, size, borderMode=cv2.BORDER_REPLICATE))
        else:
            drawn = self._second_pass(pair, pair.order.model_copy(update=change), shown)
        large = self.upscaler(drawn)
        matrix = enlarged(face.matrix, len(large) / side_px)
        measured = self._seen(large, pair, shown)
        band_px = _BAND * face_width_px(face.landmarks_px) / scale_of(face.matrix)
        mask = placed_mask(face.mask, face.matrix, hw_px)
        measured["seam"] = seam_error(template.rgb_u8, placed(large, matrix, hw_px), mask, band_px)
        made = self.editor.set_in(pair.order, drawn, template, sitter)
        if made.score.embedding is not None:
            measured["delivered"] = reference_distance_l2(made.score.embedding, sitter.references_ND)
        return warp(made.rgb_u8, matrix, len(large)), measured

    def _second_pass(self, pair: Pair, order: EditOrder, landmarks_px: NDArray[np.float64]) -> RgbU8:
        wanted = second_pass(
            order,
            pair.template.face,
            pair.sitter.subject,
            pair.sitter.face_lora,
            landmarks_px,
            self.engine.encode(pair.template.face.crop_rgb_u8),
            count=1,
            first_index=0,
            fits=self.engine.fits,
        )
        return next(event.rgb_u8 for event in self.engine.submit(wanted) if isinstance(event, Portrait))

    def _seen(self, large: RgbU8, pair: Pair, shown: NDArray[np.float64]) -> dict[str, float]:
        """Likeness and landmarks of a drawn crop, enlarged; nothing where it has no face."""
        for face in self.suite.detector(large, SEEING.detector_score)[:1]:
            factor = len(large) / len(pair.template.face.mask)
            points = landmarks_of(self.suite.mesher(large, face.landmarks_px).points_px)
            points = (points - (factor - 1) / 2) / factor
            embedding = self.suite.embedder(large, [face.landmarks_px])[0]
            return {
                "distance": reference_distance_l2(embedding, pair.sitter.references_ND),
                "template": landmark_distance(points, pair.template.face.landmarks_px),
                "target": landmark_distance(points, shown),
            }
        return {}


def _studio_job(work: Path, quick: bool) -> Path:
    """The output of a studio job over three people, or over one with a short training."""
    extract_people(work / "albums", 1 if quick else 3)
    settings = {
        "albums": str(work / "albums"),
        "out": str(work / "out"),
        "per_style": 1,
        "face_lora": {"steps": 40} if quick else {},
        "generation": {"accept_similarity": 0.0},
    }
    run(StudioSettings.load(None, settings))
    return work / "out"


def _learned(store: Store) -> list[tuple[dict[str, Any], str]]:
    """Rows of the identities of a studio job that have a face-LoRA, and its path in the store."""
    loras = {row["identity_id"]: row for row in store.read_table("face_loras.parquet").to_pylist()}
    rows = store.read_table("identities.parquet").to_pylist()
    found = [
        (row, loras[row["identity_id"]]["path"])
        for row in rows
        if loras.get(row["identity_id"], {}).get("status") == Status.OK
    ]
    if not found:
        raise SettingsError(f"identities: got {store.url} without a face-LoRA, wanted the output of a studio job")
    return found


@contextlib.contextmanager
def _sitter(store: Store, row: dict[str, Any], lora: str, finisher: Finisher) -> Iterator[Sitter]:
    references = row["references"]
    faces = finisher.templates(
        row["identity_id"],
        "1",
        lambda: [(store.read_bytes(one["crop_path"]), one["quality_score"]) for one in references],
    )
    embeddings = np.array([one["embedding"] for one in references], np.float32)
    with store.as_local_file(lora) as path:
        yield Sitter(Subject(row["trigger"], tuple(row["common_tags"])), str(path), faces, embeddings)


def _templates(folder: Path, people: int) -> list[tuple[str, RgbU8]]:
    """Names and photos of people who come after those of `_studio_job`."""
    albums = extract_people(folder, 3 + people)[3:]
    photos = [(album.name, (album / name).read_bytes()) for album in albums for name in TEMPLATE_PHOTOS]
    return [(name, decode(photo, SEEING)) for name, photo in photos]


def _summary(rows: Sequence[Drawn]) -> dict[str, Any]:
    """By variant and measure, the mean over the pairs with its interval, and in how many there was a face."""
    figures: dict[str, Any] = {}
    for name in VARIANTS:
        measured: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            for measure, value in row[name][1].items():
                measured[measure].append(value)
        figures[name] = {"faces": len(measured["distance"])}
        for measure in MEASURES:
            interval = bootstrap_over_people(measured[measure]) if measured[measure] else None
            figures[name][measure] = None if interval is None else _rounded(vars(interval))
    return figures


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _table(variants: dict[str, Any]) -> str:
    lines = ["| variant | faces | " + " | ".join(MEASURES) + " |", "|---|---|" + "---|" * len(MEASURES)]
    for name, values in variants.items():
        cells = ["-" if values[measure] is None else _cell(**values[measure]) for measure in MEASURES]
        lines.append(f"| {name} | {values['faces']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(estimate: float, low: float, high: float, **_: float) -> str:
    return f"{estimate:.3f} [{low:.3f}, {high:.3f}]"


def _write_sheet(path: Path, pairs: Sequence[Pair], rows: Sequence[Drawn]) -> None:
    """A row for each pair: the template, a photo of the sitter, the first pass, and the crop of each variant."""
    lines = []
    for pair, row in zip(pairs, rows, strict=True):
        before = [pair.template.face.crop_rgb_u8, pair.sitter.faces[0].rgb_u8, pair.sketch.rgb_u8]
        lines.append(SheetRow("", [Tile(rgb_u8) for rgb_u8 in (*before, *(row[name][0] for name in VARIANTS))]))
    sheet = contact_sheet(lines, ["template", "sitter", "first pass", *VARIANTS], tile_px=176)
    content = cv2.imencode(path.suffix, sheet[..., ::-1])[1].tobytes()
    Store(str(path.parent)).write_bytes(path.name, content)


if __name__ == "__main__":
    main()
