"""Store and tracker of a worker whose job may be another's, or nobody's, by the time it writes."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from studiolo.errors import StoreError
from studiolo.storage.store import RETRY_PAUSES_S, Store
from studiolo.storage.tracking import Curve, LenientTracker, Tracker

Result = TypeVar("Result")


class HeldStore(Store):
    """Asks `guard` before each write, which raises when there is to be none; what fails is tried again, after each of
    `RETRY_PAUSES_S`, as long as `wait` gives True. It is given the pause, and makes it.
    """

    def __init__(self, url: str, guard: Callable[[], None], wait: Callable[[float], bool]) -> None:
        super().__init__(url)
        self._guard, self._wait = guard, wait

    def read_bytes(self, path: str) -> bytes:
        """The whole content of `path`."""
        return self._patiently(partial(super().read_bytes, path))

    def exists(self, path: str) -> bool:
        """Whether a file or folder is at `path`."""
        return self._patiently(partial(super().exists, path))

    def write_bytes(self, path: str, content: bytes) -> None:
        """Make `path` hold exactly `content`; raises what `guard` does."""
        write = super().write_bytes

        def guarded() -> None:
            self._guard()
            write(path, content)

        self._patiently(guarded)

    def remove(self, path: str) -> None:
        """Delete the file at `path`; no error when it is already gone."""
        self._patiently(partial(super().remove, path))

    def _patiently(self, ask: Callable[[], Result]) -> Result:
        for pause_s in RETRY_PAUSES_S:
            try:
                return ask()
            except StoreError as error:
                if is_missing(error) or not self._wait(pause_s):
                    raise
        return ask()


class HeldTracker(LenientTracker):
    """A lenient tracker of runs below the endpoint's own, where erasures look for them; it asks `guard` before each
    write.

    While the endpoint's run cannot be opened, there are none below it.
    """

    def __init__(self, tracker: Tracker, guard: Callable[[], None]) -> None:
        super().__init__(tracker)
        self._guard, self._endpoint = guard, ""

    def start(self, key: str, name: str, params: Mapping[str, object], parent: str | None = None) -> str:
        """The run's id, empty when it could not be opened; its parent is the endpoint's run."""
        self._guard()
        self._endpoint = self._endpoint or super().start("endpoint", "endpoint", {})
        return super().start(key, name, params, self._endpoint) if self._endpoint else ""

    def log_metrics(self, run: str, metrics: Mapping[str, float | Curve]) -> None:
        """As `Tracker` says."""
        self._guard()
        super().log_metrics(run, metrics)

    def log_artifact(self, run: str, path: str, content: bytes) -> None:
        """As `Tracker` says."""
        self._guard()
        super().log_artifact(run, path, content)


def is_missing(error: StoreError) -> bool:
    """Whether the store answered, that there is no such file."""
    return isinstance(error.__cause__, FileNotFoundError)
