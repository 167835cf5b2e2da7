"""What a file says of itself, found out in a child process: its manifest, and the hash of its pixels.

Both are read by native code fed by strangers. A file can make it crash, loop or ask for all the memory there is; then
the child dies of it and nobody else, and what it had not found out counts as not there. Such questions are rare, so
each has a child of its own (0.8 s). It writes a line when it knows the pixels and one when it knows the manifest.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

import studiolo
from studiolo.albums.decode import decode
from studiolo.errors import PhotoError
from studiolo.portraits.files import image_sha256
from studiolo.provenance.manifests import ManifestState, read_manifest
from studiolo.provenance.ours import Ours
from studiolo.settings import PerceptionSettings

_LIMIT_S = 20.0
"""For both, and for the start of an interpreter on a busy machine."""
_LIMIT_MIB = 1024
"""Address space on top of what the child holds when it begins."""
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


@dataclass(frozen=True)
class Seen:
    """What a file says."""

    manifest: ManifestState
    pixels_sha256: str | None
    """As `studiolo.portraits.files.image_sha256` has it; None when it is no picture that could be opened, or one with
    more pixels than were allowed."""


def look(file: IO[bytes], ours: Ours, max_pixels: int, limit_s: float = _LIMIT_S) -> Seen:
    """What is found in an open file of this disk, read from where it stands. No file makes this raise."""
    path = os.pathsep.join([str(Path(studiolo.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "studiolo.provenance.looking", json.dumps(asdict(ours)), str(max_pixels)],
        stdin=file.fileno(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": path},
        start_new_session=True,
    )
    try:
        said, _ = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        child.kill()
        said, _ = child.communicate()
    found: dict[str, str | None] = {}
    for line in said.splitlines():
        with suppress(ValueError):  # cut off
            found |= json.loads(line)
    return Seen(ManifestState(found.get("manifest") or ManifestState.BROKEN), found.get("pixels"))


# The child


def main() -> None:
    """Look at the standard input. Arguments: `Ours` as JSON, most pixels."""
    given, max_pixels = json.loads(sys.argv[1]), int(sys.argv[2])
    ours = Ours(given["authorities_pem"], tuple(given["serials"]))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    signal.alarm(int(_LIMIT_S) + 5)  # when the parent has died
    with suppress(OSError):  # short of memory, the kernel shall take this process
        Path("/proc/self/oom_score_adj").write_text("1000")
    content = sys.stdin.buffer.read()
    _limit_memory()
    rgb_u8 = _pixels(content, max_pixels)
    print(json.dumps({"pixels": None if rgb_u8 is None else image_sha256(rgb_u8)}), file=out, flush=True)
    print(json.dumps({"manifest": read_manifest(content, ours)}), file=out, flush=True)


def _pixels(content: bytes, max_pixels: int) -> NDArray[np.uint8] | None:
    """The picture at its full size; None when it cannot be had."""
    settings = PerceptionSettings(max_pixels=max_pixels, working_side_px=max(256, max_pixels), min_side_px=1)
    try:
        return decode(content, settings)
    except (PhotoError, MemoryError):
        return None


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _LIMIT_MIB * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
