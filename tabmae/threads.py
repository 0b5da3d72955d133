"""How many threads compute: one where several would wait for each other longer than they save.

Contract: what holds outside a limit holds again after it.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits

Answer = TypeVar("Answer")
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


def shared_out(work: Callable[..., Answer], *parts: Sequence[Any]) -> list[Answer]:
    """What `work` says of each of the parts, in their order; as many are worked on at once as there are threads.

    Each is worked on by one thread alone: threads of its own would spin beside those of the others.
    """
    n_workers = min(n_threads(), len(parts[0]))
    if n_workers <= 1:
        return list(map(work, *parts))
    with ThreadPoolExecutor(n_workers, initializer=_alone) as pool:
        return list(pool.map(work, *parts))


def _alone() -> None:
    """Leave OpenMP one thread in this one, until it ends."""
    torch.get_num_threads()  # the first question that a thread asks of torch gives it all, whatever was set before
    threadpool_limits(1, user_api="openmp")
