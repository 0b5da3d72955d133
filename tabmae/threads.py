"""How many threads compute: one where several would wait for each other longer than they save.

Contract: what holds outside a limit holds again after it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from threadpoolctl import threadpool_limits

_outside: ContextVar[int] = ContextVar("threads outside of a limit", default=0)


@contextmanager
def threads_if(pays: bool) -> Iterator[None]:
    """Leave OpenMP all threads where they pay, and one otherwise.

    Threads spin while they wait: beside another busy program a small fit took five times as long on two cores, where
    the second one saves a fifth of it on quiet ones.
    """
    if pays:
        with threadpool_limits(_outside.get() or None, user_api="openmp"):
            yield
        return
    token = _outside.set(n_threads())
    try:
        with threadpool_limits(1, user_api="openmp"):
            yield
    finally:
        _outside.reset(token)


def n_threads() -> int:
    """Threads for work that is shared out in large parts, which none has to wait for: as many as outside of a limit."""
    return _outside.get() or torch.get_num_threads()
