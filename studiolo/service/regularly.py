"""Work beside the work: something short, again and again, in a thread of its own."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from studiolo.errors import StudioloError

LAST_CALL_S = 10.0
"""How long the end of the block waits for a call that is under way."""

_log = logging.getLogger(__name__)


@contextmanager
def regularly(name: str, pause_s: float, work: Callable[[], object]) -> Iterator[None]:
    """Call `work`, and `pause_s` after its end again, for as long as the `with` lasts; then wait for the last call,
    `LAST_CALL_S` at most: what hangs does not keep the process from ending.

    A call that raises is logged, and the next one comes all the same: a database may be away for a while.
    """
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            try:
                work()
            except StudioloError as error:
                _log.warning("%s: %s", name, error)
            except Exception:
                _log.exception("%s: a fault", name)
            over.wait(pause_s)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(LAST_CALL_S)
        if thread.is_alive():
            _log.warning("%s: not waited for any longer", name)
