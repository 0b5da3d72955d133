"""Small generated tables, and a model fitted to one of them, that the tests of the estimators share."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tables: more threads do little but wait for each other

import numpy as np
import pandas as pd
import pytest
import torch

from tabmae.estimators import growing
from tabmae.estimators.series import bridging
from tabmae.estimators.table import TabMAE
from tabmae.experts import direct, structural

N_ROWS = 80


@pytest.fixture(autouse=True)
def threads_for_the_next() -> Iterator[None]:
    """Give the next test as many threads of torch as this one had: more of them take the time of other processes."""
    n_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def mixed() -> pd.DataFrame:
    """A table of every kind of column, all driven by one factor, with holes in each of them."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=N_ROWS)
    table = pd.DataFrame(
        {
            "x": 10 + 3 * factor + rng.normal(size=N_ROWS),
            "weight": (5 - 2 * factor + rng.normal(size=N_ROWS)).astype(np.float32),
            "n": pd.array(np.round(7 * factor).astype(int), dtype="Int64"),
            "steps": np.round(4 * factor),
            "city": np.where(factor > 0.5, "Oslo", np.where(factor > -0.5, "Rome", "Bonn")),
            "flag": pd.array(factor > 0, dtype="boolean"),
            "size": pd.Categorical(np.where(factor > 0.2, "L", "S"), categories=["S", "M", "L"], ordered=True),
            "day": pd.Timestamp("2024-03-01") + pd.to_timedelta(np.round(20 * factor), unit="D"),
        },
        index=pd.Index([f"r{row}" for row in range(N_ROWS)], name="key"),
    )
    return table.mask(rng.random(table.shape) < 0.2)


@pytest.fixture(scope="session")
def model(mixed: pd.DataFrame) -> TabMAE:
    """A model of `mixed`; nothing may change it."""
    return TabMAE(max_epochs=5, d_token=4, random_state=0).fit(mixed)


@pytest.fixture
def direct_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let columns of few cells have direct trees, too, of few rounds."""
    monkeypatch.setattr(growing, "MIN_DIRECT_CELLS", 20)
    monkeypatch.setattr(direct, "N_ROUNDS", 10)


@pytest.fixture(scope="module")
def few_structures() -> Iterator[None]:
    """Let four structures be asked of the last 100 steps of series: they take most of a fit that is not about them.

    It holds for the fixtures of a module, too.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structural, "MOST_KEPT", 4)
        patch.setattr(structural, "MOST_STEPS", 100)
        yield


@pytest.fixture(scope="module")
def no_bridges() -> Iterator[None]:
    """Hide no runs of series to learn bridges across gaps from: they take much of a fit that is not about gaps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bridging, "LEAST_RUNS", 10**9)
        yield


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows that a benchmark writes on the `data` of a module of tests, by the module's `run(data, out)`."""
    out = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    request.module.run(data, out)
    return out
