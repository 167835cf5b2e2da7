"""What every benchmark ends with: one JSON object, printed as the last line and kept in `benchmarks/results/`.

A result says on what it was measured (processor, cores, memory, accelerator) and with what (versions, commit), and
nothing else about the machine: no host name, no user, no path.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    "studiolo",
    "numpy",
    "opencv-python-headless",
    "torch",
    "diffusers",
    "peft",
    "ray",
    "onnxruntime",
    "dlib-bin",
)
"""Packages whose versions a figure may depend on; those not installed are left out."""

_MIB = 2**20


def write(name: str, ratios: dict[str, Any], figures: dict[str, Any]) -> None:
    """Keep the result as `benchmarks/results/NAME.json` and print it as one line.

    `ratios` compare two things measured side by side and travel between machines; `figures` are all the rest. Raises
    `ValueError` for a value that JSON cannot hold (also NaN and infinity: a benchmark that measured nothing must say
    so).
    """
    result = {
        "name": name,
        "ratios": ratios,
        "figures": figures,
        "hardware": hardware(),
        "versions": versions(),
        "commit": commit(),
    }
    line = json.dumps(result, allow_nan=False, ensure_ascii=False)
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, allow_nan=False, ensure_ascii=False, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(line, flush=True)


def hardware() -> dict[str, Any]:
    """Processor, usable cores, memory in MiB, and the accelerator if a benchmark has brought torch in."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return {
        "processor": _processor(),
        "cores": len(usable),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MIB,
        "accelerator": _accelerator(),
    }


def versions() -> dict[str, str]:
    """Python's and the packages'."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Hash of the checked-out commit, with `+changes` when tracked files differ from it; `unknown` outside git."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + "+changes" if _git("status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _accelerator() -> str:
    # Importing torch takes seconds and a benchmark that never did so has used no accelerator.
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name(0)) if torch is not None and torch.cuda.is_available() else "none"
