"""Progress of a long preparation as plain lines, with the rate and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable

LINE_SECONDS = 5.0  # least time between two lines of progress ...
LINE_SHARE = 0.05  # ... or this share of the whole time, up to
LINE_MOST_SECONDS = 60.0


class Progress:
    """Counts clips and writes a line now and then, with the rate and the time left."""

    def __init__(
        self,
        name: str,
        total: int,
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock.

        Args:
            name: what is counted, the first word of a line.
            total: how many there are.
            log: receives the lines.
            clock: seconds.
        """
        self._name, self._total, self._log, self._clock = name, total, log, clock
        self._done = self._rejected = 0
        self._start = self._last = clock()

    def step(self, *, rejected: bool) -> None:
        """Count one clip."""
        self._done += 1
        self._rejected += rejected
        now = self._clock()
        rate = self._done / max(now - self._start, 1e-6)
        left = (self._total - self._done) / rate
        pause = min(max(LINE_SECONDS, LINE_SHARE * self._total / rate), LINE_MOST_SECONDS)
        if now - self._last >= pause or self._done == self._total:
            self._last = now
            self._log(
                f"{self._name}: {self._done} of {self._total} clips, {rate:.1f} a second, "
                f"{clock_text(left)} left, {self._rejected} rejected"
            )


def clock_text(seconds: float) -> str:
    """Write seconds as minutes and seconds, or hours too."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
