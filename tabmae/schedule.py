"""How fast a run learns, how fast its averaged weights follow, and when its errors say that it is over.

Contract: positions count steps from 0 and may be fractions; a run that leaves steps out jumps over them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

WARM_UP = 0.05
AVERAGED_SPANS = 6.0
"""The averaged weights span a sixth of the run."""


def share_of_lr(position: float, n_steps: int) -> float:
    """Linear warm-up, then a cosine down to nothing.

    >>> [round(share_of_lr(position, 100), 2) for position in (0, 4, 52.5, 100)]
    [0.2, 1.0, 0.5, 0.0]
    """
    warm_up = max(1, round(WARM_UP * n_steps))
    if position < warm_up:
        return min(1.0, (position + 1) / warm_up)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (position - warm_up) / max(1, n_steps - warm_up))))


def share_averaged(covered: float, n_steps: int) -> float:
    """How far the averaged weights move to the present ones after a step that covers so many of the run.

    >>> share_averaged(1, 600), share_averaged(10, 600), share_averaged(1, 5)
    (0.01, 0.1, 0.5)
    """
    spans = AVERAGED_SPANS * covered
    return spans / max(2 * spans, n_steps)


def rises(history: Sequence[dict[str, float]], most: float) -> bool:
    """Whether the last two held-out errors are each worse than the best by more than a share, the second more so.

    >>> rises([{"held_out_error": error} for error in (3.0, 2.0, 2.1, 2.2)], most=0.04)
    True
    """
    errors = [record["held_out_error"] for record in history]
    if len(errors) < 3:
        return False
    bound = min(errors) + most * abs(min(errors))
    return bound < errors[-2] < errors[-1]
