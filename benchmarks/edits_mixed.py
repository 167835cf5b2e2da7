"""How many edits a minute come out of an actor that makes portraits at the same time?

An edit is two passes one after another, and its second takes part of the steps: alone it leaves slots of the engine
free, which portraits of other people can take. The same orders are made three times by one warm actor of one thread,
the job's own, without Ray: the portraits alone, the edits alone, and both at once; the pictures must be the same.
Face-LoRAs and ControlNets have random weights: nothing here depends on what they know.

    python -m benchmarks.edits_mixed [--quick] [--in-flight N]
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from actors.portraitist import Portraitist
from benchmarks.orders_in_flight import Row, orders_of, portraitist, side
from benchmarks.people import BASE
from benchmarks.report import write
from studiolo.albums.samples import extract_people
from studiolo.generation.base import load_base
from studiolo.generation.controlnets import EDGES, POSE, controlnet_for
from studiolo.portraits.template_files import Templates
from studiolo.settings import GenerationSettings
from studiolo.weights.fetch import pull

TEMPLATE = "portrait"
"""A photo of somebody who is nobody's sitter."""


def main() -> None:
    """Make the three sides and report edits and portraits a minute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one order of each in 3 steps: shows that it runs")
    few = GenerationSettings().orders_in_flight
    parser.add_argument("--in-flight", type=int, default=few, help="orders that the actor works on at once")
    arguments = parser.parse_args()
    quick = arguments.quick
    count, steps = (1, 3) if quick else (8, 30)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the actor's process
    settings = GenerationSettings(steps=steps, retries=0, accept_similarity=0.0, orders_in_flight=arguments.in_flight)
    with tempfile.TemporaryDirectory() as folder:
        portraits = orders_of(Path(folder, "inputs"), count)
        edits = _edits(Path(folder), portraits)
        sides = {
            name: side(Path(folder), orders, 1, settings, _editing)
            for name, orders in {"portraits": portraits, "edits": edits, "both": _in_turn(portraits, edits)}.items()
        }
    if sides["both"][1] != sorted(sides["portraits"][1] + sides["edits"][1]):
        raise AssertionError("the pictures differ")
    seconds = {name: time_s for name, (time_s, _) in sides.items()}
    ratios = {
        "one_after_another_over_both_at_once": round((seconds["portraits"] + seconds["edits"]) / seconds["both"], 3)
    }
    figures: dict[str, Any] = {
        "steps": steps,
        "orders_of_each": count,
        "orders_in_flight": settings.orders_in_flight,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "edits_a_minute": {name: round(60 * count / seconds[name], 2) for name in ("edits", "both")},
        "portraits_a_minute": {name: round(60 * count / seconds[name], 2) for name in ("portraits", "both")},
    }
    name = "edits_mixed" if arguments.in_flight == few else f"edits_mixed-{arguments.in_flight}"
    write(f"{name}-quick" if quick else name, ratios, figures)


def _edits(folder: Path, portraits: list[Row]) -> list[Row]:
    """The same people, each in a template."""
    place = extract_people(folder / "albums", 10)[-1]
    template = Templates(str(place)).ordered(TEMPLATE)
    return [
        {**row, "style": f"{TEMPLATE}-{number}", "template": template.row()} for number, row in enumerate(portraits)
    ]


def _in_turn(portraits: list[Row], edits: list[Row]) -> list[Row]:
    return [row for pair in zip(portraits, edits, strict=True) for row in pair]


def _editing(out: str, settings: GenerationSettings) -> Portraitist:
    actor = portraitist(out, settings)
    base = load_base(pull(BASE))
    actor.sampler.use(base, {name: controlnet_for(base.unet).requires_grad_(False).eval() for name in (POSE, EDGES)})
    return actor


if __name__ == "__main__":
    main()
