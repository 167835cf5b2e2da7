"""What a job shows while it runs: a live panel on a terminal, plain lines elsewhere.

A plain line has a fixed shape, made for `grep` and `tail -f`:

    00:03:12 perceive 5/12 41% rate=0.52/s accepted=4 rejected=1 failed=0 eta=00:00:13
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from studiolo.errors import nearest

_WINDOW_S = 120.0
_WINDOW_EVENTS = 8
_TITLE = "Studiolo"


@dataclass
class _Stage:
    """Counts and clock of one stage; all times are readings of the injected clock, in seconds."""

    name: str
    total: int | None = None
    done: int = 0
    under_way: float = 0.0  # of the units begun, in units
    accepted: int = 0
    rejected: int = 0
    failed: int = 0
    spent_s: float = 0.0  # in earlier visits
    entered_s: float | None = None  # None while the stage is not running
    state: str = "waiting"  # waiting | running | done | stopped
    recent: deque[tuple[float, float]] = field(default_factory=deque)  # (when, reached), oldest first

    def enter(self, now_s: float) -> None:
        self.entered_s, self.state = now_s, "running"
        self.recent = deque([(now_s, self.reached)])

    def leave(self, now_s: float, state: str) -> None:
        self.spent_s, self.entered_s, self.state = self.elapsed_s(now_s), None, state

    def advance(self, now_s: float, count: int, under_way: float | None = None) -> None:
        """Count, and forget what is older than the window, yet keep a few events of a slow stage."""
        self.done += count
        self.under_way = self.under_way if under_way is None else under_way
        if self.reached <= self.recent[-1][1]:  # what was begun may begin anew
            return
        self.recent.append((now_s, self.reached))
        while len(self.recent) > _WINDOW_EVENTS and now_s - self.recent[0][0] > _WINDOW_S:
            self.recent.popleft()

    @property
    def reached(self) -> float:
        """Units done, parts of those under way included."""
        return self.done + self.under_way

    def elapsed_s(self, now_s: float) -> float:
        return self.spent_s + (now_s - self.entered_s if self.entered_s is not None else 0.0)

    def rate_per_s(self, now_s: float) -> float | None:
        """Units a second: over the recent window while running, over all its time afterwards."""
        if self.entered_s is None:
            return self.done / self.spent_s if self.done and self.spent_s > 0 else None
        (first_s, first_done), (last_s, last_done) = self.recent[0], self.recent[-1]
        return (last_done - first_done) / (last_s - first_s) if last_s > first_s else None

    def eta_s(self, now_s: float) -> float | None:
        """Seconds to go at the recent rate, less what has passed since the last unit came in."""
        rate = self.rate_per_s(now_s)
        if self.entered_s is None or self.total is None or not rate:
            return None
        return max((self.total - self.recent[-1][1]) / rate - (now_s - self.recent[-1][0]), 0.0)


class Progress:
    """Progress of a job whose stages run one after another.

    `stages` are all names in their order. Lines are written to `console` (standard error when absent) at
    every stage change and every `plain_every_s`; on a terminal a panel takes their place. `clock` is any
    monotonic clock in seconds. Usable from one thread; a background thread only redraws.
    """

    def __init__(
        self,
        stages: Sequence[str],
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        plain_every_s: float = 15.0,
    ) -> None:
        self._stages = {name: _Stage(name) for name in stages}
        self._console = console or Console(file=sys.stderr)
        self._clock = clock
        self._plain_every_s = plain_every_s
        self._started_s = self._last_line_s = clock()
        self._current: _Stage | None = None
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None
        self._live: Live | None = None

    def __enter__(self) -> "Progress":
        self._started_s = self._last_line_s = self._clock()
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(get_renderable=self.panel, console=self._console, refresh_per_second=2)
            self._live.start()
        else:
            self._ticker = threading.Thread(target=self._tick_until_stopped, name="progress", daemon=True)
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave("done" if kind is None else "stopped")
        self._stop.set()
        if self._ticker is not None:
            self._ticker.join()
        if self._live is not None:
            self._live.stop()

    @property
    def seconds_by_stage(self) -> dict[str, float]:
        """Time spent in each stage entered so far, in seconds, the running one included."""
        with self._lock:
            now_s = self._clock()
            entered = [stage for stage in self._stages.values() if stage.state != "waiting"]
            return {stage.name: stage.elapsed_s(now_s) for stage in entered}

    def stage(self, name: str, total: int | None = None) -> None:
        """End the running stage and enter `name`, which has `total` units (None: not known).

        For the stage already running only the total changes. A stage entered again goes on counting.
        """
        if name not in self._stages:
            raise ValueError(f"progress: no stage is called {name!r}; {nearest(name, self._stages)}")
        with self._lock:
            stage = self._stages[name]
            stage.total = total
            if stage is self._current:
                return
            self._leave("done")
            self._current = stage
            stage.enter(self._clock())
            self._write_line()

    def advance(self, count: int = 1, *, accepted: int = 0, rejected: int = 0, failed: int = 0) -> None:
        """Count `count` finished units of the running stage, and what came of them."""
        with self._lock:
            stage = self._current
            if stage is None:
                raise ValueError("progress: advance() before any stage(); enter a stage first")
            stage.advance(self._clock(), count)
            stage.accepted += accepted
            stage.rejected += rejected
            stage.failed += failed
            self.tick()

    def under_way(self, units: float) -> None:
        """So much is done of the units of the running stage that are not finished, in units."""
        with self._lock:
            if self._current is not None:
                self._current.advance(self._clock(), 0, units)

    def say(self, text: str) -> None:
        """Print a line of its own, above the panel."""
        # Without our lock: the panel's thread takes the console's lock first and ours second.
        now = _hms(self._clock() - self._started_s)
        self._console.print(f"{now} {escape(text)}", highlight=False, soft_wrap=True)

    def tick(self) -> None:
        """Write a plain line if the last one is old enough; nothing on a terminal."""
        with self._lock:
            if self._current is not None and self._clock() - self._last_line_s >= self._plain_every_s:
                self._write_line()

    def panel(self) -> RenderableType:
        """The panel as it would be drawn now."""
        with self._lock:
            now_s = self._clock()
            table = Table(box=None, padding=(0, 1), header_style="dim", expand=True)
            for title in ("", "stage"):
                table.add_column(title, no_wrap=True)
            table.add_column("", ratio=1, min_width=8)
            for title in ("done", "rate", "accepted", "rejected", "failed", "time", "left"):
                table.add_column(title, justify="right", no_wrap=True)
            for stage in self._stages.values():
                table.add_row(*_row(stage, now_s), style="dim" if stage.state == "waiting" else "")
            elapsed = Text(f"running for {_hms(now_s - self._started_s)}", style="dim")
            return Panel(Group(table, elapsed), title=_TITLE, border_style="cyan", title_align="left")

    def _leave(self, state: str) -> None:
        with self._lock:
            if self._current is not None:
                self._current.leave(self._clock(), state)
                self._write_line()
                self._current = None

    def _write_line(self) -> None:
        if self._live is not None or self._current is None:
            return
        now_s = self._last_line_s = self._clock()
        line = f"{_hms(now_s - self._started_s)} {_line(self._current, now_s)}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _tick_until_stopped(self) -> None:
        while not self._stop.wait(self._plain_every_s):
            self.tick()


def _line(stage: _Stage, now_s: float) -> str:
    if stage.total:
        progress = f"{stage.done}/{stage.total} {int(100 * stage.reached / stage.total)}%"
    else:
        progress = f"{stage.done}/{'?' if stage.total is None else stage.total}"
    counts = f"accepted={stage.accepted} rejected={stage.rejected} failed={stage.failed}"
    line = f"{stage.name} {progress} rate={_rate(stage.rate_per_s(now_s))} {counts}"
    if stage.state == "running":
        eta_s = stage.eta_s(now_s)
        return f"{line} eta={_hms(eta_s) if eta_s is not None else '?'}"
    return f"{line} {stage.state} seconds={stage.elapsed_s(now_s):.1f}"


_MARKS = {
    "waiting": Text("-"),
    "running": Text(">", style="bold cyan"),
    "done": Text("+", style="green"),
    "stopped": Text("x", style="bold red"),
}


def _row(stage: _Stage, now_s: float) -> list[RenderableType]:
    bar = ProgressBar(
        total=stage.total if stage.total else 1,
        completed=stage.reached if stage.total else float(stage.state == "done"),
        pulse=stage.state == "running" and stage.total is None,
        animation_time=now_s,
    )
    if stage.state == "waiting":
        return [_MARKS["waiting"], stage.name, bar]
    eta_s = stage.eta_s(now_s)
    return [
        _MARKS[stage.state],
        Text(stage.name, style="bold" if stage.state == "running" else ""),
        bar,
        f"{stage.done}/{stage.total}" if stage.total is not None else str(stage.done),
        _rate(stage.rate_per_s(now_s)),
        Text(str(stage.accepted), style="green") if stage.accepted else "",
        Text(str(stage.rejected), style="yellow") if stage.rejected else "",
        Text(str(stage.failed), style="bold red") if stage.failed else "",
        _hms(stage.elapsed_s(now_s)),
        _hms(eta_s) if eta_s is not None else "",
    ]


def _rate(rate_per_s: float | None) -> str:
    """Per second, minute or hour, whichever reads as a number of at least 1."""
    if rate_per_s is None:
        return "?"
    for factor, unit in ((1, "s"), (60, "min"), (3600, "h")):
        if rate_per_s * factor >= 1 or unit == "h":
            break
    return f"{rate_per_s * factor:.1f}/{unit}"


def _hms(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}"
