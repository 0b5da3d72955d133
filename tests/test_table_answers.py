"""What `TabMAE` answers beside imputed tables: draws, intervals, probabilities, reconstructions, embeddings, scores."""

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from generated import correlated, with_holes
from numpy.typing import NDArray

from tabmae.errors import DataError, ParameterError
from tabmae.estimators.table import TabMAE, TabMAEEncoder

NUMBERS = ["x", "weight", "n", "steps", "day"]
CITIES = {"Oslo", "Rome", "Bonn"}
N_FIT = 500

TRUTH = correlated(800, n_columns=4)
HOLES = with_holes(TRUTH, 0.2)


@pytest.fixture(scope="module")
def trained() -> TabMAE:
    """A model of the first rows of four columns that share a factor."""
    return TabMAE(max_epochs=30, d_token=8, random_state=0).fit(HOLES[:N_FIT])


def test_draws_differ_in_missing_cells_and_keep_the_observed_ones(mixed: pd.DataFrame, model: TabMAE) -> None:
    one, other = model.sample(mixed, n_samples=2)
    missing = mixed.isna()
    for draw in (one, other):
        assert draw.dtypes.equals(mixed.dtypes) and not draw.isna().any(axis=None)
        pd.testing.assert_frame_equal(draw.mask(missing), mixed, check_exact=True)
    for name in NUMBERS:
        assert (one[name] != other[name]).sum() > 0
    assert any((one[name] != other[name]).any() for name in set(mixed) - set(NUMBERS))
    # Two draws may ask for the level of the same held-out cell.
    assert (one["x"] != other["x"])[missing["x"]].mean() > 0.9


def test_drawn_whole_numbers_stay_whole_and_in_range(mixed: pd.DataFrame, model: TabMAE) -> None:
    assert mixed["steps"].dtype == float
    for draw in model.sample(mixed, n_samples=3):
        assert (draw["steps"] % 1 == 0).all() and draw["n"].dtype == "Int64"
        for name in NUMBERS:
            assert draw[name].between(mixed[name].min(), mixed[name].max()).all()
        assert set(draw["city"]) <= CITIES


def test_draws_are_repeated_by_their_seed(mixed: pd.DataFrame, model: TabMAE) -> None:
    same = [model.sample(mixed, n_samples=1, random_state=3)[0] for _ in range(2)]
    pd.testing.assert_frame_equal(*same, check_exact=True)
    assert not same[0].equals(model.sample(mixed, n_samples=1, random_state=4)[0])
    assert len(model.sample(mixed)) == 5


def test_draws_keep_the_spread_and_the_correlation_that_imputed_means_lose(trained: TabMAE) -> None:
    rows = np.where(np.arange(4) < 2, np.nan, TRUTH[N_FIT:])
    drawn = np.mean([np.cov(draw[:, :2].T) for draw in trained.sample(rows, n_samples=8)], axis=0)
    true = np.cov(TRUTH[N_FIT:, :2].T)
    np.testing.assert_allclose(drawn, true, rtol=0.4)
    assert np.cov(trained.transform(rows)[:, 0]) < 0.9 * true[0, 0]


def test_cells_drawn_for_one_row_agree_with_each_other(trained: TabMAE) -> None:
    draw = trained.sample(np.full((300, 4), np.nan), n_samples=1)[0]
    correlation = np.corrcoef(draw.T) * np.sign(np.corrcoef(TRUTH.T))
    assert (correlation > 0.4).all()


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_intervals_hold_their_share_of_cells_of_new_rows(trained: TabMAE, level: float) -> None:
    rows, missing = HOLES[N_FIT:], np.isnan(HOLES[N_FIT:])
    lower, upper = trained.predict_interval(rows, level)
    held = (lower <= TRUTH[N_FIT:]) & (TRUTH[N_FIT:] <= upper)
    assert abs(held[missing].mean() - level) < 0.08
    imputed = trained.transform(rows)
    inside = (lower <= imputed + 1e-9) & (imputed <= upper + 1e-9)
    assert inside.all()
    np.testing.assert_array_equal(lower[~missing], rows[~missing])
    np.testing.assert_array_equal(upper[~missing], rows[~missing])


def test_intervals_hold_what_is_imputed_even_where_columns_are_nearly_one() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 1)) * [1, 1, 2] + 1e-3 * rng.normal(size=(300, 3))
    holes = with_holes(values, 0.3)
    model = TabMAE(max_epochs=5, d_token=8, random_state=0).fit(holes)
    imputed = model.transform(holes)
    for level in (0.1, 0.5, 0.9):
        lower, upper = model.predict_interval(holes, level)
        assert ((lower <= imputed) & (imputed <= upper)).all()


def test_wider_levels_give_wider_intervals(trained: TabMAE) -> None:
    missing = np.isnan(HOLES[N_FIT:])
    widths = []
    for level in (0.2, 0.5, 0.8, 0.95):
        lower, upper = trained.predict_interval(HOLES[N_FIT:], level)
        widths.append((upper - lower)[missing])
    assert (np.diff(widths, axis=0) >= -1e-6).all() and (widths[0] < widths[-1]).all()


def test_intervals_are_of_numbers_alone_and_integers_become_floats(mixed: pd.DataFrame, model: TabMAE) -> None:
    lower, upper = model.predict_interval(mixed)
    for bound in (lower, upper):
        assert bound.columns.tolist() == NUMBERS and bound.index.equals(mixed.index)
        assert not bound.isna().any(axis=None)
        pd.testing.assert_series_equal(bound["day"].mask(mixed["day"].isna()), mixed["day"])
    assert (lower <= upper).all(axis=None) and (lower["x"] < upper["x"]).equals(mixed["x"].isna())
    assert (lower["n"] % 1 != 0).any()


def test_probabilities_sum_to_one_and_agree_with_the_imputed_level(mixed: pd.DataFrame, model: TabMAE) -> None:
    imputed = model.transform(mixed)
    for name in ("city", "flag", "size"):
        probability = model.predict_proba(mixed, name)
        assert set(probability.columns) == set(mixed[name].dropna()) and probability.index.equals(mixed.index)
        assert (mixed[name] == probability.columns[0]).sum() == mixed[name].value_counts().max()
        np.testing.assert_allclose(probability.sum(axis=1), 1)
        assert (probability >= 0).all(axis=None)
        missing = mixed[name].isna()
        assert probability.idxmax(axis=1)[missing].tolist() == imputed[name][missing].tolist()


def test_probabilities_do_not_depend_on_the_own_value_of_the_column(mixed: pd.DataFrame, model: TabMAE) -> None:
    probability = model.predict_proba(mixed, "city")
    for city in CITIES:
        pd.testing.assert_frame_equal(model.predict_proba(mixed.assign(city=city), "city"), probability)
    pd.testing.assert_frame_equal(model.predict_proba(pl.from_pandas(mixed), "city").set_axis(mixed.index), probability)
    other = model.predict_proba(mixed.assign(x=mixed["x"].max()), "city")
    assert not np.allclose(other, probability)


def test_rare_levels_share_a_probability() -> None:
    rng = np.random.default_rng(0)
    level = np.where(rng.random(300) < 0.5, "common", [f"rare {number % 150}" for number in range(300)])
    table = pd.DataFrame({"level": level, "x": rng.normal(size=300)})
    model = TabMAE(max_epochs=1, d_token=4, random_state=0).fit(table)
    probability = model.predict_proba(table)
    assert set(probability.columns) == set(level)
    np.testing.assert_allclose(probability.sum(axis=1), 1)


def test_only_categories_have_probabilities(mixed: pd.DataFrame, model: TabMAE, trained: TabMAE) -> None:
    categories = "Categorical columns are 'city', 'flag', 'size'"
    for column in ("x", "town", None):
        with pytest.raises(ParameterError, match=f"^`column` must be a categorical column; got.*{categories}"):
            model.predict_proba(mixed, column)
    assert not hasattr(trained, "predict_proba")
    with pytest.raises(AttributeError) as refused:
        trained.predict_proba(mixed)
    assert str(refused.value.__cause__).startswith("A column of fit must be categorical; got numbers and times alone.")


def test_reconstruction_leaves_the_visible_cells_and_does_not_look_at_the_hidden_ones(
    mixed: pd.DataFrame, model: TabMAE
) -> None:
    missing = mixed.isna().to_numpy()
    hidden = np.random.default_rng(2).random(mixed.shape) < 0.3
    rebuilt = model.reconstruct(mixed, hidden)
    assert rebuilt.columns.equals(mixed.columns) and rebuilt.index.equals(mixed.index)
    assert not rebuilt.isna().any(axis=None)
    for place, name in enumerate(mixed):
        visible = ~missing[:, place] & ~hidden[:, place]
        assert (rebuilt[name][visible] == mixed[name][visible]).all()
    for name in ("x", "weight", "n"):
        asked = hidden[:, mixed.columns.get_loc(name)] & mixed[name].notna()
        assert (rebuilt[name][asked] != mixed[name][asked]).all()
    blanked = model.reconstruct(mixed.mask(hidden))
    changed = mixed.assign(city=mixed["city"].where(~hidden[:, 4], "Bonn"), x=mixed["x"].where(~hidden[:, 0], 11.0))
    pd.testing.assert_frame_equal(model.reconstruct(changed, hidden), rebuilt, check_exact=True)
    assert not blanked.equals(rebuilt)


def test_reconstruction_of_everything_predicts_each_cell_from_the_others(trained: TabMAE) -> None:
    rows = HOLES[N_FIT : N_FIT + 20]
    everything = trained.reconstruct(rows)
    for column in range(4):
        hidden = np.zeros(rows.shape, dtype=bool)
        hidden[:, column] = True
        np.testing.assert_allclose(trained.reconstruct(rows, hidden)[:, column], everything[:, column], atol=1e-6)
        blank = np.where(hidden, np.nan, rows)
        np.testing.assert_allclose(trained.transform(blank)[:, column], everything[:, column], atol=1e-4)


def test_reconstruction_denoises(trained: TabMAE) -> None:
    truth = TRUTH[N_FIT:]
    wild = np.random.default_rng(3).random(truth.shape) < 0.1
    noisy = np.where(wild, truth + 3 * truth.std(axis=0), truth)
    rebuilt = trained.reconstruct(noisy, wild)
    assert np.abs(rebuilt - truth)[wild].mean() < 0.4 * np.abs(noisy - truth)[wild].mean()
    np.testing.assert_array_equal(rebuilt[~wild], truth[~wild])


@pytest.mark.parametrize("hidden", [np.zeros((80, 3), dtype=bool), np.zeros((80, 8)), [True]])
def test_hidden_cells_of_another_shape_or_type_are_refused(mixed: pd.DataFrame, model: TabMAE, hidden: Any) -> None:
    with pytest.raises(ParameterError, match=r"^`hidden` must be a bool array of shape \(80, 8\); got"):
        model.reconstruct(mixed, hidden)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("sample", {"n_samples": 0}, "`n_samples` must be an integer of at least 1; got 0"),
        ("sample", {"n_samples": 2.0}, "`n_samples` must be an integer"),
        ("sample", {"random_state": "a"}, "`random_state` must be"),
        ("predict_interval", {"level": 1}, r"`level` must lie in \(0, 1\); got 1"),
        ("predict_interval", {"level": "0.9"}, "`level` must be a finite number"),
    ],
)
def test_bad_arguments_are_refused(
    mixed: pd.DataFrame, model: TabMAE, method: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=f"^{message}"):
        getattr(model, method)(mixed, **arguments)


def test_an_unseen_level_is_kept_and_warned_of(mixed: pd.DataFrame, model: TabMAE) -> None:
    strange = mixed.assign(city=mixed["city"].where(np.arange(len(mixed)) > 2, "Paris"))
    with pytest.warns(UserWarning, match=r"^Column 'city' has values unseen in fit: \['Paris'\] in 3 rows"):
        imputed = model.transform(strange)
    assert imputed["city"].tolist()[:3] == ["Paris"] * 3
    with pytest.warns(UserWarning, match="^Column 'city'"):
        rebuilt = model.reconstruct(strange, np.zeros(mixed.shape, dtype=bool))
    assert rebuilt["city"].tolist()[:3] == ["Paris"] * 3


def test_embeddings_are_a_float32_row_for_each_row(mixed: pd.DataFrame, model: TabMAE) -> None:
    embedded = model.encode(mixed)
    assert embedded.dtype == np.float32 and embedded.shape[0] == len(mixed) and np.isfinite(embedded).all()
    np.testing.assert_allclose(model.encode(mixed.iloc[[5]]), embedded[[5]], atol=1e-6)
    assert not np.allclose(embedded[0], embedded[1])
    encoder = TabMAEEncoder(**model.get_params() | {"experts": ("gaussian", "copies", "trees")}).fit(mixed)
    np.testing.assert_array_equal(encoder.transform(mixed), embedded)
    names = encoder.get_feature_names_out()
    assert names[:2].tolist() == ["tabmaeencoder0", "tabmaeencoder1"] and len(names) == embedded.shape[1]


def test_embeddings_tell_the_factor_that_the_columns_share(trained: TabMAE) -> None:
    def centred(rows: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(rows - rows.mean(axis=0), dtype=np.float64)

    embedded = centred(trained.encode(HOLES))
    factor = centred((TRUTH / np.array([1, -2, 3, -4])).mean(axis=1))
    slopes = np.linalg.lstsq(embedded[:N_FIT], factor[:N_FIT], rcond=1e-3)[0]
    assert np.corrcoef(embedded[N_FIT:] @ slopes, factor[N_FIT:])[0, 1] > 0.9


def test_score_prefers_a_trained_model_and_repeats_itself(trained: TabMAE) -> None:
    untrained = TabMAE(max_epochs=1, d_token=8, lr=1e-9, experts=(), random_state=0).fit(HOLES[:N_FIT])
    rows = HOLES[N_FIT:]
    assert trained.score(rows) == trained.score(rows) > untrained.score(rows) + 0.2
    assert -1.2 < untrained.score(rows) < -0.8


def test_score_does_not_see_the_cells_that_it_asks_for() -> None:
    noise = np.random.default_rng(0).normal(size=(400, 4))
    assert (
        TabMAE(max_epochs=30, d_token=8, visible_weight=5.0, random_state=0).fit(noise[:200]).score(noise[200:]) < -0.9
    )


def test_score_needs_observed_cells(trained: TabMAE) -> None:
    with pytest.raises(DataError, match="^X must have observed cells to be scored on"):
        trained.score(np.full((3, 4), np.nan))


def test_draws_and_bounds_of_a_number_that_is_mostly_zero_are_mostly_zero() -> None:
    rng = np.random.default_rng(0)
    wind = rng.normal(size=600)
    rain = np.where(rng.random(600) < 1 / (1 + np.exp(-2 * wind - 0.5)), 0.0, rng.gamma(2, 2, 600))
    days = pd.DataFrame({"rain": rain, "wind": wind})
    days.loc[::3, "rain"] = np.nan
    imputer = TabMAE(random_state=0).fit(days)
    drawn = pd.concat(imputer.sample(days, n_samples=5, random_state=0))["rain"][days["rain"].isna()]
    truth = rain[::3]
    assert (drawn == 0).mean() == pytest.approx((truth == 0).mean(), abs=0.12)
    assert ((drawn > 0) & (drawn < 0.1)).mean() < 0.05
    lower, upper = imputer.predict_interval(days)
    held = (truth >= lower["rain"][::3]) & (truth <= upper["rain"][::3])
    assert held.mean() > 0.8 and (lower["rain"][::3] == 0).mean() > 0.9


def test_what_is_said_of_a_missing_cell_is_what_is_imputed_there() -> None:
    rng = np.random.default_rng(0)
    whole = pd.DataFrame(rng.normal(size=(120, 4)).round(3), columns=list("abcd"))
    whole["kind"] = pd.Categorical(rng.choice(list("pqrstuvw"), 120))
    twice = pd.concat([whole, whole[40:]], ignore_index=True)
    model = TabMAE(experts=("gaussian", "copies"), max_epochs=5, random_state=0).fit(twice)
    asked = whole[:40].assign(kind=pd.Categorical([None] * 40, categories=whole["kind"].cat.categories), d=np.nan)
    imputed = model.transform(asked)
    assert (imputed["kind"] == whole["kind"][:40]).mean() > 0.9
    assert (model.predict_proba(asked).idxmax(axis=1) == imputed["kind"].astype(str)).all()
    nothing = model.reconstruct(asked, np.zeros(asked.shape, dtype=bool))
    pd.testing.assert_series_equal(nothing["d"], imputed["d"])
    from_others = model.reconstruct(asked)
    pd.testing.assert_series_equal(from_others["d"], imputed["d"])
