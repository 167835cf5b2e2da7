"""Does the driver's memory grow with the albums? Its peak over studio jobs of 10, 100 and 1,000 small albums.

Each job is `python -m jobs studio` in a process of its own, watched from outside ten times a second: the resident
memory of the driver alone, without Ray's processes and workers, and what of it is the driver's own (without pages that
it shares, as those of Ray's object store). Albums are two small photos of a sample person. In the first series a
person needs three photos, so every stage runs and nobody is trained; in the second, of 3 and 12 albums, all are
trained and rendered with a few steps.

    python -m benchmarks.driver_memory [--quick] [--photos-only]
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from PIL import Image

from benchmarks.report import ROOT, write
from studiolo.albums.samples import extract_people

EVERY_S = 0.1
LIMIT_S = 3600.0
"""Longest that one job may take."""

SIDE_PX = 320

FAILED, DONE = 3, 0
"""Exit codes of a job with failed identities and of one without."""

SMALL = {"styles": ["studio"], "per_style": 1, "object_store_mib": 100, "perception": {"actors": 1}}
FACES_ONLY = {**SMALL, "selection": {"min_references": 3}}
TRAINED = {
    **SMALL,
    "face_lora": {"steps": 4, "batch_size": 2, "views_per_photo": 1, "rank": 4},
    "generation": {"actors": 1, "steps": 2, "slots": 2, "upscale": 1, "retries": 0, "accept_similarity": 0.0},
}


def main() -> None:
    """Run the series and report each job's peak and the last over the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 and 6 albums, then one that is trained")
    parser.add_argument("--photos-only", action="store_true", help="without the series that trains")
    arguments = parser.parse_args()
    untrained, trained = ((2, 6), (1,)) if arguments.quick else ((10, 100, 1000), (3, 12))
    with tempfile.TemporaryDirectory() as folder:
        photos = small_photos(Path(folder) / "people")
        runs = [driver_peak(Path(folder), photos, count, FACES_ONLY, FAILED) for count in untrained]
        if not arguments.photos_only:
            runs += [driver_peak(Path(folder), photos, count, TRAINED, DONE) for count in trained]
    series = {"perceived": runs[: len(untrained)], "trained": runs[len(untrained) :]}
    ratios = {
        f"{name}_{kind}_last_over_first": round(found[-1][kind] / found[0][kind], 3)
        for name, found in series.items()
        for kind in ("resident_mib", "own_mib")
        if len(found) > 1
    }
    name = "driver_memory-quick" if arguments.quick else "driver_memory"
    write(name, ratios, {**series, "load_average": [round(value, 1) for value in os.getloadavg()]})


def small_photos(folder: Path) -> list[list[bytes]]:
    """Two photos of each of three people, `SIDE_PX` wide."""
    people = []
    for album in extract_people(folder, count=3):
        photos = []
        for name in ("portrait.jpg", "selfie.jpg"):
            with Image.open(album / name) as picture:
                small = picture.convert("RGB")
                small.thumbnail((SIDE_PX, SIDE_PX))
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=90)
            photos.append(buffer.getvalue())
        people.append(photos)
    return people


def driver_peak(
    folder: Path, photos: list[list[bytes]], count: int, settings: dict[str, object], expected: int
) -> dict[str, float]:
    """The figures of one job of `count` albums. Raises `RuntimeError` for another exit code than `expected`."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        albums, config = Path(place) / "albums", Path(place) / "config.yaml"
        config.write_text(json.dumps(settings))
        for number in range(count):
            (albums / f"album-{number:05d}").mkdir(parents=True)
            for index, content in enumerate(photos[number % len(photos)]):
                (albums / f"album-{number:05d}" / f"{index}.jpg").write_bytes(content)
        command = [sys.executable, "-m", "jobs", "studio", "--albums", str(albums), "--out", f"{place}/out"]
        with (Path(place) / "log").open("w+") as log:
            job = subprocess.Popen(
                [*command, "--config", str(config)], cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
            figures = {"albums": count, **watched(job)}
            log.seek(0)
            if job.returncode != expected:
                raise RuntimeError(f"a job of {count} albums ended with {job.returncode}: {log.read()[-2000:]}")
    print(figures, file=sys.stderr, flush=True)
    return figures


def watched(job: "subprocess.Popen[bytes]") -> dict[str, float]:
    """Peaks of the process until it ends, and the seconds it took."""
    started_s, driver = time.monotonic(), psutil.Process(job.pid)
    resident = own = 0
    while job.poll() is None:
        try:
            memory = driver.memory_info()
        except psutil.NoSuchProcess:
            continue
        resident, own = max(resident, memory.rss), max(own, memory.rss - memory.shared)
        if time.monotonic() - started_s > LIMIT_S:
            job.kill()
            raise RuntimeError(f"the job was not done after {LIMIT_S:g} s")
        time.sleep(EVERY_S)
    return {
        "resident_mib": round(resident / 2**20, 1),
        "own_mib": round(own / 2**20, 1),
        "seconds": round(time.monotonic() - started_s, 1),
    }


if __name__ == "__main__":
    main()
