"""A time budget: fits end in time on a clock that tests move, and lose nothing that they had time for."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from runs import QUICK, Setting, held_out_of, seeded, stopping_at, table
from torch import Tensor

from tabmae import TabMAE, TabMAEEncoder, load, training
from tabmae.deadline import NEVER, Deadline
from tabmae.errors import ParameterError
from tabmae.estimators import growing, learner, validation
from tabmae.experts.direct import DirectTrees
from tabmae.experts.trees import Forest
from tabmae.model import MaskedAutoencoder
from tabmae.optimizer import AdamW
from tabmae.schedule import share_averaged
from tabmae.schema import TableSchema
from tabmae.training import train

N_STEPS = QUICK.max_epochs * 3
"""Steps of a run of `runs.Setting` that has all the time that it wants."""
SMALL: dict[str, Any] = {"max_epochs": 2, "d_token": 4, "random_state": 0}


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def tick_with(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, seconds: Iterator[float]) -> list[Any]:
        """Let every call of a method take so long; returns a list that fills with their arguments."""
        method: Callable[..., Any] = getattr(owner, name)
        calls: list[Any] = []

        def timed(*given: Any, **named: Any) -> Any:
            calls.append({**dict(enumerate(given[1:])), **named})
            self.now += next(seconds)
            return method(*given, **named)

        monkeypatch.setattr(owner, name, timed)
        return calls


def every(seconds: float) -> Iterator[float]:
    while True:
        yield seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of every fit."""
    clock = Clock()
    monkeypatch.setattr(learner, "Deadline", partial(Deadline, clock=clock))
    return clock


def holes(n_rows: int = 200) -> pd.DataFrame:
    """Draw correlated columns, one of levels, the later the more holes."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n_rows, 1)) + 0.5 * rng.normal(size=(n_rows, 6))
    rows[rng.random(rows.shape) < np.linspace(0.02, 0.4, 6)] = np.nan
    found = pd.DataFrame(rows, columns=list("abcdef"))
    found["f"] = (found["f"] > 0).map({True: "up", False: "down"}).mask(found["f"].isna())
    return found


def state(model: TabMAE) -> dict[str, Tensor]:
    return dict(model.model_.state_dict())


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def forests_of(model: TabMAE) -> dict[str, Forest]:
    return cast(dict[str, Forest], dict(cast(torch.nn.ModuleDict, model.model_.sweeps[0]).items()))


def run_until(deadline: Deadline, checkpoint: Path | None = None) -> tuple[MaskedAutoencoder, list[dict[str, float]]]:
    setting = Setting()
    model, held_out = setting.model(), held_out_of(setting.observed)
    observed = setting.observed & ~held_out
    given: dict[str, Any] = {"held_out": held_out, "deadline": deadline, "checkpoint": checkpoint}
    return model, train(model, setting.values, observed, QUICK, seeded(), **given)


def test_a_deadline_counts_down_and_parts_of_it_start_anew() -> None:
    clock = Clock()
    deadline = Deadline(10, clock)
    clock.now = 4.0
    half, earlier = deadline.part(0.5), deadline.before(2.0)
    clock.now = 5.0
    assert (deadline.elapsed(), deadline.left(), deadline.spent()) == (5.0, 5.0, 0.5)
    assert (half.seconds, half.left(), earlier.left()) == (3.0, 2.0, 3.0)
    clock.now = 11.0
    assert deadline.passed and deadline.spent() == 1.0 and deadline.before(20.0).spent() == 1.0


def test_a_deadline_without_seconds_never_comes() -> None:
    clock = Clock()
    deadline = Deadline(None, clock)
    clock.now = 1e12
    assert not deadline.exists and not deadline.passed and deadline.spent() == 0.0
    assert deadline.part(0.5).left() == deadline.before(1e9).left() == NEVER.left() == math.inf


@pytest.mark.parametrize("seconds", [10.0, 20.0, 33.0])
def test_training_stops_in_time_with_its_learning_rate_run_down(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    clock = Clock()
    calls = clock.tick_with(monkeypatch, AdamW, "step", every(1.0))
    _, history = run_until(Deadline(seconds, clock))
    rates = [call[0] if 0 in call else call["lr"] for call in calls]
    assert len(rates) == seconds < N_STEPS
    assert max(rates) > 0.95 * QUICK.lr and rates[-1] < 0.03 * QUICK.lr
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert history[-1]["epoch"] == pytest.approx(seconds / 3) and len(history) > 5


def test_a_slow_start_leaves_a_run_that_is_on_time_again_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    calls = clock.tick_with(monkeypatch, AdamW, "step", iter([30.0, *[0.0] * N_STEPS]))
    run_until(Deadline(60.0, clock))
    assert len(calls) == 1 + math.ceil(N_STEPS / 2)


def test_time_to_spare_changes_nothing() -> None:
    (spared, spared_history), (whole, history) = run_until(Deadline(1.0, Clock())), run_until(NEVER)
    assert spared_history == history and len(history) == QUICK.max_epochs
    assert equal(dict(spared.state_dict()), dict(whole.state_dict()))


def test_training_without_time_makes_one_step_and_keeps_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Clock().tick_with(monkeypatch, AdamW, "step", every(1.0))
    _, history = run_until(Deadline(-1.0, Clock()))
    assert len(calls) == len(history) == 1 and math.isfinite(history[0]["held_out_error"])


@pytest.mark.parametrize("covered", [1, 5, 60])
def test_the_averaged_weights_forget_the_first_ones_however_few_the_steps(covered: int) -> None:
    assert (1 - share_averaged(covered, 600)) ** (600 / covered) < 0.003


def test_the_averaged_weights_of_a_hurried_run_span_as_much_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, covered = Clock(), []
    clock.tick_with(monkeypatch, AdamW, "step", every(1.0))

    def noted(steps: float, n_steps: int) -> float:
        covered.append(steps)
        return share_averaged(steps, n_steps)

    monkeypatch.setattr(training, "share_averaged", noted)
    run_until(Deadline(9.0, clock))
    assert covered == pytest.approx([N_STEPS / 9] * 9)


def test_a_resumed_run_goes_on_where_its_schedule_stood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Clock()
    calls = clock.tick_with(monkeypatch, AdamW, "step", every(1.0))
    setting, held_out = Setting(), held_out_of(Setting().observed)
    given = setting.values, setting.observed & ~held_out, QUICK, seeded()
    stop = stopping_at(5, lambda: True)
    half = {"held_out": held_out, "deadline": Deadline(20.0, clock), "checkpoint": tmp_path / "run"}
    train(setting.model(), *given, callbacks=[stop], **cast(Any, half))
    n_first = len(calls)
    run_until(Deadline(20.0, clock), tmp_path / "run")
    assert 3 < n_first < 17 and abs(len(calls) - 20) <= 1
    _, before = run_until(NEVER, tmp_path / "run")
    assert abs(len(calls) - 20) <= 1 and before[-1]["epoch"] == len(calls) / 3


def test_no_budget_reads_nothing_off_the_clock(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    plain = state(TabMAE(**SMALL).fit(holes()))
    clock.tick_with(monkeypatch, AdamW, "step", every(1e9))
    assert equal(state(TabMAE(**SMALL, time_budget=None).fit(holes())), plain)


def test_a_budget_to_spare_changes_nothing(clock: Clock) -> None:
    given: dict[str, Any] = {**SMALL, "experts": ("gaussian",)}
    spared = TabMAE(**given, time_budget=1e6).fit(holes())
    plain = TabMAE(**given).fit(holes())
    assert equal(state(spared), state(plain)) and spared.history_ == plain.history_
    assert spared.quality_.equals(plain.quality_)


@pytest.mark.parametrize("seconds", [2.0, 4.5, 6.5])
def test_forests_grow_until_the_next_one_would_come_too_late(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, seconds: float, tmp_path: Path
) -> None:
    clock.tick_with(monkeypatch, Forest, "fit", every(1.0))
    model = TabMAE(**SMALL, time_budget=seconds).fit(holes())
    grown = forests_of(model)
    assert seconds / 2 <= clock.now <= seconds and len(grown) == clock.now < 6 and len(model.model_.sweeps) == 1
    assert set(grown) == {str(5 - place) for place in range(len(grown))}, "columns with most holes come first"
    treeless = [column for place, column in enumerate("abcdef") if str(place) not in grown]
    assert (model.quality_.loc[treeless, "weight_trees"] == 0).all()
    weights = model.quality_.filter(like="weight_").sum(axis=1)
    assert np.allclose(weights, 1)
    imputed = model.transform(holes())
    assert not imputed.isna().any().any()
    model.save(tmp_path / "model")
    assert load(tmp_path / "model").transform(holes()).equals(imputed)


def test_the_network_answers_for_a_forest_that_did_not_grow(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    clock.tick_with(monkeypatch, Forest, "fit", every(1.0))
    model = TabMAE(**SMALL, time_budget=4.5).fit(holes())
    values, observed = model._read(holes())
    numbers = model.model_.members(values.double(), observed).numbers
    for place in range(5):
        assert torch.equal(numbers[3, :, place], numbers[2, :, place]) == (str(place) not in forests_of(model))


@pytest.mark.usefixtures("direct_trees")
@pytest.mark.parametrize(("seconds", "n_direct"), [(10.0, 0), (16.0, 2), (40.0, 6)])
def test_direct_trees_grow_until_the_next_ones_would_come_too_late(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, seconds: float, n_direct: int, tmp_path: Path
) -> None:
    clock.tick_with(monkeypatch, Forest, "fit", chain([1.0] * 6, every(0.0)))
    clock.tick_with(monkeypatch, DirectTrees, "fit", every(3.0))
    model = TabMAE(**SMALL, time_budget=seconds).fit(holes())
    direct = list(model.model_.direct)
    assert clock.now <= seconds and len(forests_of(model)) == 6 and len(direct) == n_direct
    assert direct == [str(5 - place) for place in range(n_direct)], "columns with most holes come first"
    believed = model.quality_["weight_direct"]
    assert (believed[6 - n_direct :] > 0).all() and not believed[: 6 - n_direct].any()
    assert np.allclose(model.quality_.filter(like="weight_").sum(axis=1), 1)
    imputed = model.transform(holes())
    assert not imputed.isna().any().any()
    model.save(tmp_path / "model")
    assert load(tmp_path / "model").transform(holes()).equals(imputed)


@pytest.mark.usefixtures("direct_trees")
@pytest.mark.parametrize("seconds", [10.0, 13.0, 17.0, 23.0, 27.0])
def test_time_is_kept_for_all_trees_to_be_weighed_and_judged(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, seconds: float
) -> None:
    clock.tick_with(monkeypatch, Forest, "fit", every(1.0))
    clock.tick_with(monkeypatch, Forest, "predict", every(0.05))
    clock.tick_with(monkeypatch, DirectTrees, "fit", every(3.0))
    clock.tick_with(monkeypatch, DirectTrees, "predict", every(0.15))
    model = TabMAE(**SMALL, time_budget=seconds).fit(holes().drop(columns="f"))
    assert clock.now <= seconds and len(model.model_.sweeps) > 0


def test_what_predictions_cost_is_kept_for_the_end(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    clock.tick_with(monkeypatch, MaskedAutoencoder, "network", every(0.5))
    calls = clock.tick_with(monkeypatch, AdamW, "step", every(0.5))
    TabMAE(d_token=4, random_state=0, experts=("gaussian",), time_budget=300.0).fit(holes(1000))
    assert 200 < clock.now <= 300 and 100 < len(calls) < 600


@pytest.mark.parametrize("experts", [(), ("gaussian",), "auto"])
def test_a_budget_that_is_gone_at_once_still_gives_a_model(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, experts: Any
) -> None:
    clock.tick_with(monkeypatch, TableSchema, "encode", every(5.0))
    steps = clock.tick_with(monkeypatch, AdamW, "step", every(0.0))
    model = TabMAE(d_token=4, random_state=0, experts=experts, time_budget=0.5).fit(holes())
    assert len(steps) == model.n_iter_ == 1 and len(model.model_.sweeps) == 0
    assert not model.transform(holes()).isna().any().any()
    assert model.quality_["n"].sum() > 0


def test_a_fit_that_is_over_its_time_judges_wide_tables_by_fewer_rows_and_fits_the_expert_no_more(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    given: dict[str, Any] = {**SMALL, "experts": ("gaussian",)}
    plain = TabMAE(**given).fit(holes(3000)).quality_["n"]
    monkeypatch.setattr(validation, "rows_that_weigh", lambda _: 100)
    monkeypatch.setattr(learner, "MAX_REFIT_ROWS", 3001)
    refits: list[object] = []
    monkeypatch.setattr(learner, "refit_expert", lambda *given: refits.append(given))
    clock.tick_with(monkeypatch, TableSchema, "encode", every(5.0))
    hurried = TabMAE(**given, time_budget=1.0).fit(holes(3000)).quality_["n"]
    assert (hurried < 0.8 * plain).all() and (hurried > 0).all() and not refits
    assert TabMAE(**given, time_budget=6.0).fit(holes(3000)).quality_["n"].equals(plain) and len(refits) == 1


@pytest.mark.parametrize(("seconds", "n_more"), [(40.0, 0), (1000.0, 1)])
def test_the_network_learns_held_out_cells_where_there_is_time(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, seconds: float, n_more: int
) -> None:
    steps = clock.tick_with(monkeypatch, AdamW, "step", every(5.0))
    small: dict[str, Any] = {"max_epochs": 4, "batch_size": 100, "d_token": 4, "experts": ()}
    model = TabMAE(**small, random_state=0, time_budget=seconds).fit(holes())
    assert len(steps) == model.n_iter_ * 2 + n_more * 2 and clock.now <= seconds


@pytest.mark.parametrize(
    ("seconds", "share"),
    [
        pytest.param(10.0, 1.0, id="too little to begin with forests"),
        pytest.param(30.0, growing.TRAINING_SHARE, id="not enough for all"),
        pytest.param(1000.0, 0.97, id="more than forests need"),
    ],
)
def test_training_has_what_forests_cannot_use(monkeypatch: pytest.MonkeyPatch, seconds: float, share: float) -> None:
    model, (values, observed), clock = Setting().model(), table(200), Clock()
    clock.tick_with(monkeypatch, MaskedAutoencoder, "members", every(0.5))
    planned = growing.planned(model.double(), values, observed, Deadline(seconds, clock), 1.0, True)
    assert planned.seconds_of_row == 0.5 / 200 and seconds - 6 < planned.forests.seconds < seconds - 3
    assert planned.training.seconds == pytest.approx(share * planned.forests.seconds, rel=0.02)
    plain = growing.planned(model, values, observed, Deadline(seconds, clock), 1.0, False)
    assert plain.training.seconds == plain.forests.seconds


def test_a_table_without_columns_to_learn_has_no_forests_to_plan(clock: Clock) -> None:
    constant = pd.DataFrame({"a": [1.0] * 30, "b": ["x"] * 30})
    model = TabMAE(**SMALL, time_budget=5.0).fit(constant)
    assert model.transform(constant).equals(constant)


def test_partial_fit_has_a_budget_of_its_own(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    calls = clock.tick_with(monkeypatch, AdamW, "step", every(1.0))
    model = TabMAEEncoder(d_token=4, experts=("gaussian",), max_epochs=20, random_state=0, time_budget=12.0)
    model.fit(holes())
    assert len(calls) <= 12
    first = len(calls)
    model.partial_fit(holes())
    assert len(calls) - first == 12


@pytest.mark.parametrize("wrong", [0, -1.0, math.nan, math.inf, "60", True])
def test_a_wrong_budget_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    reads = Clock().tick_with(monkeypatch, TableSchema, "encode", every(0.0))
    model = TabMAE(time_budget=wrong)
    with pytest.raises(ParameterError, match=r"^`time_budget` must be a finite number above 0; .*Pass seconds"):
        model.fit(holes())
    assert reads == [] and vars(model) == model.get_params()
