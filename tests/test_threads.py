"""Small fits run on one thread of OpenMP, forests on all, and nothing of it is left behind."""

from collections.abc import Iterator
from threading import Barrier, get_ident
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import ExtraTreesRegressor

from tabmae import TabMAE
from tabmae.estimators import base, validation
from tabmae.experts import trees
from tabmae.model import MaskedAutoencoder
from tabmae.optimizer import AdamW
from tabmae.threads import n_threads, shared_out, threads_if


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


@pytest.mark.usefixtures("three_threads")
def test_parts_are_shared_out_among_threads_that_work_alone() -> None:
    at_work = Barrier(3, timeout=60)

    def work(number: int) -> tuple[int, int, int]:
        at_work.wait()  # only where three are at work at once does any go on
        return number, torch.get_num_threads(), n_threads()

    with threads_if(False):
        assert shared_out(work, range(6)) == [(number, 1, 1) for number in range(6)]
        assert torch.get_num_threads() == 1 and n_threads() == 3
    assert shared_out(work, range(3)) == [(number, 1, 1) for number in range(3)]
    assert torch.get_num_threads() == n_threads() == 3
    assert shared_out(lambda number, other: number * other, [4], [5]) == [20]
    with pytest.raises(ZeroDivisionError):
        shared_out(lambda number: 1 / number, range(2))


@pytest.mark.usefixtures("three_threads")
def test_rows_are_shared_out_and_answered_as_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    factor = np.random.default_rng(0).normal(size=(150, 1))
    rows = pd.DataFrame(factor + np.random.default_rng(1).normal(size=(150, 3)), columns=list("abc"))
    holes = rows.mask(np.random.default_rng(2).random(rows.shape) < 0.3)
    model = TabMAE(d_token=4, max_epochs=1, random_state=0).fit(holes)
    monkeypatch.setattr(validation, "ROWS_OF_THREAD", 10)
    seen, begin = set(), MaskedAutoencoder.begin

    def watched(*given: Any, **named: Any) -> Any:
        seen.add((get_ident(), torch.get_num_threads(), torch.is_grad_enabled()))
        return begin(*given, **named)

    monkeypatch.setattr(MaskedAutoencoder, "begin", watched)
    shared = model.transform(holes)
    assert len({thread for thread, *_ in seen}) > 1 and {(number, grad) for _, number, grad in seen} == {(1, False)}
    drawn = model.sample(holes, 2, random_state=0)
    torch.set_num_threads(1)
    pd.testing.assert_frame_equal(model.transform(holes), shared, rtol=1e-12)
    for one, other in zip(model.sample(holes, 2, random_state=0), drawn, strict=True):
        pd.testing.assert_frame_equal(one, other, rtol=1e-9)
