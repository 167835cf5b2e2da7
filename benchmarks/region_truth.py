"""How well the dataset job's masks follow what pictures show: overlap with outlines of 40 pictures, region by region.

Each picture is annotated as the job does it, from the file on; the outlines of `benchmarks.region_labels` are carried
into the square that it cuts out. Overlap is intersection over union (IoU), of pixels, and of the parts' boxes. A small
region's IoU suffers from a boundary that is a pixel off: the labels' own overlap with themselves a pixel further in or
out stands beside it. Regions that a picture does not show are left out of its figures, and counted where the mask has
them all the same.

    python -m benchmarks.region_truth [--quick]

`--quick` takes four pictures.
"""

import argparse
import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.region_labels import Label, read_labels, render
from benchmarks.report import write
from studiolo.albums.decode import decode
from studiolo.albums.samples import PEOPLE, extract_people
from studiolo.datasets.annotate import Annotate, Models, parts_in
from studiolo.datasets.masks import picture_and_mask
from studiolo.datasets.optout import OptOut
from studiolo.datasets.records import PARTS
from studiolo.datasets.settings import AnnotationSettings
from studiolo.datasets.sources.reading import PictureReader
from studiolo.perception import chips
from studiolo.perception.regions import Region
from studiolo.settings import PerceptionSettings

Mask = NDArray[np.bool_]
Ids = NDArray[np.uint8]
Score = dict[str, Any]

COMPARED: dict[str, tuple[Region, ...]] = {
    "skin": (Region.SKIN,),
    **{part: regions for part, regions in PARTS.items() if part != "body"},
}
"""Parts and the regions of each; of the body there are no outlines."""

_SYNTHETIC = "synthetic:"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four pictures: shows that it runs")
    quick = parser.parse_args().quick
    labels = list(read_labels())
    if quick:
        labels = labels[:2] + labels[-2:]
    pairs = list(_pairs(labels))
    scores = [score for label, truth, mask in pairs for score in scores_of(label, truth, mask)]
    parts = {part: part_figures([score for score in scores if score["part"] == part]) for part in COMPARED}
    write(
        "region_truth-quick" if quick else "region_truth",
        {f"iou_{part}": figures["mean"] for part, figures in parts.items()},
        {
            "pictures": len(labels),
            "of_people": sum(not label.picture.startswith(_SYNTHETIC) for label in labels),
            "parts": parts,
            "mask_of_labelled": shares((truth, mask) for _, truth, mask in pairs),
            "labelled_of_mask": shares((mask, truth) for _, truth, mask in pairs),
        },
    )


def scores_of(label: Label, truth: Ids, mask: Ids) -> Iterator[Score]:
    """What each part of one picture has in common with its label; class ids [side, side]."""
    boxes = [{part["part"]: part["bbox_xyxy_px"] for part in parts_in(ids)} for ids in (truth, mask)]
    for part, regions in COMPARED.items():
        true, found = (np.isin(ids, [int(region) for region in regions]) for ids in (truth, mask))
        score = {"picture": label.picture, "part": part, "seen": not label.unseen.issuperset(regions)}
        if score["seen"]:
            score |= {
                "both_px": int((true & found).sum()),
                "either_px": int((true | found).sum()),
                "iou": iou(true, found),
                "further_in": iou(true, _moved(cv2.erode, true)),
                "further_out": iou(true, _moved(cv2.dilate, true)),
            }
            if part in PARTS:
                score["box_iou"] = box_iou(boxes[0][part], boxes[1][part]) if part in boxes[1] else 0.0
        yield {**score, "drawn": bool(found.any())}


def part_figures(scores: list[Score]) -> dict[str, Any]:
    """The figures of one part over its pictures."""
    seen = [score for score in scores if score["seen"]]
    values = np.array([score["iou"] for score in seen])
    worst = min(seen, key=lambda score: score["iou"])
    people = np.array([not score["picture"].startswith(_SYNTHETIC) for score in seen])
    boxes = [score["box_iou"] for score in seen if "box_iou" in score]
    return {
        "seen": len(seen),
        "mean": _rounded(values.mean()),
        "median": _rounded(np.median(values)),
        "pooled": _rounded(sum(score["both_px"] for score in seen) / sum(score["either_px"] for score in seen)),
        "mean_of_people": _rounded(values[people].mean()),
        "mean_of_synthetic": _rounded(values[~people].mean()),
        "worst": _rounded(worst["iou"]),
        "worst_picture": worst["picture"],
        "label_a_pixel_further_in": _rounded(np.mean([score["further_in"] for score in seen])),
        "label_a_pixel_further_out": _rounded(np.mean([score["further_out"] for score in seen])),
        **({"box_mean": _rounded(np.mean(boxes)), "box_worst": _rounded(min(boxes))} if boxes else {}),
        "unseen": len(scores) - len(seen),
        "unseen_but_drawn": sum(score["drawn"] for score in scores if not score["seen"]),
    }


def shares(pairs: Iterable[tuple[Ids, Ids]]) -> dict[str, dict[str, float]]:
    """What the second of each pair calls the pixels of each region of the first: shares over all pictures, those below
    0.01 left out.
    """
    counts = np.zeros((len(Region), len(Region)))
    for one, other in pairs:
        np.add.at(counts, (one.ravel(), other.ravel()), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return {
        of.name.lower(): {by.name.lower(): _rounded(share[of, by]) for by in Region if share[of, by] >= 0.01}
        for of in Region
        if counts[of].any()
    }


def iou(one: Mask, other: Mask) -> float:
    """Intersection over union of two masks; 1 when both are empty."""
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else 1.0


def box_iou(one_xyxy_px: list[int], other_xyxy_px: list[int]) -> float:
    """Intersection over union of two boxes that are half open and not empty."""
    one, other = np.asarray(one_xyxy_px), np.asarray(other_xyxy_px)
    sides = np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0)
    both = int(sides.prod())
    return both / (int((one[2:] - one[:2]).prod()) + int((other[2:] - other[:2]).prod()) - both)


def _pairs(labels: list[Label]) -> Iterator[tuple[Label, Ids, Ids]]:
    """Each label, what it says of the square that the job cuts out, and the job's mask of it."""
    perception = PerceptionSettings()
    annotate = Annotate(
        Models.open("embedded"),
        functools.partial(decode, settings=perception),
        perception,
        AnnotationSettings(),
        OptOut(),
    )
    read = PictureReader()
    with tempfile.TemporaryDirectory() as folder:
        extract_people(Path(folder), len(PEOPLE))
        for label in labels:
            place = label.picture if label.picture.startswith(_SYNTHETIC) else str(Path(folder, label.picture))
            listed = {"row_id": label.picture, "source": "labels", "uri": label.picture, "version": ""}
            row = annotate(listed, read(place))
            if row["status"] != "ok":
                raise ValueError(f"{label.picture}: got {row['reason']!r} of the dataset job, wanted a mask")
            mask = picture_and_mask(row)[1]
            side_px = mask.shape[0]
            matrix = np.asarray(row["crop_matrix"], np.float64).reshape(2, 3)
            truth = render(label, matrix, side_px)
            truth[~chips.inside((row["height_px"], row["width_px"]), matrix, side_px)] = Region.BACKGROUND
            yield label, truth, mask


def _moved(move: Callable[..., Any], mask: Mask) -> Mask:
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return np.asarray(move(mask.astype(np.uint8), cross), bool)


def _rounded(value: Any) -> float:
    return round(float(value), 3)


if __name__ == "__main__":
    main()
