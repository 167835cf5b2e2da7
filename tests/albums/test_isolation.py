"""Photos that take their decoder down, with a real child and real signals; the next photo decodes all the same."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import psutil
import pytest
from PIL import Image

from studiolo.albums.decode import decode
from studiolo.albums.isolation import IsolatedDecoder
from studiolo.albums.records import Reason
from studiolo.errors import PhotoError, StudioloError
from studiolo.settings import PerceptionSettings
from tests.albums.test_decode import encode, scene

SMALL = encode(scene(), "JPEG", quality=95)
LARGE = encode(Image.new("1", (10_000, 10_000)))  # 16 kB of file; a second or two and 400 MB


@pytest.fixture
def decoder() -> Iterator[IsolatedDecoder]:
    decoder = IsolatedDecoder(PerceptionSettings())
    yield decoder
    decoder.close()


def refusal(decoder: IsolatedDecoder, data: bytes) -> PhotoError:
    with pytest.raises(PhotoError) as caught:
        decoder(data)
    return caught.value


def decodes(decoder: IsolatedDecoder) -> bool:
    return bool((decoder(SMALL) == decode(SMALL, decoder.settings)).all())


def test_pixels_and_reasons_are_those_of_decode(decoder: IsolatedDecoder) -> None:
    assert decodes(decoder)
    child = decoder.pid
    for data in (b"", b"words", SMALL[:300], encode(scene(20, 20))):
        with pytest.raises(PhotoError) as caught:
            decode(data, decoder.settings)
        error = refusal(decoder, data)
        assert (error.reason, error.detail) == (caught.value.reason, caught.value.detail)
    assert decodes(decoder)
    assert decoder.pid == child  # a photo that is merely bad costs no child
    assert decoder(SMALL).flags.writeable


def kill_children(decoder: IsolatedDecoder, number: signal.Signals, count: int) -> Thread:
    """A thread that ends `count` children of `decoder`, one after the other, each while it decodes."""

    def run() -> None:
        killed: set[int | None] = {None}
        while len(killed) <= count:
            child = decoder.pid
            if child not in killed and psutil.Process(child).cpu_times().user > 0.4:  # it starts in less
                os.kill(child or 0, number)
                killed.add(child)
            time.sleep(0.01)

    thread = Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_photo_that_ends_two_children_is_refused(decoder: IsolatedDecoder, number: signal.Signals) -> None:
    killer = kill_children(decoder, number, 2)
    error = refusal(decoder, LARGE)
    killer.join()
    assert error.reason == Reason.DECODER_DIED
    assert f"signal {number.value}" in error.detail
    assert decodes(decoder)


def test_a_photo_whose_child_is_killed_by_chance_is_not_to_blame(decoder: IsolatedDecoder) -> None:
    killer = kill_children(decoder, signal.SIGKILL, 1)
    assert decoder(LARGE).shape == (1600, 1600, 3)
    killer.join()
    child = decoder.pid
    assert child
    os.kill(child, signal.SIGKILL)
    assert decodes(decoder)
    assert decoder.pid != child


@pytest.mark.parametrize("hang", ["busy", "stopped"])
def test_a_child_that_hangs_is_ended_in_time(hang: str) -> None:
    decoder = IsolatedDecoder(PerceptionSettings())
    assert decodes(decoder)
    assert decoder.pid
    assert decoder._child
    if hang == "stopped":
        os.kill(decoder.pid, signal.SIGSTOP)
    decoder._child.limit_s = 0.4  # of this child alone: a start may take as long
    started = time.monotonic()
    error = refusal(decoder, LARGE)
    assert time.monotonic() - started < 30
    assert (error.reason, error.detail) == (Reason.TOO_SLOW, "not decoded within 0.4 s")
    assert decodes(decoder)
    decoder.close()


def test_a_photo_that_eats_memory_is_stopped_at_the_limit() -> None:
    decoder = IsolatedDecoder(PerceptionSettings(decode_mib=64))
    error = refusal(decoder, LARGE)
    assert error.reason == Reason.TOO_MUCH_MEMORY
    assert error.detail == "PNG, 10000x10000 px: limit 64 MiB"
    assert decodes(decoder)
    decoder.close()


def test_the_limit_is_each_photos_own() -> None:
    """What one photo leaves behind in the child is not taken from the next one's share."""
    decoder = IsolatedDecoder(PerceptionSettings(decode_mib=128))
    middling = encode(Image.new("RGB", (4000, 4000)))  # 64 MB of pixels
    assert all(decoder(middling).shape == (1600, 1600, 3) for _ in range(4))
    decoder.close()


def test_the_child_is_small_and_knows_no_models(decoder: IsolatedDecoder) -> None:
    assert decodes(decoder)
    process = psutil.Process(decoder.pid)
    libraries = {Path(entry.path).name for entry in process.memory_maps()}
    assert any(name.startswith("_imaging") for name in libraries)
    assert not [name for name in libraries if any(word in name for word in ("torch", "onnx", "raylet", "cv2", "dlib"))]
    assert process.memory_info().rss < 150 * 2**20


def test_a_pickled_decoder_starts_a_child_of_its_own(decoder: IsolatedDecoder) -> None:
    assert decodes(decoder)
    copy = pickle.loads(pickle.dumps(decoder))
    assert copy.pid is None
    assert decodes(copy)
    assert copy.pid != decoder.pid
    copy.close()
    assert decodes(decoder)


def test_closing_and_forgetting_leave_no_process() -> None:
    decoder = IsolatedDecoder(PerceptionSettings())
    assert decodes(decoder)
    closed = decoder.pid
    decoder.close()
    decoder.close()
    assert decodes(decoder)
    forgotten = decoder.pid
    del decoder
    assert closed
    assert forgotten
    assert not psutil.pid_exists(closed)
    assert not psutil.pid_exists(forgotten)


PARENT = """\
import sys
from studiolo.albums.isolation import IsolatedDecoder
from studiolo.settings import PerceptionSettings
decoder = IsolatedDecoder(PerceptionSettings(decode_seconds=0.5))
try:
    decoder(b"")
except Exception:
    print(decoder.pid, flush=True)
sys.stdin.read()
"""


def test_a_child_ends_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        psutil.wait_procs([child], timeout=10)
    assert not child.is_running()


def test_a_child_that_cannot_start_is_a_broken_worker_and_not_a_bad_photo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "PIL").mkdir()
    (tmp_path / "PIL" / "__init__.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(StudioloError, match="before its first photo") as caught:
        IsolatedDecoder(PerceptionSettings())(SMALL)
    assert not isinstance(caught.value, PhotoError)


def test_what_is_decoded_does_not_depend_on_the_child(decoder: IsolatedDecoder) -> None:
    first = decoder(SMALL)
    decoder.close()
    assert np.array_equal(decoder(SMALL), first)
