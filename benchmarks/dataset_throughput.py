"""How fast are faces annotated, does it stay so with more of them, and what would half a million take?

Two questions. First, rows a second of the pool against a plain loop of the same actor on the same cores, start-up apart
on both sides: a process a core, parts taken one by one, no Ray. Second, whole jobs of more and more rows, each in a
process of its own: seconds of their stages, and the peak memory of the driver, watched ten times a second.

The pictures are those of `--faces`, or random faces that are made beforehand. Hours for `FGID_ROWS` are
rows / (the pool's rate / its cores x the cores there are), as if they were as many of these; no GPU takes part, so what
stands beside them for GPUs is the published rate over their number.

    python -m benchmarks.dataset_throughput [--faces FOLDER] [--quick]
"""

import argparse
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.annotator import Annotator
from benchmarks.driver_memory import watched
from benchmarks.report import ROOT, write
from pipelines.dataset import annotate
from pipelines.graph import start, stop
from pipelines.plan import Stage
from studiolo.datasets.listing import bring_up_to_date, parts_of
from studiolo.datasets.optout import OptOut
from studiolo.datasets.settings import AnnotationSettings
from studiolo.datasets.shards import PART_INPUT
from studiolo.datasets.sources.listed import Listed, version_of_file
from studiolo.datasets.sources.reading import PictureReader, synthetic_face
from studiolo.settings import PerceptionSettings
from studiolo.storage.store import Store

CORES = 2
ROWS_A_PART = 8
"""Small, so that neither side waits long for its last part."""

FGID_ROWS = 524_258
PUBLISHED_MASK_HOURS = 15 * FGID_ROWS / 100_000
"""ConsistentID's tooling: masks of 100k pictures in 15 hours on one GPU, and nothing but masks."""

Row = dict[str, Any]
Side = Callable[[Store, list[Row]], Iterator[int]]
"""Parts of a listing -> the number of rows of each, as it is done."""

_STAGE = re.compile(r"\d\d:\d\d:\d\d (\w+) .* done seconds=([\d.]+)")


def main() -> None:
    """Alternate both sides, then run the jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows, one round: shows that it runs")
    parser.add_argument("--faces", type=Path, help="folder of pictures; as many random faces as are needed when absent")
    arguments = parser.parse_args()
    compared, rounds, sizes = (32, 1, (8, 16)) if arguments.quick else (240, 3, (250, 1000, 4000))
    sides: dict[str, Side] = {"plain": _plain, "pool": _pool}
    with tempfile.TemporaryDirectory() as folder:
        faces = arguments.faces or _synthesised(Path(folder) / "faces", max(*sizes, compared))
        pictures = sorted(path for path in faces.iterdir() if path.suffix in (".jpg", ".png"))
        turns = [
            {name: _rate(side, pictures[:compared], Path(folder) / f"{name}-{turn}") for name, side in sides.items()}
            for turn in range(rounds)
        ]
        jobs = [_job(pictures[:size], Path(folder) / f"job-{size}") for size in sizes if size <= len(pictures)]
    rates = {name: sorted(turn[name] for turn in turns)[rounds // 2] for name in sides}
    a_core_s = CORES / rates["pool"]
    first, last = jobs[0], jobs[-1]
    figures = {
        "rows_per_s": {name: round(rate, 3) for name, rate in rates.items()},
        "rounds": [{name: round(rate, 3) for name, rate in turn.items()} for turn in turns],
        "jobs": jobs,
        "hours_for_fgid": {f"{cores} cores": round(FGID_ROWS * a_core_s / cores / 3600, 1) for cores in (CORES, 64)},
        "published_hours_for_masks_alone": {f"{gpus} GPUs": round(PUBLISHED_MASK_HOURS / gpus, 1) for gpus in (1, 8)},
    }
    ratios = {
        "pool_over_plain": round(rates["pool"] / rates["plain"], 3),
        "seconds_a_row_last_over_first": round(last["annotate_s_a_row"] / first["annotate_s_a_row"], 3),
        "driver_own_mib_last_over_first": round(last["own_mib"] / first["own_mib"], 3),
    }
    write("dataset_throughput-quick" if arguments.quick else "dataset_throughput", ratios, figures)


def _synthesised(folder: Path, count: int) -> Path:
    folder.mkdir()
    read = PictureReader()
    for number in range(count):
        (folder / f"{number:05d}.jpg").write_bytes(read(synthetic_face(number, 512)))
    return folder


def _rate(side: Side, pictures: list[Path], out: Path) -> float:
    """Rows a second, from a part for each core done to the last."""
    store = Store(out)
    listed = [Listed(path.name, str(path), version_of_file(str(path))) for path in pictures]
    bring_up_to_date(store, "faces", listed, ROWS_A_PART)
    rows = [{"part": part.path, "rows": store.read_table(part.path).num_rows} for part in parts_of(store)]
    done = side(store, rows)
    for _ in range(CORES):
        next(done)
    started = time.monotonic()
    return sum(done) / (time.monotonic() - started)


def _annotator(store: Store) -> Annotator:
    return Annotator(store, "embedded", PerceptionSettings(), AnnotationSettings(), OptOut())


def _plain(store: Store, rows: list[Row]) -> Iterator[int]:
    """The loop: a process a core, parts taken one by one."""
    with multiprocessing.get_context("spawn").Pool(CORES, _open, (store,)) as pool:
        yield from pool.imap_unordered(_annotate, rows, chunksize=1)


_actor: Annotator


def _open(store: Store) -> None:
    global _actor
    _actor = _annotator(store)
    _actor.open()


def _annotate(row: Row) -> int:
    return int(_actor(pa.Table.from_pylist([row], PART_INPUT))["rows"][0].as_py())


def _pool(store: Store, rows: list[Row]) -> Iterator[int]:
    """The same parts through a pool of as many actors."""
    start(cpus=CORES, object_store_mib=128)
    try:
        stage = Stage("annotation", CORES, 0.75, queued=1)
        for row in annotate(rows, _annotator(store), stage, store):
            yield row["rows"]
    finally:
        stop()


def _job(pictures: list[Path], folder: Path) -> Row:
    """A whole job of these pictures: stages and the driver's memory. Raises `RuntimeError` when it fails."""
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps({"uri": str(path)}) + "\n" for path in pictures))
    command = [sys.executable, "-m", "jobs", "dataset", "--sources", f"{folder}/rows.jsonl", "--out", f"{folder}/out"]
    with (folder / "log").open("w+") as log:
        job = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        figures = watched(job)
        log.seek(0)
        said = log.read()
    if job.returncode not in (0, 3):
        raise RuntimeError(f"a job of {len(pictures)} pictures ended with {job.returncode}: {said[-2000:]}")
    stages = {f"{match[1]}_s": float(match[2]) for match in _STAGE.finditer(said)}
    size = sum(path.stat().st_size for path in (folder / "out" / "shards").iterdir())
    a_row = {
        "annotate_s_a_row": round(stages["annotate_s"] / len(pictures), 4),
        "shard_bytes_a_row": size // len(pictures),
    }
    result = {"rows": len(pictures), **figures, **stages, **a_row}
    print(result, file=sys.stderr, flush=True)
    return result


if __name__ == "__main__":
    main()
