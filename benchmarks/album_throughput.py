"""What does the pipeline cost over a plain loop? Photos a second of both, on the same cores, start-up apart.

The plain loop is one process a core, each calling the actor album by album: the same models, photos and settings, no
Ray. Start-up (imports, models, Ray and its pool) is over before either clock starts: that is when an album for each
core is done. By then each core has begun its next album, on both sides, so neither has a head start.

    python -m benchmarks.album_throughput [--quick]
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
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

Row = dict[str, Any]
Side = Callable[[list[Row], str], Iterator[int]]
"""Albums and a folder of its own -> the number of photos of each album, as it is done."""


def main() -> None:
    """Alternate both sides and report the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two people, one round: shows that it runs")
    arguments = parser.parse_args()
    sides: dict[str, Side] = {"plain": _plain, "pipeline": _pipeline}
    with tempfile.TemporaryDirectory() as folder:
        rows = _albums(Path(folder), people=2 if arguments.quick else 10)
        rounds = [
            {name: _photos_per_s(side(rows, f"{folder}/{name}-{turn}")) for name, side in sides.items()}
            for turn in range(1 if arguments.quick else 3)
        ]
    rates = {name: sorted(turn[name] for turn in rounds)[len(rounds) // 2] for name in sides}
    figures = {
        "photos": sum(len(row["photos"]) for row in rows),
        "albums": len(rows),
        "photos_per_s": {name: round(rate, 3) for name, rate in rates.items()},
        "rounds": [{name: round(rate, 3) for name, rate in turn.items()} for turn in rounds],
    }
    name = "album_throughput-quick" if arguments.quick else "album_throughput"
    write(name, {"pipeline_over_plain": round(rates["pipeline"] / rates["plain"], 3)}, figures)


def _photos_per_s(albums: Iterator[int]) -> float:
    """Photos a second, from an album for each core done to the last."""
    for _ in range(CORES):
        next(albums)
    started = time.monotonic()
    photos = sum(albums)
    return photos / (time.monotonic() - started)


def _albums(folder: Path, people: int) -> list[Row]:
    """Albums of five photos each, so that neither side waits long for its last album."""
    extract_people(folder / "albums", people)
    rows = []
    for source in list_albums(str(folder / "albums")):
        photos = source.row()["photos"]
        for start_at in range(0, len(photos), 5):
            album = {"album_id": f"{source.album_id}-{start_at:02d}", "album_uri": source.album_uri}
            rows.append({**album, "photos": photos[start_at : start_at + 5], "people": 1})
    return rows


def _perceiver(out: str) -> Perceiver:
    return Perceiver(Store(out), "embedded", PerceptionSettings(), SelectionSettings())


def _plain(rows: list[Row], out: str) -> Iterator[int]:
    """The loop: a process a core, albums taken one by one."""
    with multiprocessing.get_context("spawn").Pool(CORES, _open, (out,)) as pool:
        yield from pool.imap_unordered(_perceive, rows, chunksize=1)


_actor: Perceiver


def _open(out: str) -> None:
    global _actor
    _actor = _perceiver(out)
    _actor.open()


def _perceive(row: Row) -> int:
    (album,) = _actor(pa.Table.from_pylist([row], INPUT_SCHEMA)).to_pylist()
    return len(album["photos"])


def _pipeline(rows: list[Row], out: str) -> Iterator[int]:
    """The same albums through a pool of as many actors."""
    with _cluster():
        stage = Stage("perception", CORES, 0.75, queued=1)
        for album in stream(pa.Table.from_pylist(rows, INPUT_SCHEMA), _perceiver(out), stage, Store(out)):
            yield len(album["photos"])


@contextmanager
def _cluster() -> Iterator[None]:
    start(cpus=CORES, object_store_mib=128)
    try:
        yield
    finally:
        stop()


if __name__ == "__main__":
    main()
