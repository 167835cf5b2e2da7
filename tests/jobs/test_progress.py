"""Progress on a clock of our own: lines, rates, time left."""

import io
import re

import pytest
from rich.console import Console

from jobs.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def _plain(clock: Clock, every_s: float = 15.0) -> tuple[Progress, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, width=40)  # narrow on purpose: lines may not wrap
    return Progress(["perceive", "train"], console=console, clock=clock, plain_every_s=every_s), out


def test_plain_lines_are_stable() -> None:
    clock = Clock()
    progress, out = _plain(clock)
    with progress:
        progress.stage("perceive", total=10)
        for index in range(10):
            clock.now_s += 8
            progress.advance(accepted=index % 3 != 0, rejected=index % 3 == 0)
        clock.now_s += 1
        progress.stage("train", total=2)
        clock.now_s += 300
        progress.advance(failed=1)
        progress.say("identity [x] failed")
    assert out.getvalue().splitlines() == [
        "00:00:00 perceive 0/10 0% rate=? accepted=0 rejected=0 failed=0 eta=?",
        "00:00:16 perceive 2/10 20% rate=7.5/min accepted=1 rejected=1 failed=0 eta=00:01:04",
        "00:00:32 perceive 4/10 40% rate=7.5/min accepted=2 rejected=2 failed=0 eta=00:00:48",
        "00:00:48 perceive 6/10 60% rate=7.5/min accepted=4 rejected=2 failed=0 eta=00:00:32",
        "00:01:04 perceive 8/10 80% rate=7.5/min accepted=5 rejected=3 failed=0 eta=00:00:16",
        "00:01:20 perceive 10/10 100% rate=7.5/min accepted=6 rejected=4 failed=0 eta=00:00:00",
        "00:01:21 perceive 10/10 100% rate=7.4/min accepted=6 rejected=4 failed=0 done seconds=81.0",
        "00:01:21 train 0/2 0% rate=? accepted=0 rejected=0 failed=0 eta=?",
        "00:06:21 train 1/2 50% rate=12.0/h accepted=0 rejected=0 failed=1 eta=00:05:00",
        "00:06:21 identity [x] failed",
        "00:06:21 train 1/2 50% rate=12.0/h accepted=0 rejected=0 failed=1 done seconds=300.0",
    ]


def test_lines_do_not_come_more_often_than_asked() -> None:
    clock = Clock()
    progress, out = _plain(clock, every_s=60)
    with progress:
        progress.stage("perceive", total=100_000)
        for _ in range(6000):
            clock.now_s += 0.1
            progress.advance()
    assert 11 <= len(out.getvalue().splitlines()) <= 12  # 600 s, the first and the last


def test_seconds_by_stage_add_up_and_include_the_running_one() -> None:
    clock = Clock()
    progress, _ = _plain(clock)
    with progress:
        assert progress.seconds_by_stage == {}
        progress.stage("perceive")
        clock.now_s += 5
        progress.stage("train", total=1)
        clock.now_s += 7
        assert progress.seconds_by_stage == {"perceive": 5, "train": 7}
        progress.stage("perceive", total=3)  # a second visit goes on counting
        clock.now_s += 2
    clock.now_s += 100
    assert progress.seconds_by_stage == {"perceive": 7, "train": 7}


def test_the_time_left_follows_a_change_of_pace_and_runs_down_between_units() -> None:
    clock = Clock()
    progress, out = _plain(clock, every_s=1)
    with progress:
        progress.stage("train", total=1000)
        for _ in range(300):
            clock.now_s += 1
            progress.advance()
        assert out.getvalue().splitlines()[-1].endswith("eta=00:11:40")
        for _ in range(20):  # ten times slower; the fast units leave the window after 120 s
            clock.now_s += 10
            progress.advance()
        assert out.getvalue().splitlines()[-1].endswith("eta=01:53:20")
        clock.now_s += 60
        progress.tick()
        assert out.getvalue().splitlines()[-1].endswith("eta=01:52:20")
        clock.now_s += 1e6
        progress.tick()
        assert out.getvalue().splitlines()[-1].endswith("eta=00:00:00")


def test_slow_units_have_a_rate_although_the_window_is_shorter() -> None:
    clock = Clock()
    progress, out = _plain(clock)
    with progress:
        progress.stage("train", total=20)
        for _ in range(12):
            clock.now_s += 500
            progress.advance()
    assert "rate=7.2/h" in out.getvalue().splitlines()[-2]
    assert out.getvalue().splitlines()[-2].endswith("eta=01:06:40")


def test_parts_of_units_under_way_count_for_share_rate_and_time_left() -> None:
    clock = Clock()
    progress, out = _plain(clock)
    with progress:
        progress.stage("train", total=4)
        for part in (0.5, 1.0, 1.5):
            clock.now_s += 60
            progress.under_way(part)
        progress.tick()
        assert out.getvalue().splitlines()[-1] == (
            "00:03:00 train 0/4 37% rate=30.0/h accepted=0 rejected=0 failed=0 eta=00:05:00"
        )
        progress.under_way(0.5)  # the other is finished
        progress.advance(accepted=1)
        clock.now_s += 60
        progress.under_way(0.0)  # it begins anew: what was reached stays, until it is passed
        progress.under_way(1.0)
        progress.tick()
        assert out.getvalue().splitlines()[-1] == (
            "00:04:00 train 1/4 50% rate=30.0/h accepted=1 rejected=0 failed=0 eta=00:04:00"
        )


def test_the_total_of_the_running_stage_can_change() -> None:
    clock = Clock()
    progress, out = _plain(clock)
    with progress:
        progress.stage("train", total=4)
        clock.now_s += 20
        progress.advance(4)
        progress.stage("train", total=6)
        clock.now_s += 20
        progress.advance(2)
    lines = out.getvalue().splitlines()
    assert [line.split()[2] for line in lines] == ["0/4", "4/4", "6/6", "6/6"]


def test_unknown_and_empty_totals() -> None:
    clock = Clock()
    progress, out = _plain(clock)
    with progress:
        progress.stage("perceive")
        clock.now_s += 20
        progress.advance(3)
        progress.stage("train", total=0)
    lines = out.getvalue().splitlines()
    assert "perceive 3/? rate=9.0/min" in lines[1]
    assert lines[1].endswith("eta=?")
    assert "train 0/0 rate=?" in lines[-1]


def test_units_that_come_with_many_outcomes_keep_their_pace() -> None:
    clock = Clock()
    progress, out = _plain(clock)
    with progress:
        progress.stage("train", total=4)
        for _ in range(3):
            clock.now_s += 500
            for candidate in range(12):
                progress.advance(int(candidate == 0), accepted=int(candidate < 4), rejected=int(candidate >= 4))
        clock.now_s += 100
        progress.tick()
    assert (
        out.getvalue()
        .splitlines()[-2]
        .endswith("train 3/4 75% rate=7.2/h accepted=12 rejected=24 failed=0 eta=00:06:40")
    )


def test_a_job_that_breaks_off_says_where() -> None:
    clock = Clock()
    progress, out = _plain(clock)

    def job() -> None:
        with progress:
            progress.stage("perceive", total=4)
            clock.now_s += 3
            progress.advance(2)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        job()
    assert out.getvalue().splitlines()[-1].endswith("stopped seconds=3.0")


def test_misuse_is_named() -> None:
    progress, _ = _plain(Clock())
    with progress:
        with pytest.raises(ValueError, match="did you mean 'train'"):
            progress.stage("trian")
        with pytest.raises(ValueError, match="enter a stage first"):
            progress.advance()


def test_silence_is_broken_while_nothing_finishes() -> None:
    out = io.StringIO()
    with Progress(["train"], console=Console(file=out), plain_every_s=0.02) as progress:
        progress.stage("train", total=1)
        for _ in range(200):
            if out.getvalue().count("\n") >= 3:
                break
            progress._stop.wait(0.02)
    assert out.getvalue().count("train 0/1 0%") >= 3


def test_a_terminal_gets_a_panel_with_every_stage_and_no_plain_lines() -> None:
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, color_system=None, legacy_windows=False)
    console._environ = {"TERM": "xterm"}
    with Progress(["perceive", "train", "portraits"], console=console, clock=clock) as progress:
        progress.stage("perceive", total=4)
        clock.now_s += 8
        progress.advance(4, accepted=3, rejected=1)
        progress.stage("train", total=3)
        clock.now_s += 30
        progress.advance(failed=1)
        progress.say("identity a: nothing usable")
        page = Console(file=io.StringIO(), width=100, color_system=None)
        page.print(progress.panel())
    assert isinstance(page.file, io.StringIO)
    rows = {row[1]: row for line in page.file.getvalue().splitlines() if (row := line.strip("│ ").split())[1:]}
    assert [word for word in rows["perceive"] if re.search(r"\w", word)] == [
        "perceive", "4/4", "30.0/min", "3", "1", "00:00:08"
    ]  # fmt: skip
    assert [word for word in rows["train"] if re.search(r"\w", word)] == [
        "train", "1/3", "2.0/min", "1", "00:00:30", "00:01:00"
    ]  # fmt: skip
    assert rows["portraits"][0] == "-"
    assert "identity a: nothing usable" in out.getvalue()
    assert "rate=" not in out.getvalue()
