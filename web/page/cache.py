"""The folder in which Gradio lays what is dropped on the page, some of which its own timer does not know."""

import asyncio
import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_PREFIX, _LOCK = "studiolo-page-", ".lock"
_EVERY_S = 30.0


class Cache:
    """A folder of this process, which goes with it; of a process that was killed, with the next that begins here."""

    def __init__(self) -> None:
        _remove_abandoned()
        self._lock, lock = tempfile.mkstemp(_LOCK, _PREFIX)
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # the system lets it go, however the process ends
        self.folder = Path(lock.removesuffix(_LOCK))
        self.folder.mkdir(mode=0o700)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.with_suffix(_LOCK).unlink(missing_ok=True)
        os.close(self._lock)


def _remove_abandoned() -> None:
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*{_LOCK}"):
        with suppress(OSError), lock.open("r+") as held:  # somebody else's, gone meanwhile, or its process lives
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink()


def sweep(folder: Path, age_s: float, now_s: float) -> int:
    """Remove every file below `folder` that was written more than `age_s` before `now_s`; how many they were.

    So are folders, when nothing is in them; a younger one may be where Gradio is about to lay something.
    """
    removed = 0
    for path in sorted(folder.rglob("*"), reverse=True):  # what is inside a folder before the folder
        with suppress(OSError):  # somebody else was quicker, or it is a folder with something in it
            if path.lstat().st_mtime >= now_s - age_s:
                continue
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
                removed += 1
    return removed


async def keep_swept(folder: Path, age_s: float) -> None:
    """Sweep now and again, until cancelled."""
    while True:
        await asyncio.sleep(min(_EVERY_S, age_s))
        await asyncio.to_thread(sweep, folder, age_s, time.time())
