"""Checkpoints: a resumed run equals an uninterrupted one, and what is damaged or of another run is refused."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from runs import QUICK, Outcome, Setting, StopError, raise_it, stopping_at, table
from safetensors.torch import save_file
from torch import Tensor

from tabmae.errors import TrainingError
from tabmae.masks import bernoulli, block, checked_mask
from tabmae.training import N_CHECKS


@pytest.fixture(scope="module")
def whole() -> Outcome:
    """An uninterrupted run; nothing may change it."""
    return Setting().run()


@pytest.mark.parametrize("check", [1, 2, 8, N_CHECKS])
@pytest.mark.parametrize("by", ["error", "True", "interrupt"])
def test_a_resumed_run_equals_an_uninterrupted_one(whole: Outcome, tmp_path: Path, check: int, by: str) -> None:
    file = tmp_path / "run.safetensors"
    if by == "error":
        with pytest.raises(StopError):
            Setting().run(stopping_at(check, raise_it(StopError)), checkpoint=file)
    elif by == "interrupt":
        with pytest.warns(UserWarning, match="Training was interrupted"):
            Setting().run(stopping_at(check, raise_it(KeyboardInterrupt)), checkpoint=file)
    else:
        Setting().run(stopping_at(check, lambda: True), checkpoint=str(file))
    records: list[dict[str, float]] = []
    resumed = Setting().run(records.append, checkpoint=str(file))
    assert resumed.same_weights(whole)
    assert resumed.history == whole.history
    assert records == whole.history[check:]
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("setting", [Setting(with_expert=False), Setting(with_held_out=False), Setting(loss="nll")])
def test_runs_of_other_kinds_resume_too(tmp_path: Path, setting: Setting) -> None:
    for check in (3, 9):
        setting.run(stopping_at(check, lambda: True), checkpoint=tmp_path / "run")
    assert setting.run(checkpoint=tmp_path / "run").same_weights(setting.run())


def test_a_run_killed_within_a_round_resumes_from_the_last_check(whole: Outcome, tmp_path: Path) -> None:
    calls: list[int] = []

    def killed(observed: Tensor, mask_ratio: Tensor, generator: torch.Generator) -> Tensor:
        calls.append(1)
        if len(calls) == 17:
            raise StopError
        return bernoulli(observed, mask_ratio, generator)

    killed.__qualname__ = bernoulli.__qualname__
    with pytest.raises(StopError):
        Setting(plan=replace(QUICK, mask=killed)).run(checkpoint=tmp_path / "run")
    assert Setting().run(checkpoint=tmp_path / "run").same_weights(whole)


def weights_of(row: int) -> Tensor:
    return (torch.arange(75) != row).float()


def changed_at(tensor: Tensor, row: int, value: float) -> Tensor:
    tensor = tensor.clone()
    tensor[row] = value
    return tensor


OTHER_RUNS = {
    "seed": Setting(seed=1),
    "first weights": Setting(first_weights=1),
    "values": Setting(values=changed_at(table()[0], 7, 0.5)),
    "observed": Setting(observed=changed_at(table()[1], 7, False)),
    "sample weight": Setting(sample_weight=weights_of(3)),
    "no held-out cells": Setting(with_held_out=False),
    "dropout": Setting(dropout=0.2),
    "loss": Setting(loss="mae"),
    "width": Setting(d_token=8),
    "no expert": Setting(with_expert=False),
    "mask": Setting(plan=replace(QUICK, mask=block)),
    "shape of mask": Setting(plan=replace(QUICK, mask=partial(block, feature_shape=(2, 2)))),
    "mask from outside": Setting(plan=replace(QUICK, mask=partial(checked_mask, bernoulli))),
    "mask ratio": Setting(plan=replace(QUICK, mask_ratio=0.5)),
    "visible weight": Setting(plan=replace(QUICK, visible_weight=0.5)),
    "epochs": Setting(plan=replace(QUICK, max_epochs=30)),
    "patience": Setting(plan=replace(QUICK, patience=3)),
    "batch size": Setting(plan=replace(QUICK, batch_size=26)),
    "learning rate": Setting(plan=replace(QUICK, lr=1e-3)),
    "weight decay": Setting(plan=replace(QUICK, weight_decay=0.1)),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a run stopped at its second check leaves."""
    file = tmp_path_factory.mktemp("run") / "run"
    Setting().run(stopping_at(2, lambda: True), checkpoint=file)
    return file.read_bytes()


@pytest.mark.parametrize("other", OTHER_RUNS)
def test_a_checkpoint_of_another_run_is_refused_and_kept(checkpoint: bytes, tmp_path: Path, other: str) -> None:
    file = tmp_path / "run"
    file.write_bytes(checkpoint)
    with pytest.raises(
        TrainingError, match=r"`checkpoint` must be of the same data, parameters and seed; .* Delete it"
    ):
        OTHER_RUNS[other].run(checkpoint=file)
    assert file.read_bytes() == checkpoint


def damaged(content: bytes, position: float) -> bytes:
    at = int(position * (len(content) - 1))
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "text": lambda content: b"no checkpoint at all",
    "truncated": lambda content: content[:-1],
    "half": lambda content: content[: len(content) // 2],
    "longer": lambda content: content + b"0",
    **{f"bit at {at}": partial(damaged, position=at) for at in (0.0, 0.02, 0.3, 0.6, 0.9, 1.0)},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused(checkpoint: bytes, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "run"
    file.write_bytes(DAMAGES[damage](checkpoint))
    with pytest.raises(TrainingError, match="`checkpoint` must be a file written in training; .* Delete it"):
        Setting().run(checkpoint=file)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    save_file({"generator": torch.zeros(3)}, tmp_path / "other")
    for path in (tmp_path / "other", tmp_path):
        with pytest.raises(TrainingError, match="`checkpoint` must be a file written in training"):
            Setting().run(checkpoint=path)


def test_a_folder_that_is_not_there_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="`checkpoint` must lie in a folder that exists"):
        Setting().run(stopping_at(1, raise_it(StopError)), checkpoint=tmp_path / "no" / "run")
