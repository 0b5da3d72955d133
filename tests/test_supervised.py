"""`TabMAEClassifier` and `TabMAERegressor`: labels of every type, few of them, holes, pretraining, folders."""

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from generated import correlated, with_holes
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.utils import check_random_state

import tabmae
from tabmae import DataError, ParameterError, TabMAE, TabMAEClassifier, TabMAERegressor
from tabmae.estimators.supervised import network
from tabmae.estimators.supervised.members import Ensemble
from tabmae.estimators.supervised.network import Rows
from tabmae.estimators.supervised.target import codes_of

SMALL: dict[str, Any] = {"max_epochs": 2, "d_token": 4, "random_state": 0}
COMPLETE = correlated(150)
TABLE = with_holes(COMPLETE)
FACTOR = COMPLETE @ np.array([1.0, -1 / 2, 1 / 3, -1 / 4, 1 / 5])
HIGH = np.median(FACTOR) < FACTOR


@pytest.fixture(scope="module")
def classifier() -> TabMAEClassifier:
    return TabMAEClassifier(**SMALL).fit(TABLE, HIGH)


@pytest.fixture(scope="module")
def regressor() -> TabMAERegressor:
    return TabMAERegressor(**SMALL).fit(TABLE, FACTOR)


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        (np.where(HIGH, "high", "low"), "U"),
        (pd.Series(np.where(HIGH, "high", "low"), dtype="category"), "O"),
        (pd.Series(HIGH, dtype="boolean"), "b"),
        (pd.Series(HIGH.astype(int), dtype="Int64"), "i"),
        (HIGH.astype(float).tolist(), "f"),
    ],
    ids=["string", "category", "boolean", "Int64", "list"],
)
def test_classes_are_the_labels_as_they_came(labels: Any, dtype: str) -> None:
    model = TabMAEClassifier(**SMALL, members=("linear",)).fit(TABLE, labels)
    predicted = model.predict(TABLE)
    assert predicted.dtype.kind == dtype == model.classes_.dtype.kind
    assert model.classes_.tolist() == sorted(set(np.asarray(labels).tolist()))
    assert (predicted == np.asarray(labels)).mean() > 0.8


def test_probabilities_are_shares_in_the_order_of_the_classes(classifier: TabMAEClassifier) -> None:
    probability = classifier.predict_proba(TABLE)
    np.testing.assert_allclose(probability.sum(1), 1)
    assert probability[HIGH, 1].mean() > 0.8 and probability[~HIGH, 0].mean() > 0.8
    assert (classifier.classes_[probability.argmax(1)] == classifier.predict(TABLE)).all()


def test_few_labels_go_far_with_unlabelled_rows() -> None:
    table, complete = with_holes(correlated(600, seed=5), seed=6), correlated(600, seed=5)
    target = complete @ np.array([1.0, -1 / 2, 1 / 3, -1 / 4, 1 / 5])
    labels = np.where(np.arange(600) < 30, target, np.nan)
    model = TabMAERegressor(**SMALL).fit(table, labels)
    assert model.score(table[300:], target[300:]) > 0.6
    assert model.imputer_.quality_["n"].sum() > 5 * 30


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_a_missing_label_is_no_class(missing: Any) -> None:
    labels = pd.Series(np.where(HIGH, "high", "low"), dtype=object)
    labels[::3] = missing
    for given in (labels, labels.tolist()):
        model = TabMAEClassifier(**SMALL, members=("linear",)).fit(TABLE, given)
        assert model.classes_.tolist() == ["high", "low"]


@pytest.mark.parametrize("dtype", ["object", "string", "category"])
def test_classes_are_scored_on_the_rows_that_have_a_label(classifier: TabMAEClassifier, dtype: str) -> None:
    model = clone(classifier).set_params(members=("linear",)).fit(TABLE, np.where(HIGH, "high", "low"))
    labels = pd.Series(np.where(HIGH, "high", "low"), dtype=dtype)
    weights = np.arange(150.0)
    known = np.arange(150) % 3 > 0
    assert model.score(TABLE, labels.where(known)) == model.score(TABLE[known], labels[known])
    weighed = model.score(TABLE, labels.where(known), sample_weight=weights)
    assert weighed == model.score(TABLE[known], labels[known], sample_weight=weights[known])
    assert model.score(TABLE[:1], labels[:1]) in (0, 1)
    with pytest.raises(DataError, match="y must hold at least 1 label; got 0"):
        model.score(TABLE, np.full(150, None))


def test_few_labels_are_cross_validated(regressor: TabMAERegressor) -> None:
    few = np.where(np.arange(150) % 3 == 0, FACTOR, np.nan)
    assert regressor.score(TABLE, few) == pytest.approx(regressor.score(TABLE[::3], FACTOR[::3]))
    plain = clone(regressor).set_params(members=("linear",))
    assert (cross_val_score(plain, TABLE, few, cv=KFold(2), error_score="raise") > 0.5).all()
    classes = np.where(np.isnan(few), np.nan, HIGH)
    parameters: dict[str, Any] = {**SMALL, "members": ("linear",)}
    scores = cross_val_score(TabMAEClassifier(**parameters), TABLE, classes, cv=KFold(2), error_score="raise")
    assert (scores > 0.7).all()


def test_numbers_come_in_units_of_the_target(regressor: TabMAERegressor) -> None:
    # Forests choose among equally good splits by the last bit of the target, which a power of two leaves alone.
    scaled = TabMAERegressor(**SMALL).fit(TABLE, 1024 * FACTOR)
    np.testing.assert_allclose(scaled.predict(TABLE), 1024 * regressor.predict(TABLE), rtol=1e-9)
    ratio = scaled.quality_[["error", "baseline_error"]] / regressor.quality_[["error", "baseline_error"]]
    np.testing.assert_allclose(ratio, 1024, rtol=1e-9)
    smooth: dict[str, Any] = {**SMALL, "members": ("linear", "boosting", "network")}
    plain, moved = (TabMAERegressor(**smooth).fit(TABLE, target) for target in (FACTOR, 1000 * FACTOR + 5))
    np.testing.assert_allclose(moved.predict(TABLE), 1000 * plain.predict(TABLE) + 5, atol=1e-6)
    ratio = moved.quality_[["error", "baseline_error"]] / plain.quality_[["error", "baseline_error"]]
    np.testing.assert_allclose(ratio, 1000, rtol=1e-3)


def test_of_a_target_that_never_varies_no_skill_is_told() -> None:
    model = TabMAERegressor(**SMALL, members=("linear",)).fit(TABLE, np.full(len(TABLE), 0.1))
    assert (model.quality_["baseline_error"] == 0).all() and model.quality_["skill"].isna().all()
    assert model.predict(TABLE[:5]).tolist() == [0.1] * 5


def test_rows_that_teach_are_completed_as_those_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    twins = np.concatenate([COMPLETE[:60], COMPLETE[:60]])
    twins[np.arange(60), np.arange(60) % 5] = np.nan  # the other of the two tells the cell
    taught: list[Rows] = []
    fit = Ensemble.fit

    def watched(self: Ensemble, names: Any, copies: Any, *given: Any) -> Ensemble:
        taught.append(copies[0])
        return fit(self, names, copies, *given)

    monkeypatch.setattr(Ensemble, "fit", watched)
    model = TabMAERegressor(**SMALL, members=("linear",)).fit(twins, np.arange(120.0))
    asked = model._rows(*model._read(twins))
    np.testing.assert_array_equal(taught[0].features, asked.features)
    np.testing.assert_array_equal(taught[0].values, asked.values)


def test_quality_tells_of_every_member_and_of_all_together(classifier: TabMAEClassifier) -> None:
    quality = classifier.quality_
    assert quality.index.tolist() == ["linear", "trees", "boosting", "network", "ensemble"]
    assert quality.loc["ensemble", "skill"] > 0.3
    assert quality["weight"][:-1].sum() == pytest.approx(1)
    share = HIGH.mean()
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    np.testing.assert_allclose(quality["baseline_error"], entropy, rtol=1e-6)


def test_labels_that_mean_nothing_have_no_skill() -> None:
    noise = np.random.default_rng(9).normal(size=len(TABLE))
    assert TabMAERegressor(**SMALL).fit(TABLE, noise).quality_.loc["ensemble", "skill"] < 0.05


def test_the_same_seed_gives_the_same_answers(classifier: TabMAEClassifier) -> None:
    again = clone(classifier).fit(TABLE, HIGH)
    np.testing.assert_array_equal(again.predict_proba(TABLE), classifier.predict_proba(TABLE))
    other = clone(classifier).set_params(random_state=1).fit(TABLE, HIGH)
    assert not np.array_equal(other.predict_proba(TABLE), classifier.predict_proba(TABLE))


def test_fit_predict_and_load_leave_the_global_generators_alone(tmp_path: Path) -> None:
    torch_state, numpy_state = torch.get_rng_state(), check_random_state(None).get_state()[1]
    model = TabMAERegressor(**SMALL, members=("network",)).fit(TABLE, FACTOR)
    model.predict(TABLE)
    model.save(tmp_path / "model")
    tabmae.load(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(check_random_state(None).get_state()[1], numpy_state)


@pytest.mark.parametrize("kind", [TabMAEClassifier, TabMAERegressor])
def test_rows_of_weight_zero_are_as_if_without_a_label(kind: type[Any]) -> None:
    labels = pd.Series(np.where(HIGH, 2.0, 1.0))
    weight = np.where(np.arange(150) < 100, 3.0, 0.0)
    weighed = kind(**SMALL).fit(TABLE, labels, sample_weight=weight)
    unlabelled = kind(**SMALL).fit(TABLE, labels.where(weight > 0))
    np.testing.assert_allclose(weighed.predict(TABLE), unlabelled.predict(TABLE))
    np.testing.assert_allclose(weighed.quality_["error"], unlabelled.quality_["error"])


@pytest.mark.parametrize("member", ["linear", "trees", "boosting", "network"])
def test_the_labels_that_count_more_are_followed(member: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "MAX_STEPS", 100)
    twice, weight = np.concatenate([TABLE, TABLE]), np.repeat([1.0, 0.02], 150)
    small = {**SMALL, "members": (member,)}
    for favoured in (1, -1):
        classifier = TabMAEClassifier(**small).fit(twice, np.concatenate([HIGH, ~HIGH]), weight[::favoured])
        right = classifier.score(TABLE, HIGH)
        assert right > 0.75 if favoured == 1 else right < 0.25
        regressor = TabMAERegressor(**small).fit(twice, np.concatenate([FACTOR, -FACTOR]), weight[::favoured])
        assert favoured * np.corrcoef(regressor.predict(TABLE), FACTOR)[0, 1] > 0.5


def test_errors_are_told_by_weight() -> None:
    weight = np.where(HIGH, 1.0, 9.0)
    model = TabMAEClassifier(**SMALL, members=("linear",)).fit(TABLE, HIGH, weight)
    share = weight[HIGH].sum() / weight.sum()
    entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
    assert model.quality_["baseline_error"].to_numpy() == pytest.approx(entropy)
    assert TabMAEClassifier(**SMALL, members=("linear",)).fit(TABLE, HIGH).quality_["error"].iloc[0] != pytest.approx(
        model.quality_["error"].iloc[0], rel=0.01
    )


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(149), "`sample_weight` must hold 150 finite weights"),
        (
            np.where(np.arange(150) < 99, 0.0, 1.0),
            "`sample_weight` must be positive for at least 2 labelled rows; it is ",
        ),
    ],
)
def test_weights_that_cannot_be_weights_are_refused(weight: Any, message: str) -> None:
    labels = pd.Series(FACTOR).where(np.arange(150) < 100)
    with pytest.raises(DataError, match=f"^{message}"):
        TabMAERegressor(**SMALL).fit(TABLE, labels, sample_weight=weight)


def test_a_score_with_too_few_weights_is_refused(classifier: TabMAEClassifier) -> None:
    with pytest.raises(DataError, match="^`sample_weight` must hold 150 finite weights"):
        classifier.score(TABLE, HIGH, np.ones(149))


def test_a_second_fit_forgets_the_first(classifier: TabMAEClassifier) -> None:
    model = TabMAEClassifier(**SMALL).fit(TABLE[:60], HIGH[:60]).fit(TABLE, HIGH)
    np.testing.assert_array_equal(model.predict_proba(TABLE), classifier.predict_proba(TABLE))


def test_a_pretrained_model_is_used_and_not_changed() -> None:
    pretrained = TabMAE(**SMALL).fit(TABLE)
    before = pretrained.transform(TABLE)
    model = TabMAEClassifier(**SMALL, pretrained=pretrained).fit(TABLE[:40], HIGH[:40])
    assert model.imputer_.model_ is pretrained.model_
    np.testing.assert_array_equal(pretrained.transform(TABLE), before)
    assert model.score(TABLE[40:], HIGH[40:]) > 0.75


def test_pretrain_serves_every_fit_after_it() -> None:
    model = TabMAEClassifier(**SMALL, members=("linear",)).pretrain(TABLE)
    first = model.fit(TABLE[:40], HIGH[:40]).imputer_
    assert first is model.pretrained_ is model.fit(TABLE[40:80], HIGH[40:80]).imputer_
    with pytest.raises(NotFittedError):
        TabMAEClassifier(**SMALL).pretrain(TABLE).predict(TABLE)


def test_a_grid_search_clones_a_frozen_one() -> None:
    frozen = FrozenEstimator(TabMAE(**SMALL).fit(TABLE))
    search = GridSearchCV(TabMAEClassifier(**SMALL, pretrained=frozen), {"members": [("linear",), ("trees",)]}, cv=2)
    search.fit(TABLE, HIGH)
    assert search.best_score_ > 0.75


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_saved_and_pickled_models_answer_alike(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = request.getfixturevalue(kind)
    model.save(tmp_path / "model")
    for copy in (tabmae.load(tmp_path / "model"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(copy.predict(TABLE), model.predict(TABLE))
        pd.testing.assert_frame_equal(copy.quality_, model.quality_)
        assert copy.n_features_in_ == model.n_features_in_


def test_string_classes_and_a_pretrained_model_go_through_a_folder(tmp_path: Path) -> None:
    pretrained = TabMAE(**SMALL, experts=()).fit(pd.DataFrame(TABLE, columns=list("abcde")))
    labels = pd.Series(np.where(HIGH, "high", "low"), dtype=object)
    table = pd.DataFrame(TABLE, columns=list("abcde"))
    model = TabMAEClassifier(**SMALL, pretrained=pretrained).fit(table, labels)
    model.save(tmp_path / "model")
    loaded = tabmae.load(tmp_path / "model")
    assert loaded.pretrained is None and loaded.classes_.dtype == object
    np.testing.assert_array_equal(loaded.predict_proba(table), model.predict_proba(table))
    assert loaded.feature_names_in_.tolist() == list("abcde")


@pytest.mark.parametrize("dtype", ["datetime64[D]", "datetime64[us]", "datetime64[ns]"])
def test_classes_of_time_go_through_a_folder(dtype: str, tmp_path: Path) -> None:
    days = np.where(HIGH, np.datetime64("2024-05-01"), np.datetime64("1999-12-31")).astype(dtype)
    model = TabMAEClassifier(**SMALL, members=("linear",)).fit(TABLE, days)
    model.save(tmp_path / "model")
    loaded = tabmae.load(tmp_path / "model")
    assert loaded.classes_.dtype == days.dtype
    np.testing.assert_array_equal(loaded.predict(TABLE), model.predict(TABLE))


def test_rows_beyond_those_of_pretraining_are_completed_alike_after_a_folder(tmp_path: Path) -> None:
    pretrained = TabMAE(**SMALL).fit(TABLE)
    model = TabMAERegressor(**SMALL, pretrained=pretrained, members=("linear",)).fit(TABLE, FACTOR)
    model.save(tmp_path / "model")
    far = with_holes(3 * COMPLETE)
    np.testing.assert_array_equal(tabmae.load(tmp_path / "model").predict(far), model.predict(far))


def test_a_folder_whose_trees_lead_nowhere_is_refused(classifier: TabMAEClassifier, tmp_path: Path) -> None:
    state, tensors = classifier._get_state()
    for name in ("ensemble.members.trees.0.feature", "ensemble.members.boosting.0.forest.feature"):
        hostile = dict(tensors) | {name: torch.where(tensors[name] >= 0, 99, tensors[name]).int()}
        with pytest.raises(ValueError, match="nodes must lead"):
            TabMAEClassifier(**SMALL)._set_state(json.loads(json.dumps(state)), hostile)


@pytest.mark.parametrize("estimator", [TabMAEClassifier, TabMAERegressor])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "This estimator requires y to be passed"),
        (np.full(150, np.nan), "y must hold at least 2 labels; got 0"),
        (np.r_[np.inf, np.ones(149)], "y must be finite; it contains infinity in 1 rows"),
        (np.ones(10), "Found input variables with inconsistent numbers of samples"),
        ("target", r"y should be a 1d array, got an array of shape \(\) instead. Pass one label a row, such as X\['"),
        (np.eye(150, 2), r"y should be a 1d array, got an array of shape \(150, 2\) instead. Pass one label a row"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(estimator: Any, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimator(**SMALL).fit(TABLE, labels)


def test_numbers_whose_squares_leave_the_range_are_refused() -> None:
    with pytest.raises(DataError, match="y must have a standard deviation that is finite; it is inf"):
        TabMAERegressor(**SMALL).fit(TABLE, FACTOR * 1e200)


def test_labels_of_the_other_task_are_refused() -> None:
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        TabMAEClassifier(**SMALL).fit(TABLE, FACTOR)
    with pytest.raises(DataError, match="y must hold at least two classes; got one class, 'a'"):
        TabMAEClassifier(**SMALL).fit(TABLE, ["a"] * len(TABLE))
    with pytest.raises(DataError, match="y must hold labels of one plain type; '<' not supported"):
        TabMAEClassifier(**SMALL).fit(TABLE, ["a", *range(1, len(TABLE))])
    for odd in (pd.cut(pd.Series(FACTOR), 3), pd.Series(pd.period_range("2024", periods=150, freq="D"))):
        with pytest.raises(DataError, match="y must hold labels of one plain type; got (Interval|Period). Convert"):
            TabMAEClassifier(**SMALL).fit(TABLE, odd)
    with pytest.raises(DataError, match="y must hold numbers; could not convert"):
        TabMAERegressor(**SMALL).fit(TABLE, np.where(HIGH, "high", "low"))
    for moments in (pd.date_range("2024", periods=150), pd.to_timedelta(np.arange(150), unit="D")):
        with pytest.raises(DataError, match="y must hold numbers; it holds (datetime|timedelta)64"):
            TabMAERegressor(**SMALL).fit(TABLE, pd.Series(moments))


def test_labels_of_which_most_are_minus_one_are_asked_about() -> None:
    labels = np.where(np.arange(len(TABLE)) % 3 == 0, HIGH, -1)
    with pytest.warns(UserWarning, match=r"y holds -1 in 100 of 150 rows, .*replace\(-1, numpy.nan\)"):
        codes_of(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for plain in (np.where(HIGH, 1, -1), np.where(labels < 0, 2, labels), np.where(np.arange(150) % 2, labels, 1)):
            codes_of(plain)


def test_what_is_no_table_is_told_before_its_length() -> None:
    with pytest.raises(DataError, match="X must be in memory; got a polars LazyFrame"):
        TabMAEClassifier(**SMALL).fit(pl.from_numpy(TABLE).lazy(), HIGH)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"members": "linear"}, "`members` must be 'auto' or a tuple of names"),
        ({"members": ("lineer",)}, "`members` must be one of 'linear', .*Did you mean 'linear'"),
        ({"pretrained": 3}, "`pretrained` must be a fitted TabMAE; got int"),
        ({"d_token": 0}, "`d_token` must be"),
    ],
)
def test_wrong_parameters_are_refused_before_any_work(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        TabMAEClassifier(**parameters).fit(TABLE, HIGH)


def test_pretraining_what_is_pretrained_is_refused() -> None:
    with pytest.raises(ParameterError, match="`pretrained` must be None to pretrain"):
        TabMAEClassifier(pretrained=TabMAE(**SMALL).fit(TABLE)).pretrain(TABLE)


def test_a_fit_that_fails_leaves_the_model_as_it_was(classifier: TabMAEClassifier) -> None:
    before = classifier.predict_proba(TABLE)
    with pytest.raises(ValueError, match="inconsistent"):
        classifier.fit(TABLE, HIGH[:10])
    with pytest.raises(DataError, match="X must have at least"):
        classifier.fit(np.full((4, 5), np.nan), [0, 1, 0, 1])
    np.testing.assert_array_equal(classifier.predict_proba(TABLE), before)


def test_many_classes_are_doubted_once() -> None:
    X, labels = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 25
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        TabMAEClassifier(members=("linear", "trees"), max_epochs=1, d_token=4, random_state=0).fit(X, labels)
    assert [str(warning.message)[:28] for warning in told] == ["The number of unique classes"]
