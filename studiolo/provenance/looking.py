"""What a file says of itself, found out in a child process: its manifest, and the hash of its pixels.

Both are read by native code fed by strangers. A file can make it crash, loop or ask for all the memory there is; then
the child dies of it and nobody else, and what it had not found out counts as not there. Such questions are rare, so
each has a child of its own (0.8 s). It writes a line when it knows the pixels and one when it knows the manifest.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from studiolo.albums.child import environment, give_way, limit_memory
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


@dataclass(frozen=True)
class Seen:
    """What a file says."""

    manifest: ManifestState
    pixels_sha256: str | None
    """As `studiolo.portraits.files.image_sha256` has it; None when it is no picture that could be opened, or one with
    more pixels than were allowed."""


def look(file: IO[bytes], ours: Ours, max_pixels: int, limit_s: float = _LIMIT_S) -> Seen:
    """What is found in an open file of this disk, read from where it stands. No file makes this raise."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "studiolo.provenance.looking", json.dumps(asdict(ours)), str(max_pixels)],
        stdin=file.fileno(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
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
    give_way()
    content = sys.stdin.buffer.read()
    limit_memory(_LIMIT_MIB)
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


if __name__ == "__main__":
    main()
