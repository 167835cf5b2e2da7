"""What does it cost to decode in a child? Photos a second of `decode` in this process and in `IsolatedDecoder`'s.

A hundred JPEGs of phone size (4032 x 3024 px), made of the sample people's photos with sensor noise; both sides take
turns photo by photo, so that a neighbour on the machine slows both alike. The child's start is not counted.

    python -m benchmarks.decode_isolation [--quick]
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from benchmarks.report import write
from studiolo.albums.decode import decode
from studiolo.albums.isolation import IsolatedDecoder
from studiolo.albums.samples import extract_people
from studiolo.settings import PerceptionSettings

RgbU8 = NDArray[np.uint8]

SIZE_PX = (4032, 3024)


def main() -> None:
    """Decode every photo both ways and report photos a second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ten photos: shows that it runs")
    arguments = parser.parse_args()
    settings = PerceptionSettings()
    isolated = IsolatedDecoder(settings)
    sides: dict[str, Callable[[bytes], RgbU8]] = {
        "in_process": lambda data: decode(data, settings),
        "isolated": isolated,
    }
    photos = _photos(10 if arguments.quick else 100)
    isolated(photos[0])
    seconds, cpu_seconds = dict.fromkeys(sides, 0.0), dict.fromkeys(sides, 0.0)
    processes = [psutil.Process(), psutil.Process(isolated.pid)]
    for data in photos:
        for name, side in sides.items():
            started, cpu_started = time.perf_counter(), _cpu_s(processes)
            side(data)
            seconds[name] += time.perf_counter() - started
            cpu_seconds[name] += _cpu_s(processes) - cpu_started
    isolated.close()
    rates = {name: len(photos) / spent for name, spent in seconds.items()}
    figures = {
        "photos": len(photos),
        "mean_file_mb": round(sum(map(len, photos)) / len(photos) / 1e6, 2),
        "photos_per_s": {name: round(rate, 2) for name, rate in rates.items()},
        "cpu_s_per_photo": {name: round(spent / len(photos), 4) for name, spent in cpu_seconds.items()},
    }
    name = "decode_isolation-quick" if arguments.quick else "decode_isolation"
    write(name, {"isolated_over_in_process": round(rates["isolated"] / rates["in_process"], 3)}, figures)


def _cpu_s(processes: list[psutil.Process]) -> float:
    """Seconds of CPU, which a busy machine does not change as it changes the clock."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _photos(count: int) -> list[bytes]:
    """JPEGs as a phone writes them: quality 90, 3 to 4 MB."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        extract_people(Path(folder), count=min(10, -(-count // 20)))
        paths = sorted(Path(folder).glob("P*/*.jpg"))[:count]
        noise = random.normal(0, 4, (SIZE_PX[1], SIZE_PX[0], 3)).astype(np.int16)
        return [_photo(path, noise) for path in paths]


def _photo(path: Path, noise: NDArray[np.int16]) -> bytes:
    with Image.open(path) as picture:
        rgb = np.asarray(picture.convert("RGB").resize(SIZE_PX), np.int16)
    buffer = io.BytesIO()
    Image.fromarray((rgb + noise).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
