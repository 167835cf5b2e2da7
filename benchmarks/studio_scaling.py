"""Does a person cost less in a larger job? Seconds an identity of studio jobs of 3, 10 and 30 people, by stage.

Each job is `python -m jobs studio` in a process of its own over albums of four photos. The ten sample people come as
often as it takes; under other names their trainings and candidates are others. Trainings are short (100 steps) and
portraits two in one style, so that a large job ends within the hour: what is compared is the share of what a job pays
once (Ray, models, groups of workers) and of what idle slots cost.

    python -m benchmarks.studio_scaling [--quick]
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.report import ROOT, write
from studiolo.albums.samples import extract_people

LIMIT_S = 3600.0
"""Longest that one job may take."""

PHOTOS = ("portrait.jpg", "selfie.jpg", "expression-01-neutral.jpg", "expression-02-happy.jpg")

SETTINGS: dict[str, Any] = {
    "styles": ["studio"],
    "per_style": 2,
    "selection": {"min_references": 1},
    "face_lora": {"steps": 100},
    "generation": {"steps": 10, "retries": 0, "accept_similarity": 0.0},
}
QUICK: dict[str, Any] = {**SETTINGS, "face_lora": {"steps": 2}, "generation": {**SETTINGS["generation"], "steps": 2}}


def main() -> None:
    """Run the jobs and report seconds an identity, and the larger jobs' over the smallest's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1 and 2 people: shows that it runs")
    arguments = parser.parse_args()
    counts = (1, 2) if arguments.quick else (3, 10, 30)
    with tempfile.TemporaryDirectory() as folder:
        people = extract_people(Path(folder) / "people", count=10)
        jobs = {count: job(Path(folder), people, count, QUICK if arguments.quick else SETTINGS) for count in counts}
    least = jobs[counts[0]]["seconds_an_identity"]
    ratios = {
        f"seconds_an_identity_{count}_over_{counts[0]}": round(jobs[count]["seconds_an_identity"] / least, 3)
        for count in counts[1:]
    }
    name = "studio_scaling-quick" if arguments.quick else "studio_scaling"
    write(name, ratios, {f"people_{count}": figures for count, figures in jobs.items()})


def job(folder: Path, people: list[Path], count: int, settings: dict[str, Any]) -> dict[str, Any]:
    """The figures of one job. Raises `RuntimeError` when it fails."""
    albums, out, config = (folder / f"{count}-{name}" for name in ("albums", "out", "config.yaml"))
    config.write_text(json.dumps(settings))
    for number, person in enumerate(islice(cycle(people), count)):
        album = albums / f"album-{number:03d}"
        album.mkdir(parents=True)
        for photo in PHOTOS:
            shutil.copy(person / photo, album)
    command = [sys.executable, "-m", "jobs", "studio", "--albums", str(albums), "--out", str(out)]
    started_s = time.monotonic()
    done = subprocess.run(
        [*command, "--config", str(config)], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    seconds = time.monotonic() - started_s
    if done.returncode != 0:
        raise RuntimeError(f"a job of {count} people ended with {done.returncode}: {done.stderr[-2000:]}")
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    figures = {
        "seconds": round(seconds, 1),
        "seconds_an_identity": round(seconds / count, 2),
        "by_stage": {name: round(value / count, 2) for name, value in summary["seconds_by_stage"].items()},
        "peak_rss_gib": summary["peak_rss_gib"],
    }
    print(count, figures, file=sys.stderr, flush=True)
    return figures


if __name__ == "__main__":
    main()
