"""Small fits run on one thread of OpenMP, forests on all, and nothing of it is left behind."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import ExtraTreesRegressor

from tabmae import TabMAE
from tabmae.estimators import base
from tabmae.experts import trees
from tabmae.optimizer import AdamW
from tabmae.threads import n_threads, threads_if


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_a_limit_holds_inside_and_is_gone_after_it() -> None:
    with threads_if(False):
        assert torch.get_num_threads() == 1 and n_threads() == 3
        with threads_if(False):
            assert torch.get_num_threads() == 1 and n_threads() == 3
        with threads_if(True):
            assert torch.get_num_threads() == n_threads() == 3, "what pays inside a limit has all threads"
        assert torch.get_num_threads() == 1 and n_threads() == 3
    assert torch.get_num_threads() == n_threads() == 3
    with threads_if(True):
        assert torch.get_num_threads() == n_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_an_error_ends_a_limit_too() -> None:
    with pytest.raises(KeyError), threads_if(False):
        raise KeyError
    assert torch.get_num_threads() == n_threads() == 3


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize(("least_width", "n_training"), [(13, 1), (12, 3)])
def test_a_narrow_network_trains_on_one_thread_and_forests_grow_on_all(
    least_width: int, n_training: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[Any]] = {"training": set(), "forests": set()}
    step = AdamW.step

    def watched_step(*given: Any) -> None:
        seen["training"].add(torch.get_num_threads())
        step(*given)

    def watched_grow(**given: Any) -> Any:
        seen["forests"].add(given["n_jobs"])
        return ExtraTreesRegressor(**given)

    monkeypatch.setattr(base, "MIN_WIDTH_OF_THREADS", least_width)
    monkeypatch.setattr(AdamW, "step", watched_step)
    monkeypatch.setattr(trees, "ExtraTreesRegressor", watched_grow)
    rows = np.random.default_rng(0).normal(size=(60, 1)) + np.random.default_rng(1).normal(size=(60, 3))
    TabMAE(d_token=4, max_epochs=1, random_state=0).fit(pd.DataFrame(rows, columns=list("abc")))
    assert seen == {"training": {n_training}, "forests": {3}}
    assert torch.get_num_threads() == 3
