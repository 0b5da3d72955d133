"""torch's global generators are lent to one thread at a time, and come back as they were."""

import threading

import pytest
import torch
from generated import correlated, with_holes
from torch import Tensor

from tabmae import TabMAE
from tabmae.generators import CPU, generators_kept, seed_generators


def test_what_is_drawn_leaves_the_generators_as_they_were() -> None:
    before = torch.get_rng_state()
    with generators_kept(), generators_kept():
        seed_generators(CPU, 3)
        drawn = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    with generators_kept():
        seed_generators(CPU, 3)
        assert torch.equal(torch.rand(4), drawn)


@pytest.mark.parametrize("backbone", ["mlp", "transformer"])
def test_fits_in_several_threads_give_the_weights_of_each_alone(backbone: str) -> None:
    table, found = with_holes(correlated(80)), {}
    before = torch.get_rng_state()

    def fit(seed: int) -> dict[str, Tensor]:
        model = TabMAE(max_epochs=6, d_token=4, backbone=backbone, experts=("gaussian",), random_state=seed)
        return dict(model.fit(table).model_.state_dict())

    def keep(seed: int) -> None:
        found[seed] = fit(seed)

    threads = [threading.Thread(target=keep, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(torch.get_rng_state(), before)
    for seed, weights in found.items():
        alone = fit(seed)
        assert all(torch.equal(alone[name], weight) for name, weight in weights.items())
