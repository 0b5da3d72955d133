"""`tune` scores every trial on data that its fit has not seen, and is never worse than what it was given."""

import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from watched import PLACE, SEEN, Hill, Series, numbers

import tabmae
from tabmae import TabMAE, TabMAEEncoder, TimeSeriesMAE, tune
from tabmae.errors import DataError, ParameterError, TrainingError
from tabmae.tuning.spaces import check_candidate, of_series, of_tables

SMALL: dict[str, Any] = {"max_epochs": 2, "d_token": 4, "experts": (), "random_state": 0}
N_ROWS = 50


@pytest.fixture(autouse=True)
def nothing_seen() -> Iterator[None]:
    SEEN.clear()
    yield
    SEEN.clear()


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=N_ROWS)
    frame = pd.DataFrame({"x": x, "y": 2 * x + rng.normal(0, 0.3, N_ROWS), "sign": np.where(x > 0, "plus", "minus")})
    return frame.mask(rng.random(frame.shape) < 0.1).set_index(np.arange(N_ROWS) + 1000)


def scores_of(study: optuna.Study) -> list[float | None]:
    return [trial.value for trial in study.trials]


def test_every_trial_learns_from_the_same_rows_is_scored_on_the_others_and_the_winner_learns_from_all(
    table: pd.DataFrame,
) -> None:
    tune(Hill(), table, n_trials=4, space=PLACE, random_state=0)
    assert [what for what, _ in SEEN] == ["fit", "score"] * 4 + ["fit"]
    training, validation = SEEN[0][1], SEEN[1][1]
    assert len(validation) == N_ROWS // 5 and sorted([*training.index, *validation.index]) == table.index.tolist()
    assert validation.index.tolist() != table.index[-len(validation) :].tolist()
    for what, X in SEEN[:-1]:
        pd.testing.assert_frame_equal(X, training if what == "fit" else validation)
    assert SEEN[-1][1] is table


def test_the_best_parameters_are_found_and_set_and_the_estimator_stays_as_it_was() -> None:
    given = Hill(steep=2.0)
    tuned = tune(given, numbers(), n_trials=25, space=PLACE, random_state=0)
    assert given.get_params() == Hill(steep=2.0).get_params() and not hasattr(given, "is_fitted_")
    assert tuned is not given and tuned.is_fitted_ and tuned.steep == 2
    assert tuned.best_params_ == {"place": tuned.place} and abs(tuned.place - 0.7) < 0.1
    assert max(score for score in scores_of(tuned.study_) if score is not None) == -2 * abs(tuned.place - 0.7)


@pytest.mark.parametrize("given", [Hill(place=0.7), Hill(steep=0.0)], ids=["better", "as good"])
def test_the_estimators_own_parameters_win_unless_they_are_beaten(given: Hill) -> None:
    tuned = tune(given, numbers(), n_trials=4, space=PLACE, random_state=0)
    assert tuned.best_params_ == {} and tuned.get_params() == given.get_params()
    assert tuned.study_.trials[0].params == {} and all(trial.params for trial in tuned.study_.trials[1:])


@pytest.mark.parametrize("kind", [TabMAE, TabMAEEncoder])
def test_tables_are_tuned_without_a_space(kind: Any, table: pd.DataFrame) -> None:
    given = kind(**SMALL, mask_ratio=0.9)
    tuned = tune(given, table, n_trials=3, random_state=1)
    scores = [score for score in scores_of(tuned.study_) if score is not None]
    assert len(scores) == 3 and len(set(scores)) == 3
    if tuned.best_params_:
        assert list(tuned.best_params_) == ["mask_ratio", "dropout", "lr", "d_token", "depth"]
    assert tuned.get_params() == given.get_params() | tuned.best_params_
    validation = table.iloc[np.sort(_order(1)[: N_ROWS // 5])]
    training = table.iloc[np.sort(_order(1)[N_ROWS // 5 :])]
    again = clone(tuned).fit(training)
    assert again.score(validation) == max(scores) >= scores[0]
    assert np.array_equal(clone(tuned).fit(table).encode(table), tuned.encode(table))


def _order(seed: int) -> NDArray[np.int64]:
    rng = np.random.RandomState(seed)
    rng.randint(2**31 - 1)
    return rng.permutation(N_ROWS)


def test_series_are_tuned_without_a_space_and_fill_gaps() -> None:
    wave = np.sin(np.arange(200) / 4)[None, :, None]
    wave[0, 50:55] = np.nan
    given = TimeSeriesMAE(horizon=4, window=16, experts=(), max_epochs=1, batch_size=512, random_state=0)
    tuned = tune(given, wave, n_trials=2, random_state=0)
    assert len(set(scores_of(tuned.study_))) == 2
    assert np.isfinite(tuned.impute(wave)).all()


@pytest.mark.parametrize(("space", "estimator"), [(of_tables, TabMAE()), (of_series, TimeSeriesMAE())])
def test_the_packages_own_spaces_hold_only_what_its_estimators_take(space: Any, estimator: Any) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        parameters = space(study.ask())
        check_candidate(estimator, parameters)
        assert len(parameters) == 5 and parameters["mask_ratio"][0] <= parameters["mask_ratio"][1]


@pytest.mark.parametrize(
    "container",
    [pl.from_pandas, pa.Table.from_pandas, lambda frame: frame.to_numpy(), lambda frame: frame.to_numpy().tolist()],
    ids=["polars", "arrow", "array", "list"],
)
def test_rows_are_taken_from_any_container(container: Any) -> None:
    X = container(pd.DataFrame(numbers(20), columns=["a", "b"]))
    tune(Hill(), X, n_trials=1, space=PLACE, random_state=0)
    for (_, part), n_rows in zip(SEEN, (16, 4, 20), strict=True):
        assert type(part) is type(X) and len(part) == n_rows
    column = [np.asarray(part)[:, 0].tolist() for _, part in SEEN]
    assert sorted(column[0] + column[1]) == column[2]


def long_frame(n_series: int, n_steps: int = 50) -> pd.DataFrame:
    stamps = pd.date_range("2024-01-01", periods=n_steps, freq="h")
    frames = [pd.DataFrame({"unique_id": f"s{i}", "ds": stamps, "y": np.arange(n_steps)}) for i in range(n_series)]
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("container", [lambda frame: frame, pl.from_pandas, pa.Table.from_pandas])
def test_the_last_steps_of_few_series_validate(container: Any) -> None:
    shorter = long_frame(3).drop(index=range(90, 100)).sample(frac=1, random_state=0)
    tune(Series(), container(shorter), n_trials=1, random_state=0)
    training, validation = (
        pd.DataFrame(part.to_pandas() if hasattr(part, "to_pandas") else part) for _, part in SEEN[:2]
    )
    assert training.groupby("unique_id")["y"].max().tolist() == [39, 31, 39]
    assert validation.groupby("unique_id")["y"].min().tolist() == [40, 32, 40]
    assert len(training) + len(validation) == len(shorter)


def test_a_fifth_of_many_series_validates() -> None:
    frame = long_frame(25)
    tune(Series(), frame, n_trials=2, random_state=0)
    training, validation = SEEN[0][1], SEEN[1][1]
    assert validation["unique_id"].nunique() == 5 and training["unique_id"].nunique() == 20
    assert not set(validation["unique_id"]) & set(training["unique_id"])
    assert len(training) + len(validation) == len(frame)
    pd.testing.assert_frame_equal(SEEN[2][1], training)


def test_arrays_and_wide_frames_are_cut_as_long_ones_are() -> None:
    steps = np.tile(np.arange(50.0)[:, None], (3, 1, 2))
    tune(Series(), steps, n_trials=1)
    assert np.array_equal(SEEN[0][1], steps[:, :40]) and np.array_equal(SEEN[1][1], steps[:, 40:])
    SEEN.clear()
    many = np.arange(30.0)[:, None, None] + np.zeros((30, 12, 2))
    tune(Series(), many, n_trials=1, random_state=0)
    assert SEEN[0][1].shape == (24, 12, 2) and SEEN[1][1].shape == (6, 12, 2)
    assert sorted([*SEEN[0][1][:, 0, 0], *SEEN[1][1][:, 0, 0]]) == list(range(30))
    assert SEEN[1][1][:, 0, 0].tolist() != list(range(24, 30))
    SEEN.clear()
    wide = long_frame(1).set_index("ds")[["y"]]
    tune(Series(), wide, n_trials=1)
    pd.testing.assert_frame_equal(SEEN[0][1], wide.iloc[:40])
    pd.testing.assert_frame_equal(SEEN[1][1], wide.iloc[40:])


def test_same_seed_same_study_and_another_seed_another(table: pd.DataFrame) -> None:
    space = {"mask_ratio": FloatDistribution(0.1, 0.9)}
    one, same, other = (tune(TabMAE(**SMALL), table, n_trials=3, space=space, random_state=seed) for seed in (0, 0, 1))
    assert scores_of(one.study_) == scores_of(same.study_) and one.best_params_ == same.best_params_
    assert np.array_equal(one.encode(table), same.encode(table))
    assert scores_of(one.study_)[0] != scores_of(other.study_)[0]
    assert one.study_.trials[1].params != other.study_.trials[1].params


def test_one_trial_ends_whatever_the_timeout() -> None:
    tuned = tune(Hill(), numbers(), n_trials=50, timeout=1e-9, space=PLACE, random_state=0)
    assert len(tuned.study_.trials) == 1 and tuned.best_params_ == {} and tuned.is_fitted_


def test_a_choice_may_be_anything(table: pd.DataFrame) -> None:
    space = {"mask_ratio": [0.3, (0.2, 0.6), "auto"], "mask": CategoricalDistribution(["block"])}
    tuned = tune(TabMAE(**SMALL, lr=1e-9), table, n_trials=6, space=space, random_state=0)
    stored = {trial.params["mask_ratio"] for trial in tuned.study_.trials[1:]}
    assert stored <= {0.3, "(0.2, 0.6)", "auto"} and "(0.2, 0.6)" in stored
    places = tune(Hill(top=0.4), numbers(), n_trials=9, space={"place": [(0.9, 0.9), (0.2, 0.6), 0.0]}, random_state=0)
    assert places.best_params_ == {"place": (0.2, 0.6)}


def test_a_space_may_be_a_function_of_a_trial() -> None:
    def space(trial: optuna.Trial) -> dict[str, Any]:
        low = trial.suggest_float("low", 0, 0.5)
        return {"place": (low, trial.suggest_float("high", low, 1)), "steep": trial.suggest_int("steep", 1, 2)}

    tuned = tune(Hill(), numbers(), n_trials=9, space=space, random_state=0)
    best = tuned.study_.best_trial.params
    assert tuned.best_params_ == {"place": (best["low"], best["high"]), "steep": best["steep"]}
    assert tuned.place == (best["low"], best["high"])


def test_a_pipeline_is_tuned_by_the_names_of_its_steps() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2)) + 50 * rng.integers(0, 3, 60)[:, None]
    given = make_pipeline(StandardScaler(), KMeans(n_clusters=1, n_init=1, random_state=0))
    tuned = tune(given, X, n_trials=6, space={"kmeans__n_clusters": IntDistribution(1, 3)}, random_state=0)
    assert tuned.best_params_ == {"kmeans__n_clusters": 3} and len(tuned[-1].cluster_centers_) == 3
    assert given[-1].n_clusters == 1


def test_a_study_in_a_storage_is_taken_up_by_the_same_call(tmp_path: Any) -> None:
    def asked(n_trials: int, **changed: Any) -> Any:
        given: dict[str, Any] = {"estimator": Hill(), "X": numbers(), "space": {"place": FloatDistribution(0, 0.6)}}
        given |= {"random_state": 0, "storage": f"sqlite:///{tmp_path}/study.db"} | changed
        return tune(**given, n_trials=n_trials)

    first = asked(n_trials=6)
    more = asked(n_trials=5)
    assert more.study_.study_name == first.study_.study_name and len(more.study_.trials) == 11
    tried = [trial.params for trial in more.study_.trials]
    assert [trial for trial in tried if not trial] == [{}]
    assert len({trial["place"] for trial in tried if trial}) == 10
    assert more.place >= first.place
    latest = asked(n_trials=1)
    assert latest.place == max(trial["place"] for trial in [*tried, latest.study_.trials[-1].params] if trial)
    names = {
        asked(n_trials=1, **changed).study_.study_name
        for changed in (
            {"X": numbers() + 1},
            {"estimator": Hill(steep=3.0)},
            {"random_state": 1},
            {"space": {"place": FloatDistribution(0, 0.5)}},
        )
    }
    assert len(names | {first.study_.study_name}) == 5


def test_an_estimator_that_was_not_scored_is_tried_again(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> Any:
        storage = f"sqlite:///{tmp_path}/study.db"
        return tune(Hill(place=0.7), numbers(), n_trials=2, space={"place": [0.0]}, storage=storage, random_state=0)

    def short_of_memory(*_: Any) -> float:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Hill, "score", short_of_memory)
        with pytest.raises(MemoryError):
            asked()
    again = asked()
    assert [trial.state for trial in again.study_.trials] == [TrialState.FAIL, *[TrialState.COMPLETE] * 2]
    assert again.place == 0.7 and again.best_params_ == {}


def test_threads_leave_torchs_generator_as_it_was(table: pd.DataFrame) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    tuned = tune(TabMAE(**SMALL), table, n_trials=5, n_jobs=2, random_state=0)
    assert [trial.state for trial in tuned.study_.trials] == [TrialState.COMPLETE] * 5
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_trial_whose_training_fails_is_passed_over() -> None:
    given = Hill(error=(0.5, TrainingError("the loss is not finite")), top=0.4)
    tuned = tune(given, numbers(), n_trials=10, space=PLACE, random_state=0)
    failed = [trial for trial in tuned.study_.trials if trial.state == TrialState.FAIL]
    assert failed and all(trial.user_attrs == {"error": "the loss is not finite"} for trial in failed)
    assert len(tuned.study_.trials) == 10 and 0 < tuned.place < 0.5


def test_a_diverging_step_size_is_passed_over(table: pd.DataFrame) -> None:
    space = {"lr": [1e30, 1e-3]}
    tuned = tune(TabMAE(**SMALL), table, n_trials=6, space=space, random_state=0)
    states = {trial.params["lr"]: trial.state for trial in tuned.study_.trials if trial.params}
    assert states == {1e30: TrialState.FAIL, 1e-3: TrialState.COMPLETE}


@pytest.mark.parametrize(
    ("error", "message"),
    [(TrainingError("it broke."), "it broke."), (None, "The score was not a number.")],
)
def test_where_every_trial_fails_the_error_says_so(error: Any, message: str) -> None:
    given = Hill(error=error and (0.0, error), top=float("nan"))
    with pytest.raises(TrainingError, match=f"^One trial at least must end with a score; all 3 failed.*{message}"):
        tune(given, numbers(), n_trials=3, space=PLACE)


@pytest.mark.parametrize("error", [DataError("no"), ParameterError("no"), KeyError("no")])
def test_any_other_error_surfaces_at_once(error: Exception) -> None:
    with pytest.raises(type(error), match="no"):
        tune(Hill(error=(0.0, error)), numbers(), space=PLACE)
    assert [what for what, _ in SEEN] == ["fit"]


def test_optunas_log_is_quiet_meanwhile_and_as_it_was_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    optuna.logging.enable_propagation()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tune(Hill(error=(0.5, TrainingError("no"))), numbers(), n_trials=5, space=PLACE, random_state=0)
        assert caplog.records == [] and optuna.logging.get_verbosity() == optuna.logging.INFO
        with pytest.raises(ParameterError):
            tune(Hill(), numbers(), space={})
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.disable_propagation()
        optuna.logging.set_verbosity(before)


def test_what_was_tuned_is_cloned_pickled_saved_and_loaded(table: pd.DataFrame, tmp_path: Any) -> None:
    tuned = tune(TabMAE(**SMALL), table, n_trials=2, space={"mask_ratio": [0.2]}, random_state=0)
    copy = clone(tuned)
    assert copy.get_params() == tuned.get_params() and not hasattr(copy, "study_")
    pickled = pickle.loads(pickle.dumps(tuned))
    assert pickled.best_params_ == tuned.best_params_ and scores_of(pickled.study_) == scores_of(tuned.study_)
    tuned.save(tmp_path / "model")
    loaded = tabmae.load(tmp_path / "model")
    assert np.array_equal(loaded.encode(table), tuned.encode(table)) and not hasattr(loaded, "study_")


def test_an_interrupt_ends_the_study_and_its_trial_has_no_score(table: pd.DataFrame) -> None:
    records = []

    def interrupted(record: dict[str, float]) -> None:
        records.append(record)
        if len(records) == 4:  # in the second trial, after its first check
            raise KeyboardInterrupt

    storage = optuna.storages.InMemoryStorage()
    space = {"dropout": [0.0, 0.1, 0.2]}
    with pytest.raises(KeyboardInterrupt):
        tune(TabMAE(**SMALL, callbacks=[interrupted]), table, n_trials=3, space=space, storage=storage, random_state=0)
    (study,) = optuna.get_all_study_names(storage)
    states = [trial.state.name for trial in optuna.load_study(study_name=study, storage=storage).trials]
    assert states == ["COMPLETE", "FAIL"]


def test_a_warning_raised_as_an_error_is_no_interrupt(table: pd.DataFrame) -> None:
    def warned(record: dict[str, float]) -> None:
        raise UserWarning("of another kind")

    with pytest.raises(UserWarning, match="of another kind"):
        tune(TabMAE(**SMALL, callbacks=[warned]), table, n_trials=1, space={"dropout": [0.0]}, random_state=0)
