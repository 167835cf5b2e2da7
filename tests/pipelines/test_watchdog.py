"""A process that is ended by its own watchdog."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_RUN = """
import ctypes, sys, time
from pipelines import watchdog
watchdog.GRACE_S = 1.0
dog = watchdog.Watchdog({memory_mib})
with dog.watching({limit_s}, lambda why: print(why, flush=True)) as restart:
    {work}
time.sleep(2.5)
print("survived")
"""


def run(work: str, limit_s: float = 30, memory_mib: int | None = None) -> tuple[int, str, float]:
    """Exit code, what was said, and seconds of a process that does `work` under watch."""
    code = _RUN.format(work=work, limit_s=limit_s, memory_mib=memory_mib)
    started = time.monotonic()
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    return result.returncode, result.stdout.strip(), time.monotonic() - started


@pytest.mark.parametrize("work", ["time.sleep(60)", "while True: pass"])
def test_what_takes_too_long_is_ended(work: str):
    code, said, seconds = run(work, limit_s=0.5)
    assert (code, said) == (1, "took longer than 0.5 s")
    assert seconds < 45


def test_native_code_that_holds_pythons_lock_is_ended_without_a_word():
    code, said, seconds = run("ctypes.PyDLL(None).usleep(50_000_000)", limit_s=0.5)
    assert (code, said) == (1, "")
    assert seconds < 45


def test_what_takes_too_much_memory_is_ended():
    code, said, _ = run(
        "eaten = [bytearray(b'x') * 2**20 for _ in range(600) if not time.sleep(0.005)]", memory_mib=300
    )
    assert code == 1
    assert said.startswith("its worker took ")
    assert said.endswith("MiB of memory, limit 300")


def test_memory_of_a_child_counts():
    eater = "import time; eaten = bytearray(b'x') * 500 * 2**20; time.sleep(60)"
    code, said, _ = run(f'import subprocess; subprocess.run([sys.executable, "-c", "{eater}"])', memory_mib=300)
    assert code == 1
    assert "memory" in said


def test_every_finished_part_begins_the_time_anew():
    assert run("[restart() for _ in range(5) if not time.sleep(1.5)]", limit_s=6)[:2] == (0, "survived")


def test_work_that_is_done_in_time_is_left_alone():
    assert run("pass", limit_s=10, memory_mib=10)[:2] == (0, "survived")


_BESIDE = """
import threading, time
from pipelines import watchdog
dog = watchdog.Watchdog({memory_mib})
def busy():
    with dog.watching(10, lambda why: print("busy:", why, flush=True)) as restart:
        while True:
            time.sleep(0.1)
            restart()
threading.Thread(target=busy, daemon=True).start()
time.sleep(0.5)
for _ in range(3):  # these end in time
    with dog.watching(10, lambda why: print("short:", why, flush=True)):
        time.sleep(0.1)
with dog.watching({limit_s}, lambda why: print("hanging:", why, flush=True)):
    {work}
"""


def beside(work: str, limit_s: float, memory_mib: int | None = None) -> tuple[int, list[str]]:
    """Exit code and what was said when `work` is done beside a block that makes progress."""
    code = _BESIDE.format(work=work, limit_s=limit_s, memory_mib=memory_mib)
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    return result.returncode, sorted(line.split(" MiB")[0] for line in result.stdout.splitlines())


def test_a_block_that_hangs_is_found_though_another_makes_progress():
    assert beside("time.sleep(60)", limit_s=0.5) == (1, ["hanging: took longer than 0.5 s"])


def test_of_too_much_memory_all_that_are_in_it_are_told():
    code, said = beside(
        "eaten = [bytearray(b'x') * 2**20 for _ in range(900) if not time.sleep(0.005)]", limit_s=30, memory_mib=300
    )
    assert code == 1
    assert [line.split(":")[0] for line in said] == ["busy", "hanging"]
