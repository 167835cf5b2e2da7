"""What is given to a child process that opens what strangers send, and denied to it, so that it dies of it alone."""

import os
import resource
from contextlib import suppress
from pathlib import Path

import studiolo

_ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
"""Idle threads and their arenas would count as the file's memory."""


def environment(**more: str) -> dict[str, str]:
    """For the child, which finds this library: that of this process, and `more`."""
    path = os.pathsep.join([str(Path(studiolo.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **_ALONE, **more, "PYTHONPATH": path}


def give_way() -> None:
    """Short of memory, the kernel shall take this process, the child, and not its parent."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def limit_memory(mib: int) -> None:
    """`mib` of address space on top of what this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + mib * 2**20, resource.RLIM_INFINITY))
