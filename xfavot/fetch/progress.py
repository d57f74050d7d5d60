"""Progress of long transfers as plain lines: bytes, share, rate and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable

Log = Callable[[str], None]
LINE_SECONDS = 5.0  # least time between two lines ...
LINE_SHARE = 0.05  # ... or this share of the whole time, up to
LINE_MOST_SECONDS = 60.0
UNITS = ("bytes", "kB", "MB", "GB", "TB")


class Meter:
    """Writes a line now and then while bytes come in.

    Args:
        name: the first words of a line.
        log: receives the lines.
        total: bytes at the end; 0 if unknown.
        done: bytes that were there before, which do not count for the rate.
        clock: seconds.
    """

    def __init__(
        self,
        name: str,
        log: Log,
        *,
        total: int = 0,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock; see the class."""
        self._name, self._log, self._clock = name, log, clock
        self._total, self._before, self._done = total, done, done
        self._start = self._last = clock()

    def add(self, count: int) -> None:
        """Count bytes."""
        self._done += count
        now = self._clock()
        elapsed = max(now - self._start, 1e-6)
        rate = (self._done - self._before) / elapsed  # bytes a second
        whole = self._total / rate if self._total and rate else elapsed
        if now - self._last < min(max(LINE_SECONDS, LINE_SHARE * whole), LINE_MOST_SECONDS):
            return
        self._last = now
        line = f"{self._name}: {size_text(self._done)}"
        if self._total:
            line += f" of {size_text(self._total)} ({self._done / self._total:.0%})"
        line += f", {size_text(rate)} a second"
        if self._total and rate:
            line += f", {clock_text((self._total - self._done) / rate)} left"
        self._log(line)


def size_text(count: float) -> str:
    """Write a number of bytes with three digits and a decimal unit."""
    step = 0
    while count >= 999.5 and step < len(UNITS) - 1:
        count, step = count / 1000, step + 1
    return (
        f"{count:.0f} {UNITS[step]}" if step == 0 or count >= 100 else f"{count:.3g} {UNITS[step]}"
    )


def clock_text(seconds: float) -> str:
    """Write seconds as minutes and seconds, or hours too."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
