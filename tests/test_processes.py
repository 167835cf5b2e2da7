"""What tests start ends, with all that it started."""

import subprocess
import sys
import time

import pytest

from tests.processes import run, session_of, started

_PARENT = """
import subprocess, sys, time
child = subprocess.Popen(["sleep", "60"], process_group=0)
print(child.pid, flush=True)
time.sleep(float(sys.argv[1]))
"""


@pytest.mark.timeout(30)
def test_a_daemon_that_holds_the_output_holds_up_nobody() -> None:
    result = run([sys.executable, "-c", _PARENT, "0"])
    assert result.returncode == 0
    assert session_of(int(result.stdout)) is None


@pytest.mark.timeout(30)
def test_what_takes_too_long_fails_with_what_it_said() -> None:
    started_s = time.monotonic()
    with pytest.raises(pytest.fail.Exception, match=r"not done after 1 s; the last it said: \d+") as caught:
        run([sys.executable, "-c", _PARENT, "60"], limit_s=1)
    assert time.monotonic() - started_s < 20
    assert session_of(int(str(caught.value).split()[-1])) is None


@pytest.mark.timeout(30)
def test_a_failing_test_leaves_nothing_running() -> None:
    def fail_in_the_middle() -> None:
        with started([sys.executable, "-c", _PARENT, "60"], stdout=subprocess.PIPE, text=True) as process:
            pids.extend([process.pid, int(process.stdout.readline())])
            process.stdout.close()
            raise RuntimeError("in the middle")

    pids: list[int] = []
    with pytest.raises(RuntimeError, match="in the middle"):
        fail_in_the_middle()
    assert [session_of(pid) for pid in pids] == [None, None]
