"""What this machine is and what the job takes of it."""

import importlib.metadata
import os
import platform
import threading
from types import TracebackType

import psutil

import studiolo
from pipelines.watchdog import tree_rss_bytes
from studiolo.errors import SettingsError
from studiolo.settings import FaceLoraSettings
from studiolo.training.slots import resolve_slots

_EVERY_S = 1.0
_NAMED = (
    "ray",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "mlflow",
    "pyarrow",
    "numpy",
    "opencv-python-headless",
)


def versions() -> dict[str, str]:
    """Versions of what decides a portrait's bytes."""
    found = {name: importlib.metadata.version(name) for name in _NAMED}
    return {"studiolo": studiolo.__version__, "python": platform.python_version(), **found}


def with_slots(settings: FaceLoraSettings, base: str) -> FaceLoraSettings:
    """`settings` with a number of slots: where none is given, what this machine, or its accelerator, is good for.

    Raises `SettingsError` for an accelerator that this machine, which starts the job, has not.
    """
    memory_bytes = psutil.virtual_memory().total
    if settings.accelerator and settings.slots is None:
        import torch

        if not torch.cuda.is_available():
            raise SettingsError(
                "face_lora.slots: got null and face_lora.accelerator, and this machine has no accelerator to choose by;"
                " give a number of slots"
            )
        memory_bytes = torch.cuda.get_device_properties(0).total_memory
    return settings.model_copy(update={"slots": resolve_slots(settings, base, memory_bytes)})


class PeakMemory:
    """Largest resident memory of this process and all it started, Ray's own processes included, seen once a second.

    Pages shared between processes count once for each, so the figure is an upper bound.
    """

    def __init__(self) -> None:
        self._peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def peak_gib(self) -> float:
        """The peak so far, in GiB."""
        return self._peak_bytes / 2**30

    def _watch(self) -> None:
        me = psutil.Process(os.getpid())
        while not self._stop.wait(_EVERY_S):
            self._peak_bytes = max(self._peak_bytes, tree_rss_bytes(me))
