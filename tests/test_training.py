"""The training loop: repeatable to the bit, blind to held-out cells, stopped when and as asked."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import QUICK, Outcome, Setting, StopError, held_out_of, raise_it, seeded, stopping_at, table
from safetensors.torch import load_file
from torch import Tensor

from tabmae import held_out, training
from tabmae.backbones import build_backbone
from tabmae.errors import TrainingError
from tabmae.losses import masked_mean
from tabmae.masks import bernoulli
from tabmae.model import MaskedAutoencoder
from tabmae.tokenizers import CellDistribution, CellTokenizer
from tabmae.training import N_CHECKS, Plan, draw_held_out, train

JUNK = pytest.mark.parametrize("junk", [123.0, torch.nan, torch.inf])


@pytest.fixture(scope="module")
def whole() -> Outcome:
    """An uninterrupted run; nothing may change it."""
    return Setting().run()


def test_the_same_seed_gives_the_same_weights_and_another_one_others(whole: Outcome) -> None:
    again = Setting().run()
    assert again.same_weights(whole)
    assert again.history == whole.history
    assert not Setting(seed=1).run().same_weights(whole)


def test_the_global_generator_is_neither_read_nor_moved(whole: Outcome) -> None:
    torch.manual_seed(12345)
    state = torch.get_rng_state()
    assert Setting().run().same_weights(whole)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(StopError):
        Setting().run(stopping_at(2, raise_it(StopError)))
    assert torch.equal(torch.get_rng_state(), state)


def trained_weights(file: Path) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in load_file(file).items() if not name.startswith("best.")}


@JUNK
def test_held_out_cells_are_never_trained_on(whole: Outcome, tmp_path: Path, junk: float) -> None:
    values, observed = table()
    other = Setting(values=torch.where(held_out_of(observed), junk, values))
    one = Setting(plan=replace(QUICK, patience=1000)), replace(other, plan=replace(QUICK, patience=1000))
    for name, setting in zip("ab", one, strict=True):
        setting.run(checkpoint=tmp_path / name)
    left, right = trained_weights(tmp_path / "a"), trained_weights(tmp_path / "b")
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@JUNK
def test_cells_that_are_not_observed_are_never_read(whole: Outcome, junk: float) -> None:
    values, observed = table()
    same = Setting(values=torch.where(observed, values, junk)).run()
    assert same.same_weights(whole)
    assert same.history == whole.history


def test_held_out_cells_choose_the_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = iter([0.9, 0.7, 0.4, 0.5, 0.41, *[0.6] * 10])
    monkeypatch.setattr(held_out.HeldOut, "error", lambda check, model: next(errors))
    chosen = Setting().run()
    assert len(chosen.history) == N_CHECKS
    errors = iter([0.9, 0.7, 0.4])
    assert chosen.same_weights(Setting().run(stopping_at(3, lambda: True)))


def test_the_held_out_error_is_that_of_the_averaged_weights(tmp_path: Path) -> None:
    setting = Setting()
    outcome = setting.run(stopping_at(1, lambda: True))
    held_out = held_out_of(setting.observed)
    with torch.no_grad():
        distribution = outcome.model(setting.values, setting.observed & ~held_out)
        errors = outcome.model.tokenizer.errors(distribution, setting.values)
    assert outcome.history[0]["held_out_error"] == pytest.approx(float(errors[held_out].mean()), rel=1e-4)


def test_without_held_out_cells_the_last_averaged_weights_stay(tmp_path: Path) -> None:
    outcome = Setting(with_held_out=False).run(checkpoint=tmp_path / "run")
    assert all(math.isnan(record["held_out_error"]) for record in outcome.history)
    averaged = load_file(tmp_path / "run")
    for name, tensor in outcome.model.state_dict().items():
        assert torch.equal(tensor, averaged[f"averaged.{name}"]), name


def test_callbacks_get_every_record() -> None:
    records: list[dict[str, float]] = []
    outcome = Setting().run(records.append)
    assert records == outcome.history
    assert [record["epoch"] for record in records] == list(range(1, N_CHECKS + 1))
    assert all(record.keys() == {"epoch", "error", "held_out_error"} for record in records)
    assert json.loads(json.dumps(records)) == records


@pytest.mark.parametrize(("max_epochs", "epochs"), [(1, [1]), (4, [1, 2, 3, 4]), (31, [*range(3, 31, 3), 31])])
def test_the_last_round_ends_with_the_last_epoch(max_epochs: int, epochs: list[int]) -> None:
    history = Setting(plan=replace(QUICK, max_epochs=max_epochs)).run().history
    assert [record["epoch"] for record in history] == epochs


def test_a_callback_that_returns_true_stops_after_all_were_called() -> None:
    later: list[dict[str, float]] = []
    outcome = Setting().run(stopping_at(4, lambda: True), later.append, stopping_at(1, lambda: "no"))
    assert len(outcome.history) == len(later) == 4
    assert not outcome.model.training


def test_an_interrupt_keeps_the_best_model_and_says_so() -> None:
    with pytest.warns(UserWarning, match="Training was interrupted after epoch 5 of 15; the best model so far is kept"):
        outcome = Setting().run(stopping_at(5, raise_it(KeyboardInterrupt)))
    assert outcome.same_weights(Setting().run(stopping_at(5, lambda: True)))
    assert len(outcome.history) == 5
    assert not outcome.model.training


def test_an_interrupt_before_the_first_check_is_passed_on() -> None:
    def interrupted(observed: Tensor, mask_ratio: Tensor, generator: torch.Generator) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Setting(plan=replace(QUICK, mask=interrupted)).run()


def test_a_loss_that_is_not_finite_is_an_error_with_epoch_and_remedy() -> None:
    with pytest.raises(
        TrainingError, match=r"must stay finite; it was nan at epoch 1 \(last finite loss: none\)\. Lower"
    ):
        Setting(plan=replace(QUICK, lr=1e30)).run()


def test_a_late_loss_that_is_not_finite_names_the_last_finite_one(tmp_path: Path) -> None:
    records: list[dict[str, float]] = []

    def spoiled(observed: Tensor, mask_ratio: Tensor, generator: torch.Generator) -> Tensor:
        if len(records) == 3:
            model.tokenizer.number_bias.data.fill_(torch.nan)
        return bernoulli(observed, mask_ratio, generator)

    setting = Setting(plan=replace(QUICK, mask=spoiled))
    model = setting.model()
    with pytest.raises(TrainingError, match="it was nan at epoch 4") as raised:
        train(model, *table(), setting.plan, seeded(), callbacks=[records.append], checkpoint=tmp_path / "run")
    assert f"last finite loss: {records[2]['error']}" in str(raised.value)
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "run").values() if tensor.is_floating_point())


@pytest.mark.parametrize(("patience", "n_checks"), [(1, 4), (2, 4), (4, 5), (5, 6), (100, N_CHECKS)])
def test_training_waits_for_a_better_error_as_many_epochs_as_patience_says(
    monkeypatch: pytest.MonkeyPatch, patience: int, n_checks: int
) -> None:
    errors = iter([0.9, 0.8, 0.7, *[0.7] * N_CHECKS])
    monkeypatch.setattr(held_out.HeldOut, "error", lambda check, model: next(errors))
    outcome = Setting(plan=replace(QUICK, max_epochs=2 * N_CHECKS, patience=patience)).run()
    assert len(outcome.history) == n_checks
    assert outcome.history[-1]["epoch"] == 2 * n_checks


@pytest.mark.parametrize(
    ("errors", "n_checks"),
    [
        ([0.9, 0.7, 0.72, 0.73], 4),
        ([0.9, 0.7, 0.72, 0.71, 0.72], 5),
        ([0.9, 0.7, 0.705, 0.706, 0.712, 0.713], 6),
        ([0.7, 0.8, 0.79, 0.78, 0.6], N_CHECKS),
    ],
)
def test_training_ends_once_the_held_out_error_goes_on_rising(
    monkeypatch: pytest.MonkeyPatch, errors: list[float], n_checks: int
) -> None:
    given = iter([*errors, *[min(errors)] * N_CHECKS])
    monkeypatch.setattr(held_out.HeldOut, "error", lambda check, model: next(given))
    plan = replace(QUICK, max_epochs=2 * N_CHECKS, most_rise=0.01)
    assert len(Setting(plan=plan).run().history) == n_checks


def test_rows_of_no_weight_teach_nothing() -> None:
    values, _ = table()
    setting = Setting(sample_weight=(torch.arange(75) % 3 > 0).float(), with_held_out=False)
    one = setting.run()
    junk = torch.where(torch.arange(75)[:, None] % 3 == 0, 1 - values, values)
    assert replace(setting, values=junk).run().same_weights(one)
    assert not replace(setting, values=junk, sample_weight=None).run().same_weights(one)
    with_held_out = replace(setting, with_held_out=True)
    assert replace(with_held_out, values=junk).run().history == with_held_out.run().history


def test_only_the_proportions_of_the_weights_matter(whole: Outcome) -> None:
    assert Setting(sample_weight=torch.full((75,), 4.0)).run().same_weights(whole)


def learner(values: Tensor, seed: int = 0) -> MaskedAutoencoder:
    """Give a pure masked autoencoder of numbers."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        n_columns = values.shape[1]
        tokenizer = CellTokenizer.fit(
            values, torch.ones_like(values, dtype=torch.bool), (0,) * n_columns, 8, with_guess=False
        )
        network = build_backbone("mlp", n_tokens=n_columns, d_token=8, depth=2, dropout=0.0)
    return MaskedAutoencoder(tokenizer, network)


LONGER = Plan(mask=bernoulli, mask_ratio=0.4, max_epochs=60, batch_size=50)


def test_training_lowers_the_error_and_beats_the_mean() -> None:
    values = table(300)[0][:, [0, 1, 3]]
    observed = torch.ones_like(values, dtype=torch.bool)
    observed[:200] = torch.rand(200, 3, generator=seeded(4)) < 0.9
    model = learner(values[:200])
    history = train(model, values[:200], observed[:200], LONGER, seeded())
    assert history[-1]["error"] < 0.5 * history[0]["error"]
    visible = torch.rand(100, 3, generator=seeded(5)) < 0.6
    fresh = values[200:]
    error = (model(fresh, visible).point() - fresh)[~visible].square().mean()
    assert error < 0.6 * fresh[~visible].square().mean()


def test_heavier_rows_are_followed() -> None:
    first = torch.randn(120, 1, generator=seeded())
    sign = torch.where(torch.arange(120) % 2 == 0, 1.0, -1.0)[:, None]
    values = torch.cat([first, sign * first], 1)
    visible = torch.tensor([[True, False]]).expand(120, -1)
    for favoured in (1.0, -1.0):
        weight = torch.where(sign[:, 0] == favoured, 1.0, 0.05)
        model = learner(values)
        train(model, values, torch.ones_like(values, dtype=torch.bool), LONGER, seeded(), sample_weight=weight)
        predicted = model(values, visible).point()[:, 1]
        assert favoured * (predicted * first[:, 0]).mean() > 0.4


def test_held_out_rows_are_predicted_in_parts_that_are_small_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, asked = Setting().run(), []
    network = MaskedAutoencoder.network

    def spied(model: MaskedAutoencoder, values: Tensor, *given: Any) -> CellDistribution:
        asked.append((model.training, len(values)))
        return network(model, values, *given)

    monkeypatch.setattr(held_out, "MAX_CELLS", 10 * table()[0].shape[1])
    monkeypatch.setattr(MaskedAutoencoder, "network", spied)
    parts = Setting().run()
    checked = [n_rows for is_training, n_rows in asked if not is_training]
    assert max(checked) == 10 and len(checked) > N_CHECKS
    errors = [[record["held_out_error"] for record in run.history] for run in (whole, parts)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)


def test_visible_cells_are_reconstructed_when_they_weigh() -> None:
    values = torch.randn(100, 3, generator=seeded())
    seen = torch.ones_like(values, dtype=torch.bool)
    errors = []
    for weight in (0.0, 1.0):
        model = learner(values)
        train(model, values, seen, replace(LONGER, visible_weight=weight), seeded())
        errors.append((model(values, seen).point() - values).square().mean())
    assert errors[1] < 0.5 * errors[0]


def test_hidden_cells_are_judged_and_not_shown_and_every_row_is_seen_once_an_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values, observed = table()
    masks: list[Tensor] = []
    judged: list[Tensor] = []
    shown: list[tuple[Tensor, Tensor]] = []

    def recorded(cells: Tensor, mask_ratio: Tensor, generator: torch.Generator) -> Tensor:
        masks.append(bernoulli(cells, mask_ratio, generator))
        return masks[-1]

    def forward(model: MaskedAutoencoder, cells: Tensor, visible: Tensor, guess: Any = None) -> CellDistribution:
        shown.append((cells, visible))
        return original(model, cells, visible, guess)

    def mean(errors: Tensor, mask: Tensor, weight: Tensor | None = None) -> Tensor:
        judged.append(mask)
        return masked_mean(errors, mask, weight)

    original = MaskedAutoencoder.forward
    monkeypatch.setattr(MaskedAutoencoder, "forward", forward)
    monkeypatch.setattr(training, "masked_mean", mean)
    Setting(plan=replace(QUICK, mask=recorded, max_epochs=2), with_held_out=False).run()
    assert len(masks) == len(shown) == len(judged) == 6
    filled = torch.where(observed, values, 0)
    for epoch in (0, 3):
        cells = torch.cat([part for part, _ in shown[epoch : epoch + 3]])
        order = cells[:, 0].argsort(stable=True)
        torch.testing.assert_close(cells.sum(0), filled.sum(0))
        assert torch.equal(cells[order][:, 0], filled[:, 0].sort().values)
    for hidden, (cells, visible), mask in zip(masks, shown, judged, strict=True):
        assert torch.equal(mask, hidden)
        assert not (visible & hidden).any()
        known = (cells[:, None] == filled[None]).all(2).byte().argmax(1)
        assert torch.equal(visible | hidden, observed[known])


@pytest.mark.parametrize("block_cells", [1, 300, 10_000])
def test_the_expert_is_asked_for_any_block_of_batches_alike(
    whole: Outcome, monkeypatch: pytest.MonkeyPatch, block_cells: int
) -> None:
    monkeypatch.setattr(training, "BLOCK_CELLS", block_cells)
    for record, same in zip(Setting().run().history, whole.history, strict=True):
        assert record == pytest.approx(same, rel=1e-3)


@pytest.mark.parametrize("n_rows", [1, 2, 7])
def test_fewer_rows_than_a_batch_are_one_batch(n_rows: int) -> None:
    values, observed = table()
    model = Setting().model()
    history = train(model, values[:n_rows], observed[:n_rows], QUICK, seeded())
    assert len(history) == N_CHECKS
    assert all(math.isfinite(record["error"]) for record in history)


@pytest.mark.parametrize("verbose", [0, 1])
def test_the_bar_is_shown_when_asked_for(capsys: pytest.CaptureFixture[str], verbose: int) -> None:
    Setting().run(verbose=verbose)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("15/15" in shown.err and "held_out=" in shown.err) == bool(verbose)


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
def test_known_cells_are_held_out_at_the_fraction(fraction: float) -> None:
    observed = torch.rand(1000, 20, generator=seeded(9)) < 0.8
    held_out = draw_held_out(observed, fraction, seeded())
    assert held_out.dtype == torch.bool and not (held_out & ~observed).any()
    assert float(held_out.sum() / observed.sum()) == pytest.approx(fraction, abs=0.02)
    assert torch.equal(held_out, draw_held_out(observed, fraction, seeded()))
    assert not torch.equal(held_out, draw_held_out(observed, fraction, seeded(1)))


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.95])
def test_no_row_and_no_column_loses_its_last_cell_to_the_check(fraction: float) -> None:
    for seed in range(20):
        observed = torch.rand(12, 4, generator=seeded(seed + 100)) < 0.4
        left = observed & ~draw_held_out(observed, fraction, seeded(seed))
        assert torch.equal(left.any(1), observed.any(1))
        assert torch.equal(left.any(0), observed.any(0))


def test_columns_of_fewer_than_four_known_cells_lose_none() -> None:
    observed = torch.zeros(50, 5, dtype=torch.bool)
    for j in range(5):
        observed[: j + 1, j] = True
    observed[:, 4] = True
    held_out = sum(draw_held_out(observed, 0.5, seeded(seed)).int() for seed in range(50))
    assert torch.as_tensor(held_out).any(0).tolist() == [False, False, False, True, True]
