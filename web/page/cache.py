"""The folder in which Gradio lays what is dropped on the page, some of which its own timer does not know."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

_EVERY_S = 30.0


def sweep(folder: Path, age_s: float, now_s: float) -> int:
    """Remove every file below `folder` that was written more than `age_s` before `now_s`; how many they were."""
    removed = 0
    for path in sorted(folder.rglob("*"), reverse=True):  # what is inside a folder before the folder
        with suppress(OSError):  # somebody else was quicker, or it is a folder with something in it
            if path.is_dir():
                path.rmdir()
            elif path.lstat().st_mtime < now_s - age_s:
                path.unlink()
                removed += 1
    return removed


async def keep_swept(folder: Path, age_s: float) -> None:
    """Sweep now and again, until cancelled."""
    while True:
        await asyncio.sleep(min(_EVERY_S, age_s))
        await asyncio.to_thread(sweep, folder, age_s, time.time())
