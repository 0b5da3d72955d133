"""Training of `TimeSeriesMAE` ends early where the network adds nothing to the experts, and only there."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tabmae import TimeSeriesMAE
from tabmae.estimators.series.fitting import HOPE

N_EPOCHS = 6


def linear(n_steps: int = 600) -> NDArray[np.float64]:
    """Draw an autoregression (1, T, 1), of which a Gaussian knows all there is to know."""
    noise = np.random.default_rng(2).normal(size=n_steps)
    walk = np.zeros(n_steps)
    for step in range(1, n_steps):
        walk[step] = 0.9 * walk[step - 1] + noise[step]
    return walk[None, :, None]


def epochs_of(values: NDArray[np.float64], **parameters: Any) -> int:
    given = {"horizon": 12, "window": 24, "max_epochs": N_EPOCHS, "d_token": 8, "random_state": 0, **parameters}
    return TimeSeriesMAE(**given).fit(values).n_iter_


def test_training_ends_a_third_through_where_the_network_adds_nothing() -> None:
    assert epochs_of(linear()) == HOPE * N_EPOCHS


@pytest.mark.parametrize(
    ("values", "parameters"),
    [
        (np.concatenate([linear(), linear() ** 2], -1), {}),
        (linear(), {"patience": N_EPOCHS}),
        (linear(), {"experts": ()}),
    ],
    ids=["a square that no Gaussian knows", "a patience that was asked for", "no experts to fall back on"],
)
def test_training_goes_on_otherwise(values: NDArray[np.float64], parameters: dict[str, Any]) -> None:
    assert epochs_of(values, **parameters) == N_EPOCHS


def test_callbacks_of_the_user_still_end_training() -> None:
    assert epochs_of(linear(), callbacks=[lambda record: True]) == 1
