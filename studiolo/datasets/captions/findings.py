"""What is known surely enough of a picture to be said, from what was measured of it. Pure functions.

A finding says how sure it is on a scale of 0 to 1:

- gender: the network's own probability;
- age: the probability of the group, given the model's usual error (`AGE_ERROR_YEARS`);
- smile, mouth, eyes, direction of the head: 0.8 where the tagger says yes and 0.2 where it says no, a logistic curve
  in between and beyond;
- colours: the share of the area's patches that by themselves have the colour that the tagger names;
- shapes of parts: how far the measure lies beyond that of three faces in four, in standard deviations between photos
  of one person (`SHAPES`).
"""

import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studiolo.datasets.captions.settings import GrammarSettings
from studiolo.datasets.captions.shapes import SHAPES, measures_of
from studiolo.perception import chips, colour, tag
from studiolo.perception.regions import Region

Row = Mapping[str, Any]
Mask = NDArray[np.bool_]

AGE_GROUPS = (("child", 0.0, 13.0), ("young", 20.0, 40.0), ("middle-aged", 40.0, 60.0), ("elderly", 60.0, math.inf))
"""Group, from and below which age in years; those in between are told by nothing but being a minor."""

ADULT_YEARS = 20.0
AGE_ERROR_YEARS = 9.0
"""Root mean square of the model's error on ten people of known age ranges (`benchmarks.dataset_truth`)."""

GENDERS = ("woman", "man")

_SIDE_PX = 256  # colours are measured at the scale of the tagger
_PATCHES = 4
_LOGIT_AT_YES = math.log(4)  # 0.8


@dataclass(frozen=True)
class Finding:
    """One thing that may be said."""

    says: str
    """In one of the words of its kind."""
    measure: str
    """The field of the annotation it comes from."""
    value: str
    confidence: float
    """0..1."""


def findings_of(row: Row, settings: GrammarSettings) -> dict[str, Finding]:
    """What may be said of an annotated picture, by kind; a kind whose confidence is below its threshold is left out.

    `row` is an annotation (`records.ANNOTATION_SCHEMA`) whose status is ok. Kinds and what they say: `gender` (woman,
    man), `age` (child, young, middle-aged, elderly), `grown` (adult, minor), `smile` (yes), `calm` (yes),
    `mouth` (open, shut), `eyes` (open, shut), `turn` (forward, left, right: the picture's), `nod` (up, down), `hair`,
    `clothes`, `background` (a colour), those of `SHAPES` (low, high), and `found.PART` (yes).
    """
    kinds: Iterable[tuple[float, Callable[[Row], dict[str, Finding]]]] = (
        (settings.gender, _gender),
        (settings.age, _age),
        (settings.expression, _expression),
        (settings.pose, _pose),
        (settings.colour, _colours),
        (settings.shape, _shapes),
        (settings.found, _found),
    )
    return {
        kind: finding
        for least, measure in kinds
        for kind, finding in measure(row).items()
        if finding.confidence >= least
    }


def rising(value: float, no: float, yes: float) -> float:
    """Confidence that `value` is on the side of `yes`: 0.2 at `no`, 0.8 at `yes`, 0..1 beyond."""
    z = _LOGIT_AT_YES * (2 * value - no - yes) / (yes - no)
    return 1 / (1 + math.exp(-min(max(z, -30.0), 30.0)))


def _gender(row: Row) -> dict[str, Finding]:
    p = float(row["attributes"]["p_female"])
    said = ("woman", p) if p >= 0.5 else ("man", 1 - p)
    return {"gender": Finding(said[0], "attributes.p_female", f"{p:.2f}", said[1])}


def _age(row: Row) -> dict[str, Finding]:
    years = float(row["attributes"]["age_years"])
    adult = 1 - _below(ADULT_YEARS, years)
    said = [("grown", "adult" if adult >= 0.5 else "minor", max(adult, 1 - adult))]
    for name, low, high in AGE_GROUPS:
        if low <= years < high:
            said.append(("age", name, _below(high, years) - (_below(low, years) if low else 0.0)))
    return {kind: Finding(says, "attributes.age_years", f"{years:.0f}", sure) for kind, says, sure in said}


def _below(limit_years: float, years: float) -> float:
    """Probability that who seems `years` old is younger than `limit_years`."""
    return 0.5 * (1 + math.erf((limit_years - years) / (AGE_ERROR_YEARS * math.sqrt(2))))


def _expression(row: Row) -> dict[str, Finding]:
    measured = {name: float(value) for name, value in row["expression"].items()}
    smiles = rising(measured["smile"], tag.SMILE_BELOW, tag.SMILE_ABOVE)
    mouth = rising(measured["mouth_openness"], tag.MOUTH_SHUT, tag.MOUTH_OPEN)
    eyes = rising(measured["eye_openness"], tag.EYES_SHUT, tag.EYES_OPEN)
    calm = min(1 - smiles, 1 - mouth, eyes)

    def finding(says: str, name: str, confidence: float) -> Finding:
        return Finding(says, f"expression.{name}", f"{measured[name]:.2f}", confidence)

    def openness(name: str, opened: float) -> Finding:
        return finding("open", name, opened) if opened >= 0.5 else finding("shut", name, 1 - opened)

    found = {"mouth": openness("mouth_openness", mouth), "eyes": openness("eye_openness", eyes)}
    if smiles >= 0.5:
        return {"smile": finding("yes", "smile", smiles), **found}
    return {"calm": finding("yes", "smile", calm), **found}


def _pose(row: Row) -> dict[str, Finding]:
    yaw, pitch = float(row["pose"]["yaw_deg"]), float(row["pose"]["pitch_deg"])
    no, yes = tag.FORWARD_DEG, tag.TURNED_DEG
    aside, updown = rising(abs(yaw), no, yes), rising(abs(pitch), no, yes)
    turn = Finding("left" if yaw < 0 else "right", "pose.yaw_deg", f"{yaw:.0f}", aside)
    if max(aside, updown) < 0.5:
        turn = Finding("forward", "pose.yaw_deg", f"{yaw:.0f}", 1 - max(aside, updown))
    return {"turn": turn, "nod": Finding("up" if pitch > 0 else "down", "pose.pitch_deg", f"{pitch:.0f}", updown)}


def _shapes(row: Row) -> dict[str, Finding]:
    """Only of a head that looks straight ahead, at rest."""
    ahead = max(abs(float(row["pose"]["yaw_deg"])), abs(float(row["pose"]["pitch_deg"]))) < tag.FORWARD_DEG
    if not ahead or "neutral expression" not in row["tags"]:
        return {}
    found = {}
    for name, value in measures_of(row["mesh_px"]).items():
        low, high = SHAPES[name].confidence(value)
        found[name] = Finding("low" if low > high else "high", f"mesh.{name}", f"{value:.3f}", max(low, high))
    return found


def _found(row: Row) -> dict[str, Finding]:
    confidence = float(row["mesh_score"])
    return {
        f"found.{part['part']}": Finding("yes", f"parts.{part['part']}.area_px", str(part["area_px"]), confidence)
        for part in row["parts"]
    }


def _colours(row: Row) -> dict[str, Finding]:
    """Hair, clothes and background where the tagger names a colour of them."""
    named = {kind: _tagged(row["tags"], kind) for kind in ("hair", "clothes", "background")}
    if not any(named.values()):
        return {}
    rgb_u8, regions = _pixels(row)
    skin = colour.tone_of(rgb_u8, np.isin(regions, (Region.SKIN, Region.NOSE)))
    bare = _near(rgb_u8, skin) & (regions == Region.BODY)
    areas: dict[str, tuple[Mask, Callable[[colour.Tone], str | None]]] = {
        "hair": (regions == Region.HAIR, colour.hair_colour),
        "clothes": ((regions == Region.BODY) & ~bare, colour.surface_colour),
        "background": ((regions == Region.BACKGROUND) & _inside(row), colour.surface_colour),
    }
    found = {}
    for kind, name in named.items():
        if name and name != "blurred":  # a blurred background has no colour
            share = patch_share(rgb_u8, areas[kind][0], areas[kind][1], name)
            found[kind] = Finding(name, f"tags: {name} {kind}", f"{share:.2f} of its patches", share)
    return found


def patch_share(
    rgb_u8: NDArray[np.uint8], area: Mask, name_of: Callable[[colour.Tone], str | None], name: str
) -> float:
    """Share, by pixels, of an area's patches whose typical colour has that `name`: 0..1, 0 without a patch.

    Patches are the cells of a 4 x 4 grid over the area's box; one with too few pixels for a colour does not count.
    """
    rows, columns = np.nonzero(area)
    if len(rows) == 0:
        return 0.0
    alike = counted = 0
    for down in np.array_split(np.arange(rows.min(), rows.max() + 1), _PATCHES):
        for across in np.array_split(np.arange(columns.min(), columns.max() + 1), _PATCHES):
            patch = np.s_[down[0] : down[-1] + 1, across[0] : across[-1] + 1] if len(down) and len(across) else None
            tone = colour.tone_of(rgb_u8[patch], area[patch]) if patch else None
            if tone is not None:
                counted += int(area[patch].sum())
                alike += int(area[patch].sum()) if name_of(tone) == name else 0
    return alike / counted if counted else 0.0


def _tagged(tags: Iterable[str], kind: str) -> str:
    return next((one.removesuffix(f" {kind}") for one in tags if one.endswith(f" {kind}")), "")


def _pixels(row: Row) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Picture [256, 256, 3] and class ids [256, 256]."""
    size = (_SIDE_PX, _SIDE_PX)
    picture = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
    regions = Image.open(io.BytesIO(row["mask"]["bytes"]))
    return (
        np.asarray(cv2.resize(np.asarray(picture), size, interpolation=cv2.INTER_AREA), np.uint8),
        np.asarray(cv2.resize(np.asarray(regions), size, interpolation=cv2.INTER_NEAREST), np.uint8),
    )


def _inside(row: Row) -> Mask:
    """Where the picture [256, 256] shows the photo and not what continues its border."""
    side = Image.open(io.BytesIO(row["image"]["bytes"])).width
    matrix = np.asarray(row["crop_matrix"], np.float64).reshape(2, 3) * (_SIDE_PX / side)
    return chips.inside((int(row["height_px"]), int(row["width_px"])), matrix, _SIDE_PX)


def _near(rgb_u8: NDArray[np.uint8], skin: colour.Tone | None) -> Mask:
    """Where a picture has nearly the colour of the skin."""
    if skin is None:
        return np.zeros(rgb_u8.shape[:2], np.bool_)
    lab = colour.to_lab(rgb_u8.reshape(-1, 3)).reshape(rgb_u8.shape)
    return np.asarray(np.linalg.norm(lab - np.array(skin.lab, np.float32), axis=-1) < _SKIN_DISTANCE)


_SKIN_DISTANCE = 16.0
