"""What does the pipeline cost over a plain loop? Photos a second of both, on the same cores, start-up apart.

The plain loop is one process a core, each calling the actor album by album: the same models, photos and settings, no
Ray. Start-up (imports, models, Ray and its pool) is over before either clock starts: each side does one more first.

    python -m benchmarks.album_throughput [--quick]
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.perceiver import Perceiver
from benchmarks.report import write
from pipelines.graph import start, stop, stream
from pipelines.plan import Stage
from studiolo.albums.samples import extract_people
from studiolo.albums.sources import INPUT_SCHEMA, list_albums
from studiolo.settings import PerceptionSettings, SelectionSettings
from studiolo.storage.store import Store

CORES = 2


def main() -> None:
    """Alternate both sides and report the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two people, one round: shows that it runs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = _albums(Path(folder), people=2 if arguments.quick else 10)
        rounds = [
            {"plain": _plain(rows, f"{folder}/plain-{turn}"), "pipeline": _pipeline(rows, f"{folder}/pipeline-{turn}")}
            for turn in range(1 if arguments.quick else 3)
        ]
    photos = sum(len(row["photos"]) for row in rows)
    rates = {side: sorted(photos / turn[side] for turn in rounds)[len(rounds) // 2] for side in ("plain", "pipeline")}
    figures = {
        "photos": photos,
        "albums": len(rows),
        "photos_per_s": {side: round(rate, 3) for side, rate in rates.items()},
        "seconds": [{side: round(seconds, 2) for side, seconds in turn.items()} for turn in rounds],
    }
    name = "album_throughput-quick" if arguments.quick else "album_throughput"
    write(name, {"pipeline_over_plain": round(rates["pipeline"] / rates["plain"], 3)}, figures)


def _albums(folder: Path, people: int) -> list[dict[str, Any]]:
    """Albums of five photos each, so that neither side waits long for its last album."""
    extract_people(folder / "albums", people)
    rows = []
    for source in list_albums(str(folder / "albums")):
        photos = source.row()["photos"]
        for start_at in range(0, len(photos), 5):
            album = {"album_id": f"{source.album_id}-{start_at:02d}", "album_uri": source.album_uri}
            rows.append({**album, "photos": photos[start_at : start_at + 5]})
    return rows


def _perceiver(out: str) -> Perceiver:
    return Perceiver(Store(out), "embedded", PerceptionSettings(), SelectionSettings())


def _plain(rows: list[dict[str, Any]], out: str) -> float:
    """Seconds of the loop: a process a core, albums taken one by one."""
    with multiprocessing.get_context("spawn").Pool(CORES, _open, (out,)) as pool:
        pool.map(_perceive, [_renamed(rows[0], index) for index in range(CORES)], chunksize=1)
        started = time.monotonic()
        for _ in pool.imap_unordered(_perceive, rows, chunksize=1):
            pass
        return time.monotonic() - started


_actor: Perceiver


def _open(out: str) -> None:
    global _actor
    _actor = _perceiver(out)
    _actor.open()


def _perceive(row: dict[str, Any]) -> int:
    return int(_actor(pa.Table.from_pylist([row], INPUT_SCHEMA)).num_rows)


def _pipeline(rows: list[dict[str, Any]], out: str) -> float:
    """Seconds from the first album done to the last, the first ones being extra: by then both actors are warm."""
    with _cluster():
        warm = [_renamed(rows[0], index) for index in range(CORES)]
        table = pa.Table.from_pylist([*warm, *rows], INPUT_SCHEMA)
        results = stream(table, _perceiver(out), Stage("perception", CORES, 0.75))
        for _ in warm:
            next(results)
        started = time.monotonic()
        for _ in results:
            pass
        return time.monotonic() - started


@contextmanager
def _cluster() -> Iterator[None]:
    start(cpus=CORES, object_store_mib=128)
    try:
        yield
    finally:
        stop()


def _renamed(row: dict[str, Any], index: int) -> dict[str, Any]:
    """The same photos under another id: a key of its own, so nobody's completion record answers for it."""
    return {**row, "album_id": f"warm-up-{index}"}


if __name__ == "__main__":
    main()
