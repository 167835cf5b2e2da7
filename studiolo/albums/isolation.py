"""`decode` in a child process: what a photo does to its reader, it does to nobody else.

Decoders are C code fed by strangers. A file can make one crash, loop, or ask for all the memory there is, and no
exception tells of it. So photos are decoded in a child that lives as long as they behave: it gets a file's bytes and
gives pixels back, or the reason why not. A photo that takes longer than `decode_seconds`, more memory than
`decode_mib`, or the child itself, is refused, and the next one gets a new child.

The child is a fresh interpreter with little more than Pillow and NumPy in it, never a fork of an actor full of models
and threads. It ends with its parent: at the end of its input when idle, by its own alarm when busy.

Bytes go both ways through one file in memory that both hold open. Pipes only say that they are there: through a pipe
of 64 KiB a photo's pixels are a hundred changes between two processes, and on a busy machine each waits for its turn.

    to the child:    length (8 bytes) of the photo's file
    from the child:  height and width (4 bytes each) of `rgb_u8`; or 0 and the length of a JSON list, reason and detail
"""

import json
import os
import signal
import struct
import subprocess
import sys
import weakref
from contextlib import suppress
from threading import Timer
from typing import IO

import numpy as np
from numpy.typing import NDArray

from studiolo.albums.child import environment, give_way, limit_memory
from studiolo.albums.decode import decode
from studiolo.albums.records import Reason
from studiolo.errors import PhotoError, StudioloError
from studiolo.settings import PerceptionSettings

_START_S = 120
"""A child that is not ready by then never will be; it takes 0.3 s on an idle core."""

_ORPHAN_S = 5
"""How much later than its parent's the child's own alarm rings."""

_DESK_BYTES = 16 * 2**20
"""What the desk keeps from one photo to the next: an ordinary photo."""

_READY = b"ready"
_LENGTH = struct.Struct("<Q")
_SHAPE = struct.Struct("<II")
_KEEPING = {"MALLOC_TRIM_THRESHOLD_": str(2**26), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
"""What an ordinary photo took is kept for the next: 9,500 page faults a photo less, a third of its time."""


class IsolatedDecoder:
    """`decode` with limits of time and memory. The child starts with the first photo; a copy starts its own."""

    def __init__(self, settings: PerceptionSettings) -> None:
        self.settings = settings
        self._child: _Child | None = None

    def __call__(self, data: bytes) -> NDArray[np.uint8]:
        """`decode(data)`. Raises `PhotoError` as it does, and `TOO_SLOW`, `TOO_MUCH_MEMORY` and `DECODER_DIED`.

        A child may die of something else than the photo in its hands, so the photo gets a second one.
        """
        with suppress(_DiedError):
            return self._decode(data)
        try:
            return self._decode(data)
        except _DiedError as error:
            raise PhotoError(Reason.DECODER_DIED, f"it ended two decoders, the second with {error}") from error

    def _decode(self, data: bytes) -> NDArray[np.uint8]:
        if self._child is None:
            self._child = _Child(self.settings)
        try:
            return self._child.decode(data)
        except PhotoError as error:
            if error.reason in (Reason.TOO_SLOW, Reason.TOO_MUCH_MEMORY):
                self.close()
            raise
        except _DiedError:
            self.close()
            raise

    def close(self) -> None:
        """End the child; the next photo gets another."""
        if self._child is not None:
            self._child.end()
            self._child = None

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while there is none."""
        return self._child.process.pid if self._child else None

    def __getstate__(self) -> dict[str, object]:
        return {"settings": self.settings, "_child": None}


class _DiedError(Exception):
    """A child ended of its own, with the signal or exit code in the message."""


class _Child:
    """The child as its parent sees it."""

    def __init__(self, settings: PerceptionSettings) -> None:
        self.limit_s = settings.decode_seconds
        self.desk = os.memfd_create("studiolo-photo", os.MFD_CLOEXEC)
        self.process = subprocess.Popen(
            # -P: nothing is imported from the folder the job was started in
            [sys.executable, "-P", "-m", "studiolo.albums.isolation", str(self.desk), settings.model_dump_json()],
            pass_fds=(self.desk,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(**_KEEPING),
            start_new_session=True,  # Ctrl-C is for the job, which then ends the child
        )
        assert self.process.stdin is not None  # piped
        assert self.process.stdout is not None
        self.to, self.back = self.process.stdin, self.process.stdout
        self.end = weakref.finalize(self, _end, self.process, self.desk)
        with self._within(_START_S):
            ready = self.back.read(len(_READY))
        if ready != _READY:
            self.end()
            raise StudioloError(
                f"the decoder's process ended with {self.process.returncode} before its first photo, wanted it to wait "
                f"for one; see what `{sys.executable} -m studiolo.albums.isolation` says"
            )

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        watch = self._within(self.limit_s)
        try:
            with watch:
                _put(self.desk, data)
                self.to.write(_LENGTH.pack(len(data)))
                self.to.flush()
                height, width = _SHAPE.unpack(_read(self.back, _SHAPE.size))
                answer = _take(self.desk, height * width * 3 if height else width)
        except (EOFError, OSError) as error:
            code = self.process.wait()
            if watch.rang or code == -signal.SIGALRM:
                raise PhotoError(Reason.TOO_SLOW, f"not decoded within {self.limit_s:g} s") from error
            raise _DiedError(
                f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"
            ) from error
        if not height:
            raise PhotoError(*json.loads(answer.tobytes()))
        return answer.reshape(height, width, 3)

    def _within(self, seconds: float) -> "_Watch":
        return _Watch(self.process, seconds)


class _Watch:
    """Kills a process that is not done in time. `rang`: it did."""

    def __init__(self, process: "subprocess.Popen[bytes]", seconds: float) -> None:
        self.process = process
        self.rang = False
        self.timer = Timer(seconds, self._ring)
        self.timer.daemon = True

    def _ring(self) -> None:
        self.rang = True
        self.process.kill()

    def __enter__(self) -> "_Watch":
        self.timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()
        self.timer.join()  # from here on it has rung or never will
        if self.rang:
            self.process.wait()  # so that nobody gives the next photo to the dying


def _end(process: "subprocess.Popen[bytes]", desk: int) -> None:
    process.kill()
    process.wait()
    os.close(desk)
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # a length that a dead child never took
            if pipe:
                pipe.close()


def _put(desk: int, content: bytes | memoryview) -> None:
    """`content` onto the desk, from its beginning."""
    done, whole = 0, memoryview(content)
    while done < len(whole):
        done += os.pwrite(desk, whole[done:], done)


def _take(desk: int, size: int) -> NDArray[np.uint8]:
    """The first `size` bytes of the desk. Raises `EOFError` when it holds fewer."""
    content = np.empty(size, np.uint8)
    if os.preadv(desk, [content.data], 0) < size:
        raise EOFError
    if size > _DESK_BYTES:
        os.ftruncate(desk, _DESK_BYTES)
    return content


def _read(pipe: IO[bytes], size: int) -> bytes:
    """Exactly `size` bytes. Raises `EOFError` when there are fewer."""
    content = pipe.read(size)
    if len(content) < size:
        raise EOFError
    return content


# The child


def main() -> None:
    """Decode what is on the desk until the input ends. Arguments: its descriptor, `PerceptionSettings` as JSON."""
    desk, settings = int(sys.argv[1]), PerceptionSettings.model_validate_json(sys.argv[2])
    inbox, outbox = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    give_way()
    outbox.write(_READY)
    outbox.flush()
    with suppress(EOFError, BrokenPipeError):
        while True:
            (size,) = _LENGTH.unpack(_read(inbox, _LENGTH.size))
            signal.setitimer(signal.ITIMER_REAL, settings.decode_seconds + _ORPHAN_S)
            outbox.write(_answer(desk, size, settings))
            outbox.flush()
            signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(desk: int, size: int, settings: PerceptionSettings) -> bytes:
    data = _take(desk, size).tobytes()
    limit_memory(settings.decode_mib)
    try:
        rgb_u8 = decode(data, settings)
    except PhotoError as error:
        refusal = [error.reason, error.detail]
    except MemoryError:
        refusal = [Reason.TOO_MUCH_MEMORY, f"{size} bytes of file: limit {settings.decode_mib} MiB"]
    else:
        _put(desk, rgb_u8.data.cast("B"))
        return _SHAPE.pack(*rgb_u8.shape[:2])
    content = json.dumps(refusal).encode()
    _put(desk, content)
    return _SHAPE.pack(0, len(content))


if __name__ == "__main__":
    main()
