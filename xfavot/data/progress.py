"""Progress of a long preparation as plain lines, with the rate and the time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from xfavot.fetch.progress import clock_text

LINE_SECONDS = 5.0  # least time between two lines of progress ...
LINE_SHARE = 0.05  # ... or this share of the time left, up to
LINE_MOST_SECONDS = 60.0
FIRST_LINES = 3  # come after the least time
RATE_LINES = 10  # the rate is that since the tenth line before


class Progress:
    """Counts clips and writes a line now and then, with the rate and the time left.

    The rate is that of late, and counts from the first clip on: neither the start of the workers
    nor clips of an earlier run blur it.
    """

    def __init__(
        self,
        name: str,
        total: int,
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        before: int = 0,
    ) -> None:
        """Start the clock.

        Args:
            name: what is counted, the first word of a line.
            total: how many there are.
            log: receives the lines.
            clock: seconds.
            before: how many of them were finished in an earlier run.
        """
        self._name, self._total, self._log, self._clock = name, total, log, clock
        self._done, self._rejected = before, 0
        self._marks: deque[tuple[float, int]] = deque(maxlen=RATE_LINES)  # seconds, clips done
        self._last = clock()

    def step(self, *, rejected: bool) -> None:
        """Count one clip."""
        self._done += 1
        self._rejected += rejected
        now = self._clock()
        if not self._marks:
            self._marks.append((now, self._done))
        since, done = self._marks[0]
        rate = (self._done - done) / max(now - since, 1e-6)
        left = (self._total - self._done) / rate if rate else 0.0
        share = LINE_SHARE if len(self._marks) > FIRST_LINES else 0.0
        pause = min(max(LINE_SECONDS, share * left), LINE_MOST_SECONDS)
        if now - self._last < pause and self._done < self._total:
            return
        self._last = now
        self._marks.append((now, self._done))
        pace = f"{rate:.1f} a second, {clock_text(left)} left, " if rate else ""
        self._log(
            f"{self._name}: {self._done} of {self._total} clips, {pace}{self._rejected} rejected"
        )
