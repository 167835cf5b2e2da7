"""A process of tests that crashes, or hangs where no signal is taken, is started once more; one that fails is not."""

import sys
from pathlib import Path

import pytest

from tests.processes import run

_TEST = """
import ctypes, os, pathlib
def test_it():
    runs = pathlib.Path(__file__).with_name("runs")
    with runs.open("a") as file:
        file.write(".")
    if len(runs.read_text()) <= {times}:
        {deed}
"""
_CRASH = "os.abort()"
_HANG = "ctypes.PyDLL(None).usleep(60_000_000)"  # it keeps Python's lock


@pytest.mark.parametrize(
    ("times", "deed", "code", "runs"),
    [(0, "pass", 0, 1), (1, _CRASH, 0, 2), (1, _HANG, 0, 2), (2, _CRASH, 250, 2), (2, "assert False", 1, 1)],
)
def test_what_did_not_live_to_its_end_is_started_once_more(
    tmp_path: Path, times: int, deed: str, code: int, runs: int
) -> None:
    (tmp_path / "test_it.py").write_text(_TEST.format(times=times, deed=deed))
    options = ["-p", "tests.conftest", "-o", "faulthandler_timeout=3", "-o", "faulthandler_exit_on_timeout=true"]
    ended = run([sys.executable, "-m", "tests.to_the_end", *options, str(tmp_path)])
    assert (ended.returncode, len((tmp_path / "runs").read_text())) == (code, runs), ended.stdout
    assert ("once more" in ended.stdout) == (runs == 2)
