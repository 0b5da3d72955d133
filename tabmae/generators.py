"""torch's global generators, which first weights and dropout draw from: seeded for a while, and left as they were.

Contract: one thread at a time has them, so that fits in several threads draw what each draws alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

CPU = torch.device("cpu")
_turn = threading.RLock()


def _new_turn() -> None:
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):  # a child must not wait for a thread that it has not
    os.register_at_fork(after_in_child=_new_turn)


@contextmanager
def generators_kept(device: torch.device = CPU) -> Iterator[None]:
    """Leave torch's global generators, of the CPU and of a GPU that is named, as they were; no other GPU is woken."""
    with _turn, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed torch's global generators, of the CPU and of a GPU that is named."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
