"""The end of a fit on the clock.

Contract: a deadline without seconds never comes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic


class Deadline:
    """A moment so many seconds after this one.

    Parameters
    ----------
    seconds : until it comes, from now on; None for never.
    clock : gives seconds since any moment.

    >>> Deadline(60.0, clock=lambda: 0.0).part(0.5).left()
    30.0
    """

    def __init__(self, seconds: float | None = None, clock: Callable[[], float] = monotonic) -> None:
        self.seconds = math.inf if seconds is None else float(seconds)
        self._clock, self._start = clock, clock()

    @property
    def exists(self) -> bool:
        """Whether it ever comes."""
        return self.seconds < math.inf

    @property
    def passed(self) -> bool:
        return self.left() <= 0

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    def left(self) -> float:
        """Seconds until it comes, negative once it has passed; infinity where it never comes."""
        return self.seconds - self.elapsed()

    def spent(self) -> float:
        """Share of the seconds that is gone, 1 at most; 0 where it never comes."""
        return min(1.0, self.elapsed() / self.seconds) if self.seconds > 0 else 1.0

    def part(self, share: float) -> Deadline:
        """A deadline after a share of the seconds left, which starts now."""
        return Deadline(share * self.left(), self._clock)

    def before(self, seconds: float) -> Deadline:
        """A deadline that comes so many seconds earlier and starts now."""
        return Deadline(self.left() - seconds, self._clock)


NEVER = Deadline()
